"""Why a container cannot be checkpointed or restored here: the options of both verbs, and the refusal.

Responsible for: asking criu whether it works, and saying what it answers. Must not know: containers.
"""

from __future__ import annotations

from pytest_ocirun.cli.options import Option
from pytest_ocirun.errors import OcirunError, Unsupported

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

OPTIONS = (
    Option("image-path", "directory of the image files", value="DIR"),
    Option("work-path", "directory of criu's work files and logs", value="DIR"),
    Option("tcp-established", "go on with open tcp connections"),
    Option("ext-unix-sk", "go on with unix sockets whose other end is outside"),
    Option("shell-job", "go on with a terminal from outside"),
    Option("lazy-pages", "bring the memory over when it is touched"),
    Option("file-locks", "keep file locks"),
    Option(
        "manage-cgroups-mode",
        "what is done about cgroups: soft (default), full, strict or ignore",
        value="MODE",
        choices=("soft", "full", "strict", "ignore"),
    ),
    Option("empty-ns", "a namespace that is made without its content", value="NAMESPACE", many=True),
    Option("auto-dedup", "keep no page twice"),
)
"""What both verbs take."""


def refuse(attempt: str) -> NoReturn:
    """Say why it cannot be done.

    Args:
        attempt: what was asked for.

    Raises:
        Unsupported: always.
    """
    from pytest_ocirun.cli.programs import find, output_of

    if find("criu") is None:
        raise Unsupported(f"{attempt}: criu is not installed, and only criu can do that")
    try:
        output_of(["criu", "check"])
    except OcirunError as error:
        raise Unsupported(
            f"{attempt}: criu does not work on this host: {error.message}", hint="`criu check` says the same."
        ) from error
    raise Unsupported(
        f"{attempt}: ocirun does not drive criu", hint="Use another OCI runtime for containers that are to be moved."
    )
