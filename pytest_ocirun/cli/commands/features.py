"""``ocirun features``: what this runtime understands, as the runtime-spec defines it."""

from __future__ import annotations

from pytest_ocirun.cli.options import Verb

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pytest_ocirun.cli.options import Given
    from pytest_ocirun.cli.report import Journal
    from pytest_ocirun.cli.settings import Settings

VERB = Verb("features", "", "print as JSON what this runtime understands, on any host", least=0, most=0)


def run(_given: Given, _settings: Settings, _journal: Journal) -> int:
    """Print the features structure."""
    from pytest_ocirun.oci.json_text import indented
    from pytest_ocirun.runtime import features

    print(indented(features.document(), "    "))
    return 0
