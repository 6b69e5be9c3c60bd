"""``ocirun pause``: have all that runs in a container stand still."""

from __future__ import annotations

from pytest_ocirun.cli.options import Verb

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pytest_ocirun.cli.options import Given
    from pytest_ocirun.cli.report import Journal
    from pytest_ocirun.cli.settings import Settings

VERB = Verb("pause", "CONTAINER-ID", "have all processes of a container stand still")


def run(given: Given, settings: Settings, _journal: Journal) -> int:
    """Pause a container; returns when all stand still."""
    from pytest_ocirun.runtime import pausing

    pausing.pause(settings.root, given.arguments[0])
    return 0
