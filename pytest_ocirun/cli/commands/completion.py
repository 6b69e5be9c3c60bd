"""``ocirun completion``: the script that teaches a shell our command line."""

from __future__ import annotations

from pytest_ocirun.cli.completion import SCRIPTS
from pytest_ocirun.cli.options import Usage, Verb

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pytest_ocirun.cli.options import Given
    from pytest_ocirun.cli.report import Journal
    from pytest_ocirun.cli.settings import Settings

VERB = Verb("completion", "|".join(SCRIPTS), "print the completion script of a shell")


def run(given: Given, _settings: Settings, _journal: Journal) -> int:
    """Print the script."""
    from pytest_ocirun.cli import app, settings

    shell = given.arguments[0]
    if shell not in SCRIPTS:
        raise Usage(f"completion: expected {' or '.join(SCRIPTS)}, got {shell!r}")
    verbs = [app.find_command(name).VERB for name in app.VERBS]
    print(SCRIPTS[shell](settings.OPTIONS, verbs), end="")
    return 0
