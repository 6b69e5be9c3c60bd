"""Intel RDT: a container's class of service, a directory of the resctrl file system.

Responsible for: finding or making that directory, its schemata, its end, and joining it along with the cgroups. Must
not know: who asks. Imported only when a config has ``linux.intelRdt``. Sources: "IntelRdt" in the runtime-spec's
config-linux.md, and the kernel's Documentation/filesystems/resctrl.rst.

::

    closID   schemas   the directory
    absent   any       ID, made here
    "/"      any       the top: what every process is in
    NAME     some      NAME, made here if it is not there; one that is there must have these schemas
    NAME     none      NAME, which must be there
"""

from __future__ import annotations

import os

from pytest_ocirun.errors import ConfigError, Unsupported

from . import Cgroup, Counters, knobs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pytest_ocirun.oci.runtime import IntelRdt, Resources

_HINT = "mount it, on a machine that has Intel RDT or its like: `mount -t resctrl resctrl /sys/fs/resctrl`"


def mount_point() -> str:
    """Where resctrl is mounted.

    Raises:
        Unsupported: nowhere.
    """
    for line in (knobs.read_or_none("/proc/self/mountinfo") or "").splitlines():
        before, _, after = line.partition(" - ")
        if after.startswith("resctrl "):
            return before.split(" ")[4]
    raise Unsupported("$.linux.intelRdt: no resctrl file system is mounted", hint=_HINT)


class Group:
    """A directory of resctrl that a container's processes are in.

    Args:
        path: the directory.
        made: whether it is to be removed with the container.
        monitor: the monitoring group below it, or empty.
        shared: whether another one removes all this.
    """

    __slots__ = ("made", "monitor", "path", "shared")

    def __init__(self, path: str, *, made: bool, monitor: str = "", shared: bool = False) -> None:
        self.path = path
        self.made = made
        self.monitor = monitor
        self.shared = shared

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values from which ``Group(**...)`` restores it."""
        return {name: getattr(self, name) for name in self.__slots__}

    def tasks(self) -> list[str]:
        """The files that a joining process writes its pid into."""
        return [f"{path}/tasks" for path in (self.path, self.monitor) if path]

    def change(self, rdt: IntelRdt) -> None:
        """Write its schemata.

        Raises:
            KernelRefused: the kernel refused a line; with what it says about it.
        """
        for line in lines(rdt):
            try:
                knobs.put(f"{self.path}/schemata", f"{line}\n")
            except OSError as error:
                said = knobs.read_or_none(f"{os.path.dirname(self.path)}/info/last_cmd_status") or ""
                attempt = f"cannot set $.linux.intelRdt (write {line!r} to {self.path}/schemata)"
                raise knobs.refused(attempt, error, said or None) from error

    def remove(self) -> None:
        """Remove what was made."""
        for path in () if self.shared else (self.monitor, self.path if self.made else ""):
            try:
                if path:
                    os.rmdir(path)
            except FileNotFoundError:
                pass
            except OSError as error:
                raise knobs.refused(f"cannot remove {path}", error) from error


def lines(rdt: IntelRdt) -> list[str]:
    """The schemata in the order of writing: the cache's, memory bandwidth's in place of such lines, the free ones."""
    cache = [line for line in rdt.l3_cache_schema.split("\n") if line]
    if rdt.mem_bw_schema:
        cache = [line for line in cache if not line.startswith("MB:")] + [rdt.mem_bw_schema]
    return cache + [line for text in rdt.schemata for line in text.split("\n") if line]


def find(top: str, container_id: str, rdt: IntelRdt) -> Group:
    """Find or make the group of a container.

    Args:
        top: where resctrl is mounted.
        container_id: names it if the config does not.
        rdt: of the config.

    Raises:
        ConfigError: the named group is not there, or has other schemas.
        KernelRefused: it cannot be made, or the kernel refused a schema.
    """
    path = top if rdt.clos_id == "/" else f"{top}/{rdt.clos_id or container_id}"
    group = Group(path, made=False)
    try:
        if os.path.isdir(path):
            _use(path, rdt)
            group.change(_free(rdt))
        else:
            _make(path, rdt)
            group.made = True
            group.change(rdt)
        if rdt.enable_monitoring:
            monitor = f"{path}/mon_groups/{container_id}"
            _mkdir(monitor)
            group.monitor = monitor
    except BaseException:
        group.remove()
        raise
    return group


def _make(path: str, rdt: IntelRdt) -> None:
    if rdt.clos_id and not lines(rdt):
        raise ConfigError(f"$.linux.intelRdt.closID: there is no {path}", hint="make it, or give schemata for it")
    _mkdir(path)


def _use(path: str, rdt: IntelRdt) -> None:
    if not rdt.clos_id:
        raise ConfigError(f"$.linux.intelRdt: {path} is there already", hint="name it as closID to use it")
    _compare(path, rdt)


def _free(rdt: IntelRdt) -> IntelRdt:
    free = rdt.copy()
    free.l3_cache_schema = free.mem_bw_schema = ""
    return free


def _mkdir(path: str) -> None:
    try:
        os.mkdir(path)
    except OSError as error:
        raise knobs.refused(f"cannot make {path} for $.linux.intelRdt", error) from error


def _compare(path: str, rdt: IntelRdt) -> None:
    asked = rdt.copy()
    asked.schemata = []
    found = _domains((knobs.read_or_none(f"{path}/schemata") or "").split("\n"))
    for key, value in _domains(lines(asked)).items():
        if found.get(key) != value:
            raise ConfigError(
                f"$.linux.intelRdt: {path} has another schema: {key[0]}:{key[1]} is {found.get(key)}, not {value}",
                hint="give another closID, or the schema that it has",
            )


def _domains(schemata: list[str]) -> dict[tuple[str, str], str]:
    """``L3:0=0ff;1=f`` as resource and domain to value, without what may be written in several ways."""
    found = {}
    for line in schemata:
        resource, _, rest = line.strip().partition(":")
        for part in rest.split(";"):
            domain, equals, value = part.partition("=")
            if equals:
                found[resource.strip(), domain.strip()] = value.strip().lower().lstrip("0") or "0"
    return found


class Classed(Cgroup):
    """A cgroup whose processes are in a resctrl group too.

    Args:
        cgroup: the cgroup.
        group: the group.
    """

    def __init__(self, cgroup: Cgroup, group: Group) -> None:
        self._cgroup = cgroup
        self.group = group

    @property
    def paths(self) -> dict[str, Any]:
        """See ``Cgroup``."""
        return {**self._cgroup.paths, "resctrl": self.group.as_dict()}

    @property
    def v2_dir(self) -> str | None:
        """None: no directory alone places a process."""
        return None

    def join_files(self) -> list[str]:
        """See ``Cgroup``."""
        return [*self._cgroup.join_files(), *self.group.tasks()]

    def join(self, pid: int) -> None:
        """See ``Cgroup``."""
        self._cgroup.join(pid)
        for path in self.group.tasks():
            knobs.put(path, str(pid))

    def holds(self, pid: int) -> bool:
        """See ``Cgroup``."""
        return self._cgroup.holds(pid)

    def child(self, name: str) -> Cgroup:
        """See ``Cgroup``."""
        return Classed(self._cgroup.child(name), self._shared())

    def _shared(self) -> Group:
        return Group(self.group.path, made=False, monitor=self.group.monitor, shared=True)

    def limit(self, resources: Resources | None, *, undo: bool = False) -> None:
        """See ``Cgroup``."""
        self._cgroup.limit(resources, undo=undo)

    def limits(self) -> dict[str, int | str]:
        """See ``Cgroup``."""
        return self._cgroup.limits()

    def oom_kills(self) -> int:
        """See ``Cgroup``."""
        return self._cgroup.oom_kills()

    def counters(self) -> Counters:
        """See ``Cgroup``."""
        return self._cgroup.counters()

    def processes(self) -> list[int]:
        """See ``Cgroup``."""
        return self._cgroup.processes()

    def kill(self) -> None:
        """See ``Cgroup``."""
        self._cgroup.kill()

    def wait_empty(self, timeout: float) -> bool:
        """See ``Cgroup``."""
        return self._cgroup.wait_empty(timeout)

    def freeze(self) -> None:
        """See ``Cgroup``."""
        self._cgroup.freeze()

    def thaw(self) -> None:
        """See ``Cgroup``."""
        self._cgroup.thaw()

    def remove(self, timeout: float = 5.0) -> None:
        """See ``Cgroup``."""
        self._cgroup.remove(timeout)
        self.group.remove()
