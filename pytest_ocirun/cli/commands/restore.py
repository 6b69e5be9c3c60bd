"""``ocirun restore``: what runc does through criu, refused."""

from __future__ import annotations

from pytest_ocirun.cli import criu, making, stdio
from pytest_ocirun.cli.options import Option, Verb

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pytest_ocirun.cli.options import Given
    from pytest_ocirun.cli.report import Journal
    from pytest_ocirun.cli.settings import Settings

VERB = Verb(
    "restore",
    "NEW-CONTAINER-ID",
    "say why no container can be restored here",
    *criu.OPTIONS,
    *making.OPTIONS,
    stdio.DETACH,
    Option("no-subreaper", "do not adopt orphans of the container; ocirun never does"),
    Option("lsm-profile", "security profile to restore with", value="TYPE:NAME"),
    Option("lsm-mount-context", "security context of the mounts to restore with", value="CONTEXT"),
)


def run(given: Given, _settings: Settings, _journal: Journal) -> int:
    """Refuse, with the reason."""
    from pytest_ocirun.runtime import state

    state.check_id(given.arguments[0])
    criu.refuse(f"restore container {given.arguments[0]}")
