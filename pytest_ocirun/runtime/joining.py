"""Processes that join a container which is there already: execs, and the spares that wait for them.

Must not know how a container is made or ended, nor where its record comes from.
"""

from __future__ import annotations

import os

from pytest_ocirun.errors import KernelRefused, WrongStatus
from pytest_ocirun.linux import proc
from pytest_ocirun.runtime import plan
from pytest_ocirun.runtime.record import add_filter
from pytest_ocirun.runtime.stdio import slots_for

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from pytest_ocirun.oci.process import Process
    from pytest_ocirun.runtime.cgroups import Cgroup
    from pytest_ocirun.runtime.child import Child
    from pytest_ocirun.runtime.record import Record
    from pytest_ocirun.runtime.spare import Spares
    from pytest_ocirun.runtime.spawn import Plan
    from pytest_ocirun.runtime.spawner import Spawner
    from pytest_ocirun.runtime.stdio import Stdio

__tracebackhide__ = True  # in a failed test's traceback the test's own lines are what matters


class Joining:
    """See the module.

    Args:
        spawner: who clones what joins.
        show: told each plan before it is done.
        state: gives the state of the container of an id, as ``Runtime.state`` does.
    """

    def __init__(self, spawner: Spawner, show: Callable[[Plan], None], state: Callable[[str], dict[str, Any]]) -> None:
        self._spawner = spawner
        self._state = state
        self._show = show
        self._spares: Spares | None = None

    def run(
        self, record: Record, process: Process, stdio: Stdio, *, tree: str | None, below: dict[str, str] | None
    ) -> tuple[Child, Cgroup | None]:
        """Run a process in a running container; see ``Runtime.exec``."""
        own = record.cgroup.child(tree) if tree and record.cgroup.join_files() else None
        child: Child | None = None
        try:
            child = self._join(record, own or record.place(below), process, stdio)
            if record.filter is not None and record.filter.listener is not None:
                from pytest_ocirun.runtime import listener

                listener.attach(child, record.filter.listener, self._state(record.id))
            child.wait_spawned()
        except BaseException as error:
            if child is not None:
                child.close()
            if own is not None:
                own.remove()
            if isinstance(error, KernelRefused) and not proc.is_alive(*record.init):
                raise WrongStatus(f"exec in container {record.id}: it ended meanwhile") from error
            raise
        return child, own

    def prepare(self, record: Record) -> None:
        """Have a process join a running container and wait for ``run``; does not wait for it."""
        around = plan.surroundings(record.id, record.cgroup, self._spawner, None)
        if self._spares is None:
            from pytest_ocirun.runtime.spare import Spares

            self._spares = Spares()
        self._spares.add(record.id, self._spawner.spawn(plan.spare_plan(record.config, record.init, around), {}))

    def drop(self, container_id: str) -> None:
        """Let go of what waits in a container."""
        if self._spares is not None:
            self._spares.drop(container_id)

    def _join(self, record: Record, cgroup: Cgroup, process: Process, stdio: Stdio) -> Child:
        """Spawn an exec's process, or have the container's spare become it if one waits."""
        around = plan.surroundings(record.id, cgroup, self._spawner, stdio)
        slots = slots_for(process, record.config, stdio)
        listens = record.filter is not None and record.filter.listener is not None
        if self._spares is not None and plan.suits_spare(record.config, process) and not listens:
            around.filter_flags = None if record.filter is None else record.filter.flags
            steps = plan.program_steps(process, around)
            procs = [path for path in cgroup.join_files() if path not in record.cgroup.join_files()]
            child = self._spares.run(record.id, steps, slots, record.filter, procs)
            if child is not None:
                return child
        filters = add_filter(record.filter, around, slots)
        try:
            made = plan.exec_plan(process, record.config, record.init, around)
            self._show(made)
            return self._spawner.spawn(made, slots)
        finally:
            for fd in filters:
                os.close(fd)
