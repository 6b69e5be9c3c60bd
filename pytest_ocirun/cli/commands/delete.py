"""``ocirun delete``: a container, and all that it holds."""

from __future__ import annotations

from pytest_ocirun.cli.core import runtime_of
from pytest_ocirun.cli.options import Option, Verb
from pytest_ocirun.errors import ContainerNotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pytest_ocirun.cli.options import Given
    from pytest_ocirun.cli.report import Journal
    from pytest_ocirun.cli.settings import Settings

VERB = Verb(
    "delete",
    "CONTAINER-ID",
    "delete a container and all that it holds",
    Option("force", "kill it first if it runs; an unknown id is no error", short="f"),
)


def run(given: Given, settings: Settings, journal: Journal) -> int:
    """Delete it."""
    force = given.on("force")
    try:
        runtime_of(settings, journal).delete(given.arguments[0], force=force)
    except ContainerNotFound:
        if not force:
            raise
    return 0
