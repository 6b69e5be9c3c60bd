"""Spares: processes that have joined a container and wait for a program, so that the first exec has only to begin.

What an exec costs is mostly the fork of a Python process and its end in execve, the cgroups and the namespaces. A spare
has that behind it: it is the ``runner`` in the container, takes the system calls that are left from its reply socket
and so becomes the program. It stands in the container's process list until then, and where its program would: it counts
among the container's pids, and its few pages are the container's. It is not dumpable, so what runs in the container can
end it but not use it.
"""

from __future__ import annotations

from pytest_ocirun.errors import OcirunError
from pytest_ocirun.runtime import calls, place
from pytest_ocirun.runtime.runner import Unfit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pytest_ocirun.runtime.child import Child
    from pytest_ocirun.runtime.record import Filter
    from pytest_ocirun.runtime.steps import Step

__tracebackhide__ = True  # in a failed test's traceback the test's own lines are what matters


class Spares:
    """The spares of one runtime, at most one for each container."""

    def __init__(self) -> None:
        self._waiting: dict[str, Child] = {}
        with open("/proc/sys/kernel/cap_last_cap", encoding="ascii") as file:
            self._last_capability = int(file.read())

    def add(self, container_id: str, child: Child) -> None:
        """Keep a process that was spawned with ``plan.spare_plan``."""
        self._waiting[container_id] = child

    def drop(self, container_id: str) -> None:
        """Let go of a container's spare, which ends."""
        child = self._waiting.pop(container_id, None)
        if child is not None:
            child.close()

    def run(
        self, container_id: str, steps: list[Step], slots: dict[str, int], loaded: Filter | None, procs: list[str]
    ) -> Child | None:
        """Have a container's spare become a program.

        Args:
            container_id: the container.
            steps: as ``plan.program_steps`` gives them.
            slots: the fds that they name.
            loaded: the system call filter that they load, if they do.
            procs: cgroup.procs files of cgroups that the program is to be in and the container's init is not.

        Returns:
            The process, or None if there was none that could. What it meets on its way is told as ``child.NotRun``.
        """
        child = self._waiting.pop(container_id, None)
        if child is None:
            return None
        try:
            message = self._message(steps, list(slots), loaded)
            child.wait_spawned()
            place.join(child.pid, procs)
            child.send(message, list(slots.values()))
        except (OSError, OcirunError, Unfit):
            child.close()  # something in the container ended it, or it has no way; the ordinary one is still there
            return None
        except BaseException:
            child.close()
            raise
        return child

    def _message(self, steps: list[Step], slots: list[str], loaded: Filter | None) -> bytes:
        code, flags = (b"", 0) if loaded is None else (loaded.code, loaded.flags)
        return calls.written(steps, calls.Calls(slots, code, flags, self._last_capability))
