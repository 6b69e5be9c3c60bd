"""cgroup v2: one directory for everything.

Responsible for: handing controllers down, limits, counters, cgroup.kill, cgroup.freeze and cgroup.events (all
in the kernel's cgroup-v2.rst). Must not know: where a caller without rights finds a place (``delegate``).

The rule that shapes it: a cgroup other than the real root either holds processes or hands controllers to its
children, never both. So a container's own cgroup is a leaf as far as controllers go; the cgroups below it for
single execs get none, share its limits, and serve to kill and to wait.
"""

from __future__ import annotations

import errno
import os

from pytest_ocirun.errors import KernelRefused, Unsupported

from . import BASE, Cgroup, Counters, Manager, Refusal, knobs, limits, tree
from .setting import apply

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pytest_ocirun.oci.runtime import Resources

    from .delegate import Place
    from .setting import Setting

COUNTING = ("memory", "pids", "cpu")
"""Enabled even when not limited, if possible: their counters name the cause of a death."""

CONTROLLERS = (*COUNTING, "cpuset")
FREEZE_SECONDS = 10.0


class V2Manager(Manager):
    """Makes cgroups in a place of the v2 hierarchy.

    Args:
        mount: where the hierarchy is mounted.
        place: where new cgroups go, and which controllers can be had there.
    """

    def __init__(self, mount: str, place: Place) -> None:
        self._mount = mount
        self._place = place
        self.is_fixed = place.privileged

    def availability(self) -> dict[str, Refusal | None]:
        """See ``Manager``."""
        return {name: self._place.refusal(name) for name in CONTROLLERS}

    def device_refusal(self) -> Refusal | None:
        """See ``Manager``."""
        from . import devices

        return devices.refusal(self._mount)

    def create(
        self,
        path: str | None,
        container_id: str,
        resources: Resources | None,
        *,
        allow_none: bool = False,  # noqa: ARG002 - a cgroup can be had here
        everywhere: bool = False,  # noqa: ARG002 - there is one hierarchy
    ) -> Cgroup:
        """See ``Manager.create``."""
        settings = limits.settings_v2(resources)
        absolute, relative = tree.resolve(path, container_id)
        required = limits.controllers(settings)
        if absolute:
            top = self._mount
        else:
            top = self._place.base
            self._refuse_missing(required, settings)
            self._place.settle()

        def attempt(made: tree.Made) -> Cgroup:
            if not path:
                tree.replace_leftover(f"{top}/{relative}")
            directory = top
            for part in relative.split("/"):
                _enable(directory, required)
                directory = f"{directory}/{part}"
                made.mkdir(directory)
            cgroup = V2Cgroup(directory, made.paths)
            cgroup.limit(resources)
            return cgroup

        return tree.build(attempt)

    def _refuse_missing(self, required: list[str], settings: list[Setting]) -> None:
        for name in required:
            refusal = self._place.refusal(name)
            if refusal is not None:
                asked = next(setting for setting in settings if setting.controller == name)
                raise refusal.error(f"cannot set {asked.limit} to {asked.asked}")

    def prune(self) -> None:
        """See ``Manager``."""
        tree.remove_parents([f"{self._place.base}/{BASE}"])


class V2Cgroup(Cgroup):
    """A directory of the v2 hierarchy.

    Args:
        directory: the cgroup.
        made: which directories were made for it, parents first.
    """

    def __init__(self, directory: str, made: list[str]) -> None:
        self._dir = directory
        self._made = made

    @property
    def paths(self) -> dict[str, Any]:
        """See ``Cgroup``."""
        return {"version": "v2", "dirs": {"unified": self._dir}, "made": list(self._made)}

    @property
    def v2_dir(self) -> str | None:
        """The directory."""
        return self._dir

    def join_files(self) -> list[str]:
        """See ``Cgroup``."""
        return [f"{self._dir}/cgroup.procs"]

    def join(self, pid: int) -> None:
        """See ``Cgroup``."""
        tree.join(f"{self._dir}/cgroup.procs", pid)

    def holds(self, pid: int) -> bool:
        """See ``Cgroup``."""
        return pid in tree.processes(self._dir)

    def child(self, name: str) -> Cgroup:
        """See ``Cgroup``."""
        made = tree.Made()
        directory = tree.new_child(made, self._dir, name)
        return V2Cgroup(directory, made.paths)

    def limit(self, resources: Resources | None, *, undo: bool = False) -> None:
        """See ``Cgroup``."""
        places = [(setting, self._dir) for setting in limits.settings_v2(resources)]
        for setting, _directory in places:
            hand_down(self._dir, setting)
        apply(places, undo=undo)
        if resources and resources.devices:
            from . import devices

            devices.enforce(resources.devices, v1=None, v2=self._dir)

    def limits(self) -> dict[str, int | str]:
        """See ``Cgroup``; cpu shares appear as ``cpu.weight``, which is what the kernel keeps."""
        directory = self._dir
        found: dict[str, int | str | None] = {
            "memory.limit": knobs.number(f"{directory}/memory.max"),
            "memory.reservation": knobs.number(f"{directory}/memory.low"),
            "pids.limit": knobs.number(f"{directory}/pids.max"),
            "cpu.weight": knobs.number(f"{directory}/cpu.weight"),
            "cpu.cpus": knobs.read_or_none(f"{directory}/cpuset.cpus"),
            "cpu.mems": knobs.read_or_none(f"{directory}/cpuset.mems"),
        }
        limit, beyond = found["memory.limit"], knobs.number(f"{directory}/memory.swap.max")
        if isinstance(limit, int) and beyond is not None:
            found["memory.swap"] = -1 if -1 in (limit, beyond) else limit + beyond
        quota = (knobs.read_or_none(f"{directory}/cpu.max") or "").split()
        if quota:
            found["cpu.quota"] = -1 if quota[0] == "max" else int(quota[0])
            found["cpu.period"] = int(quota[1])
        return {name: value for name, value in found.items() if value is not None}

    def oom_kills(self) -> int:
        """See ``Cgroup``."""
        return knobs.field(f"{self._dir}/memory.events", "oom_kill") or 0

    def counters(self) -> Counters:
        """See ``Cgroup``; the kernel sums over the cgroups below."""
        directory = self._dir
        return Counters(
            oom_kills=knobs.field(f"{directory}/memory.events", "oom_kill"),
            pids_refused=knobs.field(f"{directory}/pids.events", "max"),
            memory_current=knobs.number(f"{directory}/memory.current"),
            memory_peak=knobs.number(f"{directory}/memory.peak"),
            cpu_usage_us=knobs.field(f"{directory}/cpu.stat", "usage_usec"),
        )

    def processes(self) -> list[int]:
        """See ``Cgroup``."""
        return tree.processes(self._dir)

    def kill(self) -> None:
        """See ``Cgroup``; without cgroup.kill (Linux 5.14) the tree is frozen and killed one by one."""
        tree.require_own(self._dir, self._made)
        if not kill_at_once(self._dir):
            kill_frozen(self._dir)

    def wait_empty(self, timeout: float) -> bool:
        """See ``Cgroup``."""
        return tree.wait_events(self._dir, "populated", 0, timeout)

    def freeze(self) -> None:
        """See ``Cgroup``."""
        freeze(self._dir)

    def thaw(self) -> None:
        """See ``Cgroup``."""
        thaw(self._dir)

    def remove(self, timeout: float = 5.0) -> None:
        """See ``Cgroup``."""
        if self._dir in self._made:
            tree.wait_events(self._dir, "populated", 0, timeout)
        tree.remove_made([self._dir], self._made, timeout)


def kill_at_once(directory: str) -> bool:
    """Write cgroup.kill; False where the kernel has none.

    Raises:
        KernelRefused: the kernel has one and refused.
    """
    try:
        knobs.put(f"{directory}/cgroup.kill", "1")
    except OSError as error:
        if error.errno == errno.ENOENT:
            return not os.path.isdir(directory)
        if error.errno == errno.ENODEV:
            return True
        raise knobs.refused(f"cannot kill the cgroup {directory}", error) from error
    return True


def kill_frozen(directory: str) -> None:
    """Stop all forks by the freezer (Linux 5.2), then kill every process; v2 lets frozen ones die.

    Raises:
        KernelRefused: a process did not die.
    """
    try:
        knobs.put(f"{directory}/cgroup.freeze", "1")
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENODEV):
            raise knobs.refused(f"cannot freeze the cgroup {directory} to kill it", error) from error
    tree.kill_all(directory)


def freeze(directory: str) -> None:
    """Freeze by cgroup.freeze and wait for the event.

    Raises:
        Unsupported: the kernel has no freezer on v2.
        KernelRefused: not all processes stood still in time; they run again.
    """
    try:
        knobs.put(f"{directory}/cgroup.freeze", "1")
    except FileNotFoundError as error:
        if not os.path.isdir(directory):
            raise knobs.refused(f"cannot freeze {directory}", error) from error
        raise Unsupported(f"cannot freeze {directory}: no cgroup.freeze", hint="use Linux 5.2 or later") from error
    except OSError as error:
        raise knobs.refused(f"cannot freeze {directory}", error) from error
    if not tree.wait_events(directory, "frozen", 1, FREEZE_SECONDS):
        thaw(directory)
        raise KernelRefused(
            f"cannot freeze {directory}: not all processes stood still within {FREEZE_SECONDS} s", errno=errno.EBUSY
        )


def thaw(directory: str) -> None:
    """Undo ``freeze``.

    Raises:
        KernelRefused: the kernel's answer.
    """
    try:
        knobs.put(f"{directory}/cgroup.freeze", "0")
    except OSError as error:
        raise knobs.refused(f"cannot thaw {directory}", error) from error


def _enable(directory: str, required: list[str]) -> None:
    """Hand controllers down to the children of a directory: the required, and if it works the counting."""
    file = f"{directory}/cgroup.subtree_control"
    try:
        enabled = knobs.read(file).split()
    except OSError as error:
        raise knobs.refused(f"cannot read {file}", error) from error
    for name in dict.fromkeys((*required, *COUNTING)):
        if name in enabled:
            continue
        try:
            knobs.put(file, f"+{name}")
        except OSError as error:
            if not os.path.isdir(directory):
                raise knobs.refused(f"cannot write to {file}", OSError(errno.ENOENT, "")) from error
            if name in required:
                raise _refused_controller(directory, name, error).error(f"cannot enable {name} in {file}") from error


def offers(directory: str, controller: str) -> bool:
    """Whether a cgroup of the v2 hierarchy, or one above it, has a controller."""
    if controller == limits.CORE:
        return True
    while (known := knobs.read_or_none(f"{directory}/cgroup.controllers")) is not None:
        if controller in known.split():
            return True
        directory = os.path.dirname(directory)
    return False


def hand_down(directory: str, setting: Setting) -> None:
    """Enable the controller of a setting in a cgroup, if need be from the top of the hierarchy down.

    Raises:
        Unsupported: no cgroup above has it, or one may not hand it down.
    """
    name = setting.controller
    if name == limits.CORE or os.path.exists(f"{directory}/{setting.file}"):
        return
    above: list[str] = []
    while (known := knobs.read_or_none(f"{directory}/cgroup.controllers")) is not None:
        if name in known.split():
            break
        directory = os.path.dirname(directory)
        above.append(directory)
    for each in reversed(above if known is not None else []):
        try:
            knobs.put(f"{each}/cgroup.subtree_control", f"+{name}")
        except OSError as error:
            if setting.optional:
                return
            refusal = _refused_controller(each, name, error)
            raise refusal.error(f"cannot set {setting.limit} to {setting.asked}") from error


def _refused_controller(directory: str, name: str, error: OSError) -> Refusal:
    if name not in (knobs.read_or_none(f"{directory}/cgroup.controllers") or "").split():
        return Refusal(
            "the cgroup itself has no such controller",
            f"boot a kernel with {name} on v2, or have it enabled in the cgroup.subtree_control of all above",
        )
    if error.errno == errno.EBUSY:
        return Refusal(
            "the cgroup holds processes, and the kernel gives no controllers below such a one",
            f"move the processes of {directory} into a cgroup below it, or choose another cgroupsPath",
        )
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return Refusal(
            f"no right to write it ({os.strerror(error.errno)})",
            "run as root, or choose a cgroupsPath below a delegated cgroup",
        )
    return Refusal(os.strerror(error.errno or errno.EIO), "see cgroup-v2.rst on cgroup.subtree_control")
