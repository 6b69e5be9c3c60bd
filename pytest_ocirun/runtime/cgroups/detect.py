"""What this machine's cgroups look like, and the manager that fits them.

Responsible for: reading /proc/self/mountinfo and /proc/self/cgroup, choosing the variant, restoring a cgroup
of another process. Must not know: limits.
"""

from __future__ import annotations

import os

from pytest_ocirun.errors import ConfigError

from . import Cgroup, Manager, Refusal, knobs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_TELLING = {"memory", "pids", "cpu"}
"""A v1 mount of one of these makes the layout v1 or hybrid."""


class Layout:
    """The cgroup hierarchies that are mounted and visible.

    Args:
        v1: controller (or ``name=...``) -> mount point.
        v2: the mount point of the v2 hierarchy.
        own_v2: the directory of our own v2 cgroup, if it is visible below the mount.
    """

    __slots__ = ("own_v2", "v1", "v2")

    def __init__(self, v1: dict[str, str], v2: str | None, own_v2: str | None) -> None:
        self.v1 = v1
        self.v2 = v2
        self.own_v2 = own_v2

    @property
    def kind(self) -> str:
        """``v2``, ``v1``, ``hybrid`` (v1 controllers with a v2 tree beside them) or ``none``."""
        if _TELLING.isdisjoint(self.v1):
            return "none" if self.v2 is None else "v2"
        return "v1" if self.v2 is None else "hybrid"


def layout(mountinfo: str | None = None, own: str | None = None) -> Layout:
    """Read the layout.

    Args:
        mountinfo: the text of proc_pid_mountinfo(5); our own when None.
        own: the text of ``/proc/self/cgroup``, cgroups(7); our own when None.
    """
    text = knobs.read_or_none("/proc/self/mountinfo") if mountinfo is None else mountinfo
    v1: dict[str, str] = {}
    v2: tuple[str, str] | None = None
    for line in (text or "").splitlines():
        device, root, point, kind, options = _mount(line)
        if kind not in {"cgroup", "cgroup2"} or (mountinfo is None and not _visible(point, device)):
            continue
        if kind == "cgroup2":
            v2 = (point, root) if v2 is None or v2[0] == point else v2
            continue
        for option in options.split(","):
            if option.startswith("name=") or option in _V1_CONTROLLERS:
                v1.setdefault(option, point)
    if v2 is None:
        return Layout(v1, None, None)
    text = knobs.read_or_none("/proc/self/cgroup") if own is None else own
    return Layout(v1, v2[0], _own_directory(*v2, text or ""))


_V1_CONTROLLERS = {
    *("blkio", "cpu", "cpuacct", "cpuset", "devices", "freezer", "hugetlb", "memory"),
    *("net_cls", "net_prio", "perf_event", "pids", "rdma", "misc"),
}


def manager(found: Layout | None = None, *, family: tuple[int, ...] = ()) -> Manager:
    """Choose the manager for a layout; changes nothing.

    Args: found: the layout; read now when None. family: pids besides the caller's that may be moved into a
        leaf cgroup where delegation on v2 demands it: the caller's own client, for one.
    """
    found = found or layout()
    if found.v2 is not None and found.kind == "v2":
        from .delegate import find_place

        place = find_place(found.v2, found.own_v2, family)
        if not isinstance(place, Refusal):
            from .v2 import V2Manager

            return V2Manager(found.v2, place)
        refusal = place
    elif found.kind == "none":
        refusal = Refusal(
            "no cgroup hierarchy is mounted here",
            "mount one: `mount -t cgroup2 cgroup2 /sys/fs/cgroup`; inside another container, start that "
            "one with its cgroups mounted",
        )
    else:
        from .v1 import UNIFIED, V1Manager

        return V1Manager(found.v1 if found.v2 is None else {**found.v1, UNIFIED: found.v2})
    from .none import NoManager

    return NoManager(refusal)


def availability() -> dict[str, Refusal | None]:
    """Say which of ``memory``, ``pids``, ``cpu`` and ``cpuset`` can be limited here (None), or why not."""
    return manager().availability()


def restore(paths: dict[str, Any]) -> Cgroup:
    """Restore a cgroup from the ``paths`` of another process.

    Raises:
        ConfigError: the paths are not what ``Cgroup.paths`` gives, or name the top of a hierarchy.
    """
    from . import tree

    if "resctrl" in paths:
        from .resctrl import Classed, Group

        paths = dict(paths)
        group = Group(**paths.pop("resctrl"))
        return Classed(restore(paths), group)
    try:
        version, dirs, made = paths["version"], dict(paths["dirs"]), list(paths["made"])
        for path in (*dirs.values(), *made):
            tree.check_restored(path)
        if version == "v2":
            from .v2 import V2Cgroup

            return V2Cgroup(dirs["unified"], made)
        if version == "v1":
            from .v1 import V1Cgroup

            return V1Cgroup(dirs, made, paths["tracker"])
        if version == "none":
            from .none import NullCgroup

            return NullCgroup()
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"{paths!r} does not describe a cgroup: {error!r}") from error
    raise ConfigError(f"{paths!r} does not describe a cgroup: version is {version!r}")


def _mount(line: str) -> tuple[str, str, str, str, str]:
    """Take device, root, mount point, type and super options from a line of mountinfo."""
    left, _, right = line.partition(" - ")
    fields, (kind, *rest) = left.split(" "), right.split(" ")
    return fields[2], _plain(fields[3]), _plain(fields[4]), kind, rest[-1]


def _plain(text: str) -> str:
    r"""Undo the octal escapes of mountinfo: ``\040`` is a space."""
    if "\\" not in text:
        return text
    for code in ("040", "011", "012", "134"):
        text = text.replace(f"\\{code}", chr(int(code, 8)))
    return text


def _visible(point: str, device: str) -> bool:
    """Whether the mount is what one finds at its mount point, and not covered by a later one."""
    try:
        number = os.stat(point).st_dev
    except OSError:
        return False
    return device == f"{os.major(number)}:{os.minor(number)}"


def _own_directory(mount: str, root: str, own: str) -> str | None:
    """Find our own v2 cgroup below the mount, which may show only a part of the hierarchy."""
    for line in own.splitlines():
        if line.startswith("0::"):
            path, top = line[3:], "" if root == "/" else root
            if path == "/" and not top:
                return mount
            if (path + "/").startswith(top + "/") and "/.." not in path and not path.endswith(" (deleted)"):
                return (mount + path[len(top) :]).rstrip("/")
    return None
