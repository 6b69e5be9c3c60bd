"""``ocirun start``: run the program of a created container."""

from __future__ import annotations

from pytest_ocirun.cli.core import runtime_of
from pytest_ocirun.cli.options import Verb

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pytest_ocirun.cli.options import Given
    from pytest_ocirun.cli.report import Journal
    from pytest_ocirun.cli.settings import Settings

VERB = Verb("start", "CONTAINER-ID", "run the program of a created container")


def run(given: Given, settings: Settings, journal: Journal) -> int:
    """Start a container; returns when its program runs."""
    runtime_of(settings, journal).start(given.arguments[0])
    return 0
