"""``ocirun stop``: ask a container to end, and end it if it does not."""

from __future__ import annotations

from pytest_ocirun.cli.durations import seconds
from pytest_ocirun.cli.options import Option, Verb
from pytest_ocirun.cli.signals import number_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pytest_ocirun.cli.options import Given
    from pytest_ocirun.cli.report import Journal
    from pytest_ocirun.cli.settings import Settings

VERB = Verb(
    "stop",
    "CONTAINER-ID",
    "end a container: a signal, time to act on it, SIGKILL",
    Option("time", "how long until SIGKILL: seconds, or as 1m30s; by default 10", short="t", value="TIME"),
    Option("signal", "what to send first, by default TERM", short="s", value="SIGNAL"),
)


def run(given: Given, settings: Settings, _journal: Journal) -> int:
    """Stop a container; returns when it has ended, at once if it had."""
    from pytest_ocirun.runtime.stopping import stop

    grace = seconds(given.text("time", "10"), "--time")
    stop(settings.root, given.arguments[0], number_of(given.text("signal", "TERM")), grace)
    return 0
