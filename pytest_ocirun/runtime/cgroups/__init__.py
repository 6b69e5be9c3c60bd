"""Where a container's processes are counted, limited, frozen and killed: the contract.

Responsible for the shapes that every cgroup version fills: ``Manager`` makes cgroups, ``Cgroup`` is one
container's (or one exec's) place in them, ``Counters`` what the kernel counted there, ``Refusal`` why a limit
cannot be had. Must not know: namespaces, containers' state, who forks.

``detect`` finds the layout and the manager; ``v1`` (also hybrid), ``v2`` and ``none`` are the variants;
``delegate`` finds a place for a caller who may not write at the root; ``limits`` turns OCI resources into
files and values; ``tree`` has the file system acts that the variants share.

Where ``cgroupsPath`` leads, for every variant:

============  ============================================================================================
absent, ""    ``/ocirun/ID`` below the manager's place (root: the top of every hierarchy; otherwise: the
              nearest delegated cgroup). An empty cgroup left over there is replaced, a populated one is an
              error.
relative      ``/ocirun/PATH`` below the manager's place.
absolute      ``PATH`` from the top of each mounted hierarchy, for everybody.
``..``        refused, in any position; so are ``/`` and ``/ocirun`` itself.
============  ============================================================================================

A cgroup that a relative or absolute path names and that exists already is used, never removed, and never
killed as a whole: what else lives there is not ours.
"""

from __future__ import annotations

from pytest_ocirun.errors import Unsupported

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pytest_ocirun.oci.runtime import Resources

BASE = "ocirun"


class Refusal:
    """Why a limit cannot be had here, and what to do about it.

    Args:
        reason: what is missing, as a clause without a full stop.
        hint: the exact fix.
    """

    __slots__ = ("hint", "reason")

    def __init__(self, reason: str, hint: str) -> None:
        self.reason = reason
        self.hint = hint

    def error(self, attempt: str) -> Unsupported:
        """Make the error to raise when ``attempt`` (what was asked for) meets this refusal."""
        return Unsupported(f"{attempt}: {self.reason}", hint=self.hint)


class Counters:
    """What the kernel counted in a cgroup and below it; None where it does not count.

    How often the memory limit was hit is not among them: v1's memory.failcnt stays 0 on Linux 6.18.

    Args:
        oom_kills: processes killed for lack of memory.
        pids_refused: forks refused by a limit on processes.
        memory_current: bytes charged now.
        memory_peak: the most bytes ever charged.
        cpu_usage_us: microseconds of processor time used.
    """

    __slots__ = ("cpu_usage_us", "memory_current", "memory_peak", "oom_kills", "pids_refused")

    def __init__(
        self,
        *,
        oom_kills: int | None = None,
        pids_refused: int | None = None,
        memory_current: int | None = None,
        memory_peak: int | None = None,
        cpu_usage_us: int | None = None,
    ) -> None:
        self.oom_kills = oom_kills
        self.pids_refused = pids_refused
        self.memory_current = memory_current
        self.memory_peak = memory_peak
        self.cpu_usage_us = cpu_usage_us

    def as_dict(self) -> dict[str, int | None]:
        """Give the counters as plain JSON values."""
        return {name: getattr(self, name) for name in sorted(self.__slots__)}


class Cgroup:
    """One container's, or one exec's, place in the cgroups.

    Read ``counters()`` before ``remove()``: they end with the directory.
    """

    @property
    def paths(self) -> dict[str, Any]:
        """Plain JSON values from which ``from_paths`` restores this object in another process."""
        raise NotImplementedError

    @staticmethod
    def from_paths(paths: dict[str, Any]) -> Cgroup:
        """Restore a cgroup from the ``paths`` of another process.

        Raises:
            ConfigError: the paths are not what ``paths`` gives, or name the top of a hierarchy.
        """
        from .detect import restore

        return restore(paths)

    @property
    def v2_dir(self) -> str | None:
        """The directory to open for ``CLONE_INTO_CGROUP``, if that alone places a process (pure v2)."""
        raise NotImplementedError

    def join_files(self) -> list[str]:
        """List every ``cgroup.procs`` file that a joining process writes its pid (or 0) into, in order."""
        raise NotImplementedError

    def join(self, pid: int) -> None:
        """Move a process into this cgroup.

        Raises:
            KernelRefused: naming the file and the kernel's answer.
        """
        raise NotImplementedError

    def holds(self, pid: int) -> bool:
        """Say whether the kernel counts ``pid`` in this cgroup or below it, in every hierarchy."""
        raise NotImplementedError

    def child(self, name: str) -> Cgroup:
        """Make a cgroup below this one for one exec's process tree: to kill and to wait, without own limits.

        Its ``limits()`` and ``counters()`` are the container's on v1 and empty on v2: ask and change those
        of the container.

        Raises:
            ConfigError: the name is not a single path component.
            KernelRefused: the directory cannot be made, for one because it exists.
        """
        raise NotImplementedError

    def limit(self, resources: Resources | None, *, undo: bool = False) -> None:
        """Write limits and read each back.

        Args:
            resources: what is asked for; what they leave out stays as it is.
            undo: whether what was written is taken back when something is refused.

        Raises:
            ConfigError: a value is out of its range.
            KernelRefused: the kernel refused a value, or reads back another one.
            Unsupported: a controller or file is missing, or this version of cgroups has no such limit.
        """
        raise NotImplementedError

    def limits(self) -> dict[str, int | str]:
        """Read the limits in force from the kernel, under their OCI names; -1 is unlimited."""
        raise NotImplementedError

    def oom_kills(self) -> int:
        """Read one of the counters alone: processes killed for lack of memory, 0 where that is not counted."""
        raise NotImplementedError

    def counters(self) -> Counters:
        """Read what the kernel counted so far."""
        raise NotImplementedError

    def processes(self) -> list[int]:
        """List the processes in this cgroup and below it, as pids of the caller's pid namespace, sorted."""
        raise NotImplementedError

    def kill(self) -> None:
        """SIGKILL every process in this cgroup and below it, so that no fork escapes.

        Returns as soon as none can survive; ``wait_empty`` waits for the last to be gone. Read ``counters()``
        before: where the kernel has no cgroup.kill, forks are stopped by a limit, whose refusals count.

        Raises:
            Unsupported: the cgroup was there before us: foreign processes may live in it.
            KernelRefused: a process did not die in time.
        """
        raise NotImplementedError

    def wait_empty(self, timeout: float) -> bool:
        """Wait until no process is left here and below; say whether that came within ``timeout`` seconds."""
        raise NotImplementedError

    def freeze(self) -> None:
        """Stop every process here and below, and wait until all stand still.

        Raises:
            Unsupported: no freezer here.
            KernelRefused: not all stood still in time; they run again.
        """
        raise NotImplementedError

    def thaw(self) -> None:
        """Let frozen processes run again."""
        raise NotImplementedError

    def remove(self, timeout: float = 5.0) -> None:
        """Remove what was made for this cgroup, sub-cgroups first. Removing twice is fine.

        Processes that are exiting are waited for; living ones are not killed.

        Raises:
            KernelRefused: processes were still there after ``timeout`` seconds; the message names them.
        """
        raise NotImplementedError


class Manager:
    """Makes cgroups in one layout."""

    is_fixed = True
    """Whether any process of this user would make them at the same place, wherever it lives itself."""

    def availability(self) -> dict[str, Refusal | None]:
        """Say which of ``memory``, ``pids``, ``cpu`` and ``cpuset`` can be limited (None), or why not."""
        raise NotImplementedError

    def device_refusal(self) -> Refusal | None:
        """Say why nobody can enforce ``linux.resources.devices`` here, as far as that is known without trying."""
        raise NotImplementedError

    def create(
        self,
        path: str | None,
        container_id: str,
        resources: Resources | None,
        *,
        allow_none: bool = False,
        everywhere: bool = False,
    ) -> Cgroup:
        """Make a container's cgroup, limited as ``resources`` ask; leaves nothing behind when it fails.

        Args: path: ``linux.cgroupsPath``; see this package's table. container_id: names the cgroup when there
            is no path. resources: ``linux.resources``. allow_none: give a cgroup that does nothing where none
            can be made, provided that no limit is asked for. everywhere: in every hierarchy there is, as programs
            expect that look at a cgroup mount, and not only where limits and counters are.

        Raises:
            ConfigError: a path or value is wrong.
            ContainerExists: without a path: the cgroup of that id holds processes.
            KernelRefused: the kernel refused a directory or value, or reads back another value.
            Unsupported: no cgroup can be made here, or a controller is missing.
        """
        raise NotImplementedError

    def prune(self) -> None:
        """Remove the shared parent ``/ocirun`` if no container is left in it. Safe beside other processes."""
        raise NotImplementedError
