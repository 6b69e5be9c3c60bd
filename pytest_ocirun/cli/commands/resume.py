"""``ocirun resume``: let a paused container go on."""

from __future__ import annotations

from pytest_ocirun.cli.options import Verb

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pytest_ocirun.cli.options import Given
    from pytest_ocirun.cli.report import Journal
    from pytest_ocirun.cli.settings import Settings

VERB = Verb("resume", "CONTAINER-ID", "let a paused container go on")


def run(given: Given, settings: Settings, _journal: Journal) -> int:
    """Resume a container."""
    from pytest_ocirun.runtime import pausing

    pausing.resume(settings.root, given.arguments[0])
    return 0
