"""Hook steps: what a container's own process does about hooks, on its way to the program.

Before it leaves the runtime's root file system it waits while the client runs the hooks of the runtime's namespaces,
then it runs those that belong into the container's namespaces but are found on the host (``createContainer``). After
the start it runs those of the container's root file system (``startContainer``) as what the program will be: the same
user, capabilities and filter. Imported by ``steps`` for plans that have such steps only.
Source: runtime-spec config.md, "POSIX-platform Hooks".
"""

from __future__ import annotations

import errno
import os

from pytest_ocirun.errors import HookFailed
from pytest_ocirun.linux import fds
from pytest_ocirun.runtime import hooks
from pytest_ocirun.runtime.steps import Context, operation

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def preload() -> None:
    """Import what is imported only when hooks run; see ``steps.load``."""
    hooks.preload()


@operation("wait while the prestart and createRuntime hooks run")
def await_hooks(context: Context) -> None:
    """Tell the client that every mount is there, and go on when it says so; a client that is gone ends this process."""
    reply = fds.socket_of(context.fds["reply"])
    fds.send(reply, b'{"event": "mounted"}')
    answer, _none = fds.receive(reply)
    reply.detach()
    if answer != b"go":
        os._exit(0)


@operation("run the {0} hooks")
def run_hooks(context: Context, kind: str, listed: list[dict[str, Any]], state: dict[str, Any], filtered: bool) -> None:  # noqa: FBT001
    """Run hooks in this process's namespaces; before the root is left, they start in the container's root directory."""
    if kind == "createContainer":
        os.fchdir(context.root)
    load = context.filter.load if filtered and context.filter is not None else None
    try:
        hooks.run(kind, listed, {**state, "pid": os.getpid()}, before_execution=load)
    except HookFailed as failed:
        raise OSError(errno.ECANCELED, failed.message) from failed
