"""``ocirun create``: make a container whose init waits for ``start``."""

from __future__ import annotations

from pytest_ocirun.cli import making
from pytest_ocirun.cli.options import Verb

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pytest_ocirun.cli.options import Given
    from pytest_ocirun.cli.report import Journal
    from pytest_ocirun.cli.settings import Settings

VERB = Verb("create", "NEW-CONTAINER-ID", "create a container", *making.OPTIONS, staged=True)
before_stage = making.before_stage


def run(given: Given, settings: Settings, journal: Journal) -> int:
    """Create a container; its init outlives us, an orphan."""
    from pytest_ocirun.cli.signals import Deferred, ignore_ending

    made = making.Making(given, settings, journal, detached=True)
    with Deferred():
        made.create()
        ignore_ending()
    return 0
