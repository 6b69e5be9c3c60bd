"""cgroup v1, alone or with a bare v2 tree beside it (hybrid): one directory in each controller's hierarchy.

Responsible for: the hierarchies that a container needs, limits, counters, killing without a kernel that
helps. Must not know: how mounts are found.

One of a container's directories is the *tracker*: it lists, kills and waits, and holds the cgroups of single
execs. On a hybrid host that is the v2 tree, whose cgroup.kill, cgroup.freeze and cgroup.events are exact;
otherwise pids (its limit, set to 0, stops a fork bomb while it is killed), freezer, or any other. The tracker
is joined first, so that a kill also reaches a process half-way through joining.
"""

from __future__ import annotations

import errno
import os

from pytest_ocirun.errors import KernelRefused, Unsupported

from . import BASE, Cgroup, Counters, Manager, Refusal, knobs, limits, tree, v2
from .setting import apply

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pytest_ocirun.oci.runtime import Resources

    from .setting import Setting

UNIFIED = "unified"
ALWAYS = ("pids", "memory", "cpu", "cpuacct", "freezer", "devices")
"""Joined whether limited or not: for counters, for pause, and so that limits can be set later."""

LIMITING = ("memory", "pids", "cpu", "cpuset")
_TRACKERS = (UNIFIED, "pids", "freezer")
_FREEZE_SECONDS = 10.0


class V1Manager(Manager):
    """Makes cgroups below every hierarchy that a container needs.

    Args:
        mounts: controller (or ``unified``) -> mount point.
    """

    def __init__(self, mounts: dict[str, str]) -> None:
        self._mounts = mounts

    def availability(self) -> dict[str, Refusal | None]:
        """See ``Manager``."""
        return {name: self._refusal(name) for name in LIMITING}

    def device_refusal(self) -> Refusal | None:
        """See ``Manager``."""
        if self._usable("devices"):
            return None
        from . import devices

        return devices.refusal(self._mounts.get(UNIFIED)) and self._refusal("devices")

    def _refusal(self, controller: str) -> Refusal | None:
        mount = self._mounts.get(controller)
        if mount is None:
            return Refusal(
                f"no cgroup v1 hierarchy with the {controller} controller is mounted",
                f"mount it: `mount -t cgroup -o {controller} cgroup /sys/fs/cgroup/{controller}`, or boot "
                "with cgroup v2 alone (systemd.unified_cgroup_hierarchy=1)",
            )
        if os.access(mount, os.W_OK, effective_ids=True):
            return None
        if os.statvfs(mount).f_flag & os.ST_RDONLY:
            return Refusal(
                f"the cgroup v1 hierarchy at {mount} is mounted read-only",
                "inside another container, start that one privileged",
            )
        return Refusal(
            f"the cgroup v1 hierarchy at {mount} is not writable by uid {os.geteuid()}; v1 cannot delegate",
            "run as root, or boot with cgroup v2 alone (systemd.unified_cgroup_hierarchy=1) and use "
            "`systemd-run --user --scope -p Delegate=yes -- COMMAND`",
        )

    def create(
        self,
        path: str | None,
        container_id: str,
        resources: Resources | None,
        *,
        allow_none: bool = False,
        everywhere: bool = False,
    ) -> Cgroup:
        """See ``Manager.create``."""
        settings = limits.settings(resources, self._on_v2)
        _, relative = tree.resolve(path, container_id)
        for setting in settings:
            bare = setting.optional or self._on_v2(setting.controller)
            refusal = None if bare else self._refusal(setting.controller)
            if refusal is not None:
                raise refusal.error(f"cannot set {setting.limit} to {setting.asked}")
        others = self._mounts if everywhere else ()
        wanted = dict.fromkeys((UNIFIED, *limits.controllers(settings), *ALWAYS, *others))
        mounts = {name: self._mounts[name] for name in wanted if self._usable(name)}
        if not mounts:
            return self._without(container_id, allow_none=allow_none)

        def attempt(made: tree.Made) -> Cgroup:
            for mount in dict.fromkeys(mounts.values()):
                if not path:
                    tree.replace_leftover(f"{mount}/{relative}")
                tree.descend(made, mount, relative, cpuset=mount == mounts.get("cpuset"))
            dirs = {name: f"{mount}/{relative}" for name, mount in mounts.items()}
            cgroup = V1Cgroup(dirs, made.paths, _choose_tracker(dirs))
            cgroup.limit(resources)
            return cgroup

        return tree.build(attempt)

    def _on_v2(self, controller: str) -> bool:
        """Whether a controller is to be had in the v2 tree of a hybrid host; hugetlb often is."""
        if controller in self._mounts or UNIFIED not in self._mounts:
            return False
        return v2.offers(self._mounts[UNIFIED], controller)

    def _usable(self, name: str) -> bool:
        mount = self._mounts.get(name)
        return mount is not None and os.access(mount, os.W_OK, effective_ids=True)

    def _without(self, container_id: str, *, allow_none: bool) -> Cgroup:
        if allow_none:
            from .none import NullCgroup

            return NullCgroup()
        refusal = self._refusal("pids") or self._refusal("memory")
        if refusal is None:
            raise AssertionError("pids or memory is usable, and was not used")
        raise refusal.error(f"cannot make a cgroup for container {container_id}")

    def prune(self) -> None:
        """See ``Manager``."""
        tree.remove_parents(f"{mount}/{BASE}" for mount in dict.fromkeys(self._mounts.values()))


class V1Cgroup(Cgroup):
    """A directory in each hierarchy.

    Args:
        dirs: controller (or ``unified``) -> directory.
        made: which directories were made for it, parents first.
        tracker: the key in ``dirs`` that lists, kills and waits.
    """

    def __init__(self, dirs: dict[str, str], made: list[str], tracker: str) -> None:
        self._dirs = dirs
        self._made = made
        self._tracker = tracker
        self._dir = dirs[tracker]

    @property
    def paths(self) -> dict[str, Any]:
        """See ``Cgroup``."""
        return {"version": "v1", "dirs": dict(self._dirs), "made": list(self._made), "tracker": self._tracker}

    @property
    def v2_dir(self) -> str | None:
        """None: one directory alone does not place a process."""
        return None

    def join_files(self) -> list[str]:
        """See ``Cgroup``."""
        return [f"{path}/cgroup.procs" for path in dict.fromkeys((self._dir, *self._dirs.values()))]

    def join(self, pid: int) -> None:
        """See ``Cgroup``."""
        for file in self.join_files():
            tree.join(file, pid)

    def holds(self, pid: int) -> bool:
        """See ``Cgroup``."""
        return all(pid in tree.processes(path) for path in dict.fromkeys(self._dirs.values()))

    def child(self, name: str) -> Cgroup:
        """See ``Cgroup``; only the tracker gets a new directory, the others are shared."""
        made = tree.Made()
        directory = tree.new_child(made, self._dir, name)
        shared = {key: directory if path == self._dir else path for key, path in self._dirs.items()}
        return V1Cgroup(shared, made.paths, self._tracker)

    def limit(self, resources: Resources | None, *, undo: bool = False) -> None:
        """See ``Cgroup``."""
        self._write(limits.settings(resources, self._on_v2), undo=undo)
        if resources and resources.devices:
            from . import devices

            devices.enforce(resources.devices, v1=self._dirs.get("devices"), v2=self._dirs.get(UNIFIED))

    def _on_v2(self, controller: str) -> bool:
        if controller in self._dirs or UNIFIED not in self._dirs:
            return False
        return v2.offers(self._dirs[UNIFIED], controller)

    def _write(self, settings: list[Setting], *, undo: bool) -> None:
        places = []
        for setting in settings:
            directory = self._dirs.get(setting.controller)
            if directory is None and self._on_v2(setting.controller):
                directory = self._dirs[UNIFIED]
                v2.hand_down(directory, setting)
            elif directory is None and setting.optional:
                continue
            elif directory is None:
                from . import adopt

                directory = adopt.join_late(self._dirs, self._made, setting)
            if setting.limit == "cpu.realtimeRuntime":
                from . import realtime

                realtime.make_room(directory, int(setting.value), settings)
            places.append((setting, directory))
        apply(places, undo=undo)

    def limits(self) -> dict[str, int | str]:
        """See ``Cgroup``."""
        found: dict[str, int | str | None] = {}
        for name, controller, file in (
            ("memory.limit", "memory", "memory.limit_in_bytes"),
            ("memory.swap", "memory", "memory.memsw.limit_in_bytes"),
            ("memory.reservation", "memory", "memory.soft_limit_in_bytes"),
            ("pids.limit", "pids", "pids.max"),
            ("cpu.shares", "cpu", "cpu.shares"),
            ("cpu.quota", "cpu", "cpu.cfs_quota_us"),
            ("cpu.period", "cpu", "cpu.cfs_period_us"),
        ):
            value = self._number(controller, file)
            found[name] = -1 if controller == "memory" and value == limits.UNLIMITED_V1 else value
        if "cpuset" in self._dirs:
            found["cpu.cpus"] = knobs.read_or_none(f"{self._dirs['cpuset']}/cpuset.cpus")
            found["cpu.mems"] = knobs.read_or_none(f"{self._dirs['cpuset']}/cpuset.mems")
        return {name: value for name, value in found.items() if value is not None}

    def oom_kills(self) -> int:
        """See ``Cgroup``."""
        return self._sum("memory", "memory.oom_control", "oom_kill") or 0

    def counters(self) -> Counters:
        """See ``Cgroup``; v1 counts kills and refused forks where they happened: summed up here."""
        usage = self._number("cpuacct", "cpuacct.usage")
        return Counters(
            oom_kills=self._sum("memory", "memory.oom_control", "oom_kill"),
            pids_refused=self._sum("pids", "pids.events", "max"),
            memory_current=self._number("memory", "memory.usage_in_bytes"),
            memory_peak=self._number("memory", "memory.max_usage_in_bytes"),
            cpu_usage_us=None if usage is None else usage // 1000,
        )

    def _number(self, controller: str, file: str) -> int | None:
        directory = self._dirs.get(controller)
        return None if directory is None else knobs.number(f"{directory}/{file}")

    def _sum(self, controller: str, file: str, name: str) -> int | None:
        top = self._dirs.get(controller)
        if top is None:
            return None
        counts = [knobs.field(f"{directory}/{file}", name) for directory in tree.directories(top)]
        known = [count for count in counts if count is not None]
        return sum(known) if known else None

    def processes(self) -> list[int]:
        """See ``Cgroup``."""
        return tree.processes(self._dir)

    def kill(self) -> None:
        """See ``Cgroup``; without cgroup.kill forks are stopped, then each process is killed by its pidfd."""
        tree.require_own(self._dir, self._made)
        if self._dirs.get("freezer") in self._made:
            self._thaw_v1()
        if self._tracker == UNIFIED:
            v2.kill_at_once(self._dir)
            return
        try:
            knobs.put(f"{self._dir}/pids.max", "0")
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENODEV):
                raise knobs.refused(f"cannot stop forks in {self._dir}", error) from error
        tree.kill_all(self._dir)

    def wait_empty(self, timeout: float) -> bool:
        """See ``Cgroup``; without a v2 tree by asking every 0.5 to 20 ms, as v1 tells nobody."""
        if self._tracker == UNIFIED:
            return tree.wait_events(self._dir, "populated", 0, timeout)
        return tree.wait_until(lambda: not tree.processes(self._dir), timeout)

    def freeze(self) -> None:
        """See ``Cgroup``; by the v2 tree if that is the tracker: what v1 has frozen cannot be killed."""
        if self._tracker == UNIFIED:
            v2.freeze(self._dir)
            return
        state = self._freezer()

        def frozen() -> bool:
            try:
                knobs.put(state, "FROZEN")
                return knobs.read(state) == "FROZEN"
            except OSError as error:
                raise knobs.refused(f"cannot freeze the container (write FROZEN to {state})", error) from error

        if not tree.wait_until(frozen, _FREEZE_SECONDS):
            self._thaw_v1()
            raise KernelRefused(
                f"cannot freeze {state}: not all processes stood still within {_FREEZE_SECONDS} s", errno=errno.EBUSY
            )

    def thaw(self) -> None:
        """See ``Cgroup``."""
        if self._tracker == UNIFIED:
            v2.thaw(self._dir)
        else:
            self._freezer()
            self._thaw_v1()

    def _freezer(self) -> str:
        if self._dirs.get("freezer") not in self._made:
            raise Unsupported(
                f"cannot freeze {self._dir}: it has no freezer cgroup of its own",
                hint="mount the freezer hierarchy of cgroup v1, or a cgroup v2 tree, writable",
            )
        return f"{self._dirs['freezer']}/freezer.state"

    def _thaw_v1(self) -> None:
        try:
            knobs.put(f"{self._dirs['freezer']}/freezer.state", "THAWED")
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENODEV):
                raise knobs.refused(f"cannot thaw {self._dirs['freezer']}", error) from error

    def remove(self, timeout: float = 5.0) -> None:
        """See ``Cgroup``."""
        if self._dir in self._made and self._tracker == UNIFIED:
            tree.wait_events(self._dir, "populated", 0, timeout)
        if self._dirs.get("cpu") in self._made:
            _give_up_realtime(self._dirs["cpu"])
        tree.remove_made(self._dirs.values(), self._made, timeout)


def _give_up_realtime(directory: str) -> None:
    """Give up a cgroup's real-time share: the kernel counts one that was removed for a while yet."""
    try:
        if knobs.number(f"{directory}/cpu.rt_runtime_us"):
            knobs.put(f"{directory}/cpu.rt_runtime_us", "0")
    except OSError:
        pass  # something real-time is left in it, or it is gone


def _choose_tracker(dirs: dict[str, str]) -> str:
    for name in _TRACKERS:
        if name in dirs and (name != UNIFIED or os.path.exists(f"{dirs[name]}/cgroup.kill")):
            return name
    return next(iter(dirs))
