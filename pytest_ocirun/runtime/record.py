"""What is remembered of a container between its operations, in memory and in its state directory.

The compiled system call filter lies beside the document as a file of its own: a process that joins the container
later gets the very same program, whatever has become of the library that compiled it.
"""

from __future__ import annotations

import os
import time

from pytest_ocirun.linux import fds
from pytest_ocirun.oci import codec
from pytest_ocirun.oci.runtime import Config
from pytest_ocirun.runtime.cgroups import Cgroup

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Self

    from pytest_ocirun.oci.process import Process
    from pytest_ocirun.oci.runtime import Seccomp
    from pytest_ocirun.runtime.plan import Surroundings
    from pytest_ocirun.runtime.seccomp import Program
    from pytest_ocirun.runtime.state import Directory

_FILTER = "seccomp.bpf"
_NEW_LISTENER = 8  # SECCOMP_FILTER_FLAG_NEW_LISTENER of seccomp(2)
_TRACED = "traced"


class Filter:
    """A compiled filter as it is handed to a spawner.

    Args:
        code: the instructions.
        flags: of seccomp(2).
        listener: path of the socket that the filter's listener goes to, and metadata for it; None if it has none.
    """

    __slots__ = ("code", "flags", "listener")

    def __init__(self, code: bytes, flags: int, listener: list[str] | None = None) -> None:
        self.code = code
        self.flags = flags
        self.listener = listener

    @classmethod
    def of(cls, program: Program | None, seccomp: Seccomp | None) -> Filter | None:
        """The filter of a compiled program; None without one."""
        if program is None or seccomp is None:
            return None
        listens = program.flags & _NEW_LISTENER
        listener = [seccomp.listener_path, seccomp.listener_metadata] if listens else None
        return Filter(program.code, program.flags, listener)


def can_trace(process: Process) -> bool:
    """Whether a process may come to hold CAP_SYS_PTRACE."""
    sets = process.capabilities
    return sets is not None and any(
        "CAP_SYS_PTRACE" in names
        for names in (sets.bounding, sets.effective, sets.permitted, sets.inheritable, sets.ambient)
    )


def add_filter(program: Program | Filter | None, around: Surroundings, slots: dict[str, int]) -> list[int]:
    """Hand a compiled filter to a spawner as slot ``filter``; the fds that are to be closed after the spawn."""
    if program is None:
        return []
    around.filter_flags = program.flags
    around.filter_listens = bool(program.flags & _NEW_LISTENER)
    slots["filter"] = fds.memfd("seccomp", program.code)
    return [slots["filter"]]


def describe(container_id: str, bundle: str, config: Config) -> dict[str, Any]:
    """What must be known of a container that is only being made, to undo it if whoever makes it is killed."""
    known: dict[str, Any] = {"ociVersion": config.oci_version, "id": container_id, "bundle": bundle}
    if config.annotations:
        known["annotations"] = config.annotations
    parts: dict[str, Any] = {}
    if any(vars(config.hooks).values()):
        parts["hooks"] = codec.encode(config.hooks)
    if config.linux.cgroups_path:
        parts["linux"] = {"cgroupsPath": config.linux.cgroups_path}
    return {**known, "config": parts} if parts else known


class Record:
    """A created container.

    Args:
        container_id: its id.
        config: its config; without ``linux.seccomp`` when it was read back, ``filter`` stands for that.
        init: (pid, start time) of its init.
        cgroup: its place.
        filter: its system call filter, or None.
        traced: whether an exec gave CAP_SYS_PTRACE to something in it, which the config does not.
    """

    __slots__ = ("cgroup", "config", "filter", "id", "init", "traced")

    def __init__(
        self,
        container_id: str,
        config: Config,
        init: tuple[int, int],
        cgroup: Cgroup,
        filter: Filter | None,
        *,
        traced: bool = False,
    ) -> None:
        self.id = container_id
        self.config = config
        self.init = init
        self.cgroup = cgroup
        self.filter = filter
        self.traced = traced

    def place(self, below: dict[str, str] | None = None) -> Cgroup:
        """The cgroup that a process joins: the container's, or the one that ``below`` names."""
        if not below and self.cgroup.v2_dir is None:
            return self.cgroup
        if not below:
            from pytest_ocirun.runtime.cgroups.below import beside

            return beside(self.cgroup, self.init[0])
        from pytest_ocirun.runtime.cgroups.below import find

        return find(self.cgroup, below)

    @classmethod
    def load(cls, directory: Directory, document: dict[str, Any]) -> Self:
        """The record that ``save`` left."""
        loaded = None
        if document["filter_flags"] is not None:
            fd = os.open(_FILTER, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW, dir_fd=directory.fd)
            try:
                loaded = Filter(fds.read_all(fd), document["filter_flags"], document.get("listener"))
            finally:
                os.close(fd)
        config = codec.decode(Config, document["config"])
        init = (document["pid"], document["start_time"])
        place = Cgroup.from_paths(document["cgroups"])
        return cls(document["id"], config, init, place, loaded, traced=directory.has(_TRACED))

    def note_exec(self, root: str, process: Process) -> None:
        """Remember, before it runs, that a process may look at those that join the container later."""
        if can_trace(process) and not self.traced and not can_trace(self.config.process):
            self.traced = True
            os.close(os.open(f"{root}/{self.id}/{_TRACED}", os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600))

    def save(self, directory: Directory, bundle: str, **more: Any) -> None:
        """Write the document, and the filter beside it."""
        if self.filter is not None:
            fd = os.open(_FILTER, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600, dir_fd=directory.fd)
            try:
                left = memoryview(self.filter.code)
                while left:  # a disk that is almost full takes a part, and that is another filter
                    left = left[os.write(fd, left) :]
            finally:
                os.close(fd)
        now = time.time()
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now))
        seccomp, self.config.linux.seccomp = self.config.linux.seccomp, None
        try:
            config = codec.encode(self.config)
        finally:
            self.config.linux.seccomp = seccomp
        document = {
            "ociVersion": self.config.oci_version,
            "id": self.id,
            "pid": self.init[0],
            "start_time": self.init[1],
            "bundle": bundle,
            "rootfs": os.path.join(bundle, self.config.root.path),
            "created": f"{stamp}.{int(now % 1 * 1e9):09d}Z",
            "owner": os.environ.get("USER", "root" if os.geteuid() == 0 else ""),
            "annotations": self.config.annotations,
            "cgroups": self.cgroup.paths,
            "filter_flags": None if self.filter is None else self.filter.flags,
            "config": config,
        }
        if self.filter is not None and self.filter.listener is not None:
            document["listener"] = self.filter.listener
        directory.write(document | more)
