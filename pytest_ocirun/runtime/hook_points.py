"""The points of a container's life at which its hooks run in the runtime's namespaces, seen from the client.

Responsible for: which hooks, with which status in the state that they read, and what their failure means. Must not
know: how a program is run (``hooks``), nor how containers are made. Imported only where a config has hooks.

==============  ========  =======================================================================================
hooks           status    failure
==============  ========  =======================================================================================
prestart        created   create fails, the container is undone, poststop hooks run. The specification leaves open
                          which status this is; "created" is what the validation suite of runtime-tools expects
createRuntime   creating  the same
poststart       running   start fails, the container is ended and deleted, poststop hooks run
poststop        stopped   a warning; the rest goes on
==============  ========  =======================================================================================

Source: runtime-spec runtime.md, "Lifecycle"; config.md, "POSIX-platform Hooks".
"""

from __future__ import annotations

import os

from pytest_ocirun.errors import HookFailed
from pytest_ocirun.runtime import hooks as programs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Document = dict[str, Any]


class Points:
    """The hooks of one container.

    Args:
        document: as ``record`` describes the container.
        run: runs a list of hooks as ``hooks.run`` does, which is used if not given.
        warn: told about hooks that fail when there is nothing left to undo.
    """

    def __init__(
        self, document: Document, run: Callable[..., None] | None = None, warn: Callable[[str], None] | None = None
    ) -> None:
        self._document = document
        self._hooks = document.get("config", {}).get("hooks", {})
        self._do = run or programs.run
        self._warn = warn

    def create(self, pid: int) -> None:
        """Run the hooks of a container whose mounts are made and whose root file system is not entered yet.

        Raises:
            HookFailed: one failed.
        """
        self._run("prestart", "created", pid)
        self._run("createRuntime", "creating", pid)

    def start(self, pid: int) -> None:
        """Run the hooks of a container whose program has begun.

        Raises:
            HookFailed: one failed.
        """
        self._run("poststart", "running", pid)

    def stop(self) -> None:
        """Run the hooks of a container that has been deleted; every one, whatever becomes of the others."""
        for index, hook in enumerate(self._hooks.get("poststop", ())):
            try:
                self._run_list("poststop", [hook], "stopped", first=index)
            except HookFailed as failed:
                if self._warn is not None:
                    self._warn(failed.message)

    def _run(self, kind: str, status: str, pid: int) -> None:
        if self._hooks.get(kind):
            self._run_list(kind, self._hooks[kind], status, pid)

    def _run_list(self, kind: str, hooks: list[Document], status: str, pid: int = 0, first: int = 0) -> None:
        bundle = self._document["bundle"]
        state = state_for_hooks(self._document, status) | ({"pid": pid} if pid else {})
        self._do(kind, hooks, state, first=first, cwd=bundle if os.path.isdir(bundle) else None)


def state_for_hooks(document: Document, status: str) -> Document:
    """The state that hooks read, but for the pid: that is said as seen from the hook's namespaces."""
    state = {name: document[name] for name in ("ociVersion", "id", "bundle")}
    return {**state, "status": status, "annotations": document.get("annotations") or {}}
