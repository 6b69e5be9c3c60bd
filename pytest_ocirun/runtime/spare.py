"""Spares: processes that have joined a container and wait for a program, so that the first exec has only to begin.

What an exec costs is mostly the fork of a Python process, the cgroups and the namespaces. A spare has that behind it:
it takes the rest of its steps from its reply socket and becomes the program. It stands in the container's process list
until then, and where its program would: it counts among the container's pids, and its memory is the container's. It is
not dumpable, and has root inside a user namespace at the most, so what runs in the container can end it but not use it.
"""

from __future__ import annotations

import os

from pytest_ocirun.errors import OcirunError
from pytest_ocirun.linux import fds
from pytest_ocirun.oci import json_text
from pytest_ocirun.runtime import place

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pytest_ocirun.runtime.child import Child
    from pytest_ocirun.runtime.steps import Step

__tracebackhide__ = True  # in a failed test's traceback the test's own lines are what matters


class Spares:
    """The spares of one runtime, at most one for each container."""

    def __init__(self) -> None:
        self._waiting: dict[str, Child] = {}

    def add(self, container_id: str, child: Child) -> None:
        """Keep a process that was spawned with ``plan.spare_plan``."""
        self._waiting[container_id] = child

    def drop(self, container_id: str) -> None:
        """Let go of a container's spare, which ends."""
        child = self._waiting.pop(container_id, None)
        if child is not None:
            child.close()

    def run(self, container_id: str, program: list[Step], slots: dict[str, int], procs: list[str]) -> Child | None:
        """Have a container's spare become a program.

        Args:
            container_id: the container.
            program: as ``plan.program_steps`` gives it.
            slots: the fds that it names.
            procs: cgroup.procs files of cgroups that the program is to be in and the container's init is not.

        Returns:
            The process, or None if there was none that could.
        """
        child = self._waiting.pop(container_id, None)
        if child is None:
            return None
        steps = fds.memfd("steps", json_text.dumps(program).encode())
        try:
            child.wait_spawned()
            place.join(child.pid, procs)
            child.send(json_text.dumps({"slots": list(slots)}).encode(), [steps, *slots.values()])
        except (OSError, OcirunError):
            child.close()  # something in the container ended it; the ordinary way is still there
            return None
        except BaseException:
            child.close()
            raise
        finally:
            os.close(steps)
        return child
