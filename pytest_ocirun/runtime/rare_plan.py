"""From a config to the steps for what few containers ask for: scheduling, labels, network devices and the like.

Pure, as ``plan`` is, and free where nothing is asked for: the modules that know more are imported by whoever asks.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pytest_ocirun.oci.process import Process
    from pytest_ocirun.oci.runtime import Config
    from pytest_ocirun.runtime.steps import Step


class Rarities:
    """Steps by the place where a plan has them.

    ``first`` comes before any namespace is joined or root entered, ``inside`` in the root while the process still has
    all its rights; ``outside`` is done by the spawner to the new process. ``affinity`` is a list of CPUs to be born on.
    """

    __slots__ = ("_mount_label", "affinity", "first", "inside", "outside")

    def __init__(self) -> None:
        self.first: list[Step] = []
        self.inside: list[Step] = []
        self.outside: list[Step] = []
        self.affinity: list[int] | None = None
        self._mount_label = ""

    def __bool__(self) -> bool:
        return bool(self.first or self.inside or self.outside or self.affinity)

    def add_tuning(self, config: Config, process: Process, *, joining: bool) -> None:
        """Scheduling, I/O priority, CPU affinity, memory policy, personality."""
        from pytest_ocirun.runtime import tuning_plan

        if joining:
            self.affinity = tuning_plan.first_cpus(config, process)
        self.outside += tuning_plan.from_outside(config, process, joining=joining)
        self.inside += tuning_plan.from_inside(config)

    def add_labels(self, config: Config, process: Process) -> None:
        """AppArmor and SELinux."""
        from pytest_ocirun.runtime import label_plan

        self._mount_label = config.linux.mount_label
        labels = label_plan.labels_of(process, config.process)
        self.first += label_plan.opening(labels)
        self.inside += label_plan.setting(labels)

    def add_devices(self, config: Config) -> None:
        """Network devices, which come when the process is where it will stay."""
        namespace = config.linux.namespace("network")
        devices = [[name, device.name or name] for name, device in config.linux.net_devices.items()]
        self.outside.append(["move_devices", devices, namespace.path if namespace else ""])

    def root(self, steps: list[Step]) -> list[Step]:
        """The steps of the root file system, with labels on its mounts."""
        if not self._mount_label:
            return steps
        from pytest_ocirun.runtime import label_plan

        return label_plan.label_mounts(steps, self._mount_label)


def rarities(config: Config, process: Process, *, joining: bool = False) -> Rarities:
    """What the container, or with ``joining`` a process that joins it, needs beyond the usual.

    Args:
        config: the container's; what it says of scheduling and labels holds for a joining process that says nothing.
        process: the process.
        joining: whether it joins a container that there is.
    """
    found = Rarities()
    linux, own = config.linux, config.process
    if (
        (process.scheduler or process.io_priority or linux.personality or linux.memory_policy)
        or (joining and (process.exec_cpu_affinity or own.exec_cpu_affinity or own.scheduler or own.io_priority))
    ):  # fmt: skip
        found.add_tuning(config, process, joining=joining)
    if (
        (process.apparmor_profile or process.selinux_label or own.apparmor_profile or own.selinux_label)
        or (linux.mount_label and not joining)
    ):  # fmt: skip
        found.add_labels(config, process)
    if linux.net_devices and not joining:
        found.add_devices(config)
    if process.rlimits and linux.namespace("user"):
        # Root of a user namespace may raise no hard limit, whatever its creator may.
        found.outside += [["raise_limit", limit.type, limit.hard] for limit in process.rlimits]
    return found
