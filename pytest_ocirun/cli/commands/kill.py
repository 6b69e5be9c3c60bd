"""``ocirun kill``: a signal for a container's init, or for all that runs in it."""

from __future__ import annotations

from pytest_ocirun.cli.core import runtime_of
from pytest_ocirun.cli.options import Option, Verb
from pytest_ocirun.cli.signals import number_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pytest_ocirun.cli.options import Given
    from pytest_ocirun.cli.report import Journal
    from pytest_ocirun.cli.settings import Settings

VERB = Verb(
    "kill",
    "CONTAINER-ID [SIGNAL]",
    "send a signal, by default TERM, to a container's init",
    Option("all", "send it to every process in the container", short="a"),
    most=2,
)


def run(given: Given, settings: Settings, journal: Journal) -> int:
    """Send the signal."""
    container_id, *words = given.arguments
    number = number_of(words[0] if words else "TERM")
    if given.on("all"):
        from pytest_ocirun.runtime.broadcast import signal_all

        signal_all(settings.root, container_id, number)
    else:
        runtime_of(settings, journal).kill(container_id, number)
    return 0
