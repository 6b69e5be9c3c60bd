"""``ocirun checkpoint``: what runc does through criu, refused."""

from __future__ import annotations

from pytest_ocirun.cli import criu
from pytest_ocirun.cli.options import Option, Verb
from pytest_ocirun.errors import WrongStatus

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pytest_ocirun.cli.options import Given
    from pytest_ocirun.cli.report import Journal
    from pytest_ocirun.cli.settings import Settings

VERB = Verb(
    "checkpoint",
    "CONTAINER-ID",
    "say why a running container cannot be saved here",
    *criu.OPTIONS,
    Option("parent-path", "directory of an earlier pre-dump's image files", value="DIR"),
    Option("leave-running", "let the container go on"),
    Option("status-fd", "fd that is told when lazy pages are ready", value="FD"),
    Option("page-server", "where to send pages to", value="ADDRESS:PORT"),
    Option("pre-dump", "save the memory only, and let the container go on"),
)


def run(given: Given, settings: Settings, _journal: Journal) -> int:
    """Refuse, with the reason."""
    from pytest_ocirun.runtime import state

    container_id = given.arguments[0]
    with state.look(settings.root, container_id) as directory:
        status = directory.status(directory.read())
    if status != state.RUNNING:
        raise WrongStatus(f"checkpoint container {container_id}: container not running: it is {status}")
    criu.refuse(f"checkpoint container {container_id}")
