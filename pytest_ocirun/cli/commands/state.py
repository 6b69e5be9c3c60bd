"""``ocirun state``: the state of a container, as the runtime-spec defines it."""

from __future__ import annotations

from pytest_ocirun.cli.options import Verb

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pytest_ocirun.cli.options import Given
    from pytest_ocirun.cli.report import Journal
    from pytest_ocirun.cli.settings import Settings

VERB = Verb("state", "CONTAINER-ID", "print the state of a container")


def run(given: Given, settings: Settings, _journal: Journal) -> int:
    """Print the state."""
    from pytest_ocirun.oci.json_text import indented
    from pytest_ocirun.runtime import survey

    print(indented(survey.one(settings.root, given.arguments[0]), "  "))
    return 0
