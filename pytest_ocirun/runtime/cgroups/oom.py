"""Being told when a cgroup runs out of memory, without asking again and again.

Responsible for: v1's eventfd on ``memory.oom_control``, v2's ``memory.events``, whose pollers the kernel wakes. Must
not know: who is told. Sources: cgroup-v1/memory.rst section 10, cgroup-v2.rst "memory.events".
"""

from __future__ import annotations

import os
import select

from pytest_ocirun.runtime.cgroups import knobs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Any, Self


class OomWatch:
    """Counts how often a cgroup ran out of memory since it was made. Use as a context manager.

    Args:
        paths: of the cgroup, as ``Cgroup.paths`` gives them.

    Raises:
        KernelRefused: the kernel refused to tell.
    """

    def __init__(self, paths: dict[str, Any]) -> None:
        self._v1 = ""
        self._v2 = ""
        self._seen = 0
        self._fds: list[int] = []
        dirs = paths["dirs"]
        try:
            if paths["version"] == "v2":
                self._watch_v2(f"{dirs['unified']}/memory.events")
            elif "memory" in dirs:
                self._watch_v1(dirs["memory"])
        except FileNotFoundError:
            pass  # the memory controller is not there, so it never kills here
        except OSError as error:
            self.close()
            raise knobs.refused(f"cannot watch for lack of memory in {self._v1 or self._v2}", error) from error

    def _watch_v1(self, directory: str) -> None:
        self._v1 = directory
        control = os.open(f"{directory}/memory.oom_control", os.O_RDONLY | os.O_CLOEXEC)
        self._fds = [control]
        event = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._fds = [event, control]
        knobs.put(f"{directory}/cgroup.event_control", f"{event} {control}")

    def _watch_v2(self, file: str) -> None:
        self._v2 = file
        self._fds = [os.open(file, os.O_RDONLY | os.O_CLOEXEC)]
        self._seen = self._kills()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop watching."""
        for fd in self._fds:
            os.close(fd)
        self._fds = []

    def register(self, poller: select.poll) -> None:
        """Have ``poller`` woken when there may be something to ``take``."""
        if self._fds:
            poller.register(self._fds[0], select.POLLPRI if self._v2 else select.POLLIN)

    def take(self) -> int:
        """How often memory ran out since the last time; the cgroup's own end is no such thing."""
        if not self._fds:
            return 0
        if self._v2:
            before, self._seen = self._seen, self._kills()
            return max(0, self._seen - before)
        try:
            count = os.eventfd_read(self._fds[0])
        except BlockingIOError:
            return 0
        # The kernel also tells when the cgroup is removed.
        return count if os.path.exists(f"{self._v1}/cgroup.event_control") else 0

    def _kills(self) -> int:
        """Processes killed; pollers wake at each change since the file was last read."""
        try:
            text = os.pread(self._fds[0], 4096, 0).decode("ascii")
        except OSError:
            return self._seen  # the cgroup is gone
        pairs = (line.partition(" ") for line in text.splitlines())
        return next((int(value) for name, _, value in pairs if name == "oom_kill"), self._seen)
