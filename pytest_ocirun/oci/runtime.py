"""The configuration and state of a container, as in the OCI runtime specification 1.3.0 for Linux, typed.

Responsible for: the names and types of every property of a ``config.json``. Must not know: which values make
sense (``runtime.validate``), nor what is done with them.

Absent: strings are ``""``, lists and maps empty, numbers and most objects ``None``. Those objects that only
group other properties (``config.linux``, ``config.hooks``, ``linux.resources`` and its memory, cpu and pids)
are always there and may be empty. Annotations are evaluated here, so their evaluation must not be postponed.
"""

from pytest_ocirun.oci.codec import Document, field, load
from pytest_ocirun.oci.process import Process


class Root(Document):
    """The root file system; ``path`` is relative to the bundle unless absolute."""

    path: str
    readonly: bool = False


class IDMapping(Document, names={"container_id": "containerID", "host_id": "hostID"}):
    """One line of ``/proc/PID/uid_map``."""

    container_id: int
    host_id: int
    size: int


class Mount(Document):
    """One mount, in the order of the list; ``type`` is empty for binds of most tools."""

    destination: str
    type: str = ""
    source: str = ""
    options: list[str] = field(factory=list)
    uid_mappings: list[IDMapping] = field(factory=list)
    gid_mappings: list[IDMapping] = field(factory=list)


class Hook(Document):
    """A program to run at a point of the life cycle; ``timeout`` in seconds."""

    path: str
    args: list[str] = field(factory=list)
    env: list[str] = field(factory=list)
    timeout: int | None = None


class Hooks(Document):
    """The six points of the life cycle at which programs run."""

    prestart: list[Hook] = field(factory=list)
    create_runtime: list[Hook] = field(factory=list)
    create_container: list[Hook] = field(factory=list)
    start_container: list[Hook] = field(factory=list)
    poststart: list[Hook] = field(factory=list)
    poststop: list[Hook] = field(factory=list)


class Namespace(Document):
    """A namespace to make, or to join at ``path``; the types are those of namespaces(7), with ``network``."""

    type: str
    path: str = ""


class TimeOffset(Document):
    """How far a clock of a time namespace is ahead."""

    secs: int | None = None
    nanosecs: int | None = None


class Device(Document):
    """A node to make; ``type`` is c, u, b or p."""

    path: str
    type: str
    major: int | None = None
    minor: int | None = None
    file_mode: int | None = None
    uid: int | None = None
    gid: int | None = None


class NetDevice(Document):
    """A network device to move into the container, with the name that it gets there."""

    name: str = ""


class DeviceRule(Document):
    """One rule of the device cgroup; absent numbers mean all."""

    allow: bool
    type: str = ""
    major: int | None = None
    minor: int | None = None
    access: str = ""


class Memory(Document, names={"kernel_tcp": "kernelTCP", "disable_oom_killer": "disableOOMKiller"}):
    """Limits of the memory cgroup in bytes; -1 means none."""

    limit: int | None = None
    reservation: int | None = None
    swap: int | None = None
    kernel: int | None = None
    kernel_tcp: int | None = None
    swappiness: int | None = None
    disable_oom_killer: bool | None = None
    use_hierarchy: bool | None = None
    check_before_update: bool | None = None


class CPU(Document):
    """Limits of the cpu and cpuset cgroups; times in microseconds."""

    shares: int | None = None
    quota: int | None = None
    burst: int | None = None
    period: int | None = None
    realtime_runtime: int | None = None
    realtime_period: int | None = None
    cpus: str = ""
    mems: str = ""
    idle: int | None = None


class Pids(Document):
    """The limit of the pids cgroup; -1 means none."""

    limit: int | None = None


class WeightDevice(Document):
    """The weight of one block device."""

    major: int
    minor: int
    weight: int | None = None
    leaf_weight: int | None = None


class ThrottleDevice(Document):
    """The rate of one block device, in bytes or operations per second."""

    major: int
    minor: int
    rate: int


class BlockIO(
    Document,
    names={
        "throttle_read_iops_device": "throttleReadIOPSDevice",
        "throttle_write_iops_device": "throttleWriteIOPSDevice",
    },
):
    """Limits of the blkio or io cgroup."""

    weight: int | None = None
    leaf_weight: int | None = None
    weight_device: list[WeightDevice] = field(factory=list)
    throttle_read_bps_device: list[ThrottleDevice] = field(factory=list)
    throttle_write_bps_device: list[ThrottleDevice] = field(factory=list)
    throttle_read_iops_device: list[ThrottleDevice] = field(factory=list)
    throttle_write_iops_device: list[ThrottleDevice] = field(factory=list)


class HugepageLimit(Document):
    """The limit of one size of huge pages, such as ``2MB``, in bytes."""

    page_size: str
    limit: int


class InterfacePriority(Document):
    """The priority of one network interface."""

    name: str
    priority: int


class NetworkLimits(Document, names={"class_id": "classID"}):
    """Settings of the net_cls and net_prio cgroups."""

    class_id: int | None = None
    priorities: list[InterfacePriority] = field(factory=list)


class Rdma(Document):
    """Limits of one RDMA device."""

    hca_handles: int | None = None
    hca_objects: int | None = None


class Resources(Document, names={"block_io": "blockIO"}):
    """The limits of the container's cgroup, by controller."""

    devices: list[DeviceRule] = field(factory=list)
    memory: Memory = field(factory=Memory)
    cpu: CPU = field(factory=CPU)
    pids: Pids = field(factory=Pids)
    block_io: BlockIO | None = None
    hugepage_limits: list[HugepageLimit] = field(factory=list)
    network: NetworkLimits | None = None
    rdma: dict[str, Rdma] = field(factory=dict)
    unified: dict[str, str] = field(factory=dict)


class SyscallArg(Document):
    """A condition on one argument of a system call; for MASKED_EQ ``value`` is the mask."""

    index: int
    value: int
    value_two: int | None = None
    op: str


class Syscall(Document):
    """What happens to some system calls, if all conditions hold."""

    names: list[str]
    action: str
    errno_ret: int | None = None
    args: list[SyscallArg] = field(factory=list)


class Seccomp(Document):
    """A system call filter."""

    default_action: str
    default_errno_ret: int | None = None
    architectures: list[str] = field(factory=list)
    flags: list[str] = field(factory=list)
    listener_path: str = ""
    listener_metadata: str = ""
    syscalls: list[Syscall] = field(factory=list)


class IntelRdt(Document, names={"clos_id": "closID", "l3_cache_schema": "l3CacheSchema"}):
    """Settings of resctrl."""

    clos_id: str = ""
    schemata: list[str] = field(factory=list)
    l3_cache_schema: str = ""
    mem_bw_schema: str = ""
    enable_monitoring: bool = False


class MemoryPolicy(Document):
    """The arguments of set_mempolicy(2)."""

    mode: str
    nodes: str = ""
    flags: list[str] = field(factory=list)


class Personality(Document):
    """The argument of personality(2)."""

    domain: str
    flags: list[str] = field(factory=list)


class Linux(Document):
    """Everything that only Linux has."""

    uid_mappings: list[IDMapping] = field(factory=list)
    gid_mappings: list[IDMapping] = field(factory=list)
    sysctl: dict[str, str] = field(factory=dict)
    resources: Resources = field(factory=Resources)
    cgroups_path: str = ""
    namespaces: list[Namespace] = field(factory=list)
    devices: list[Device] = field(factory=list)
    net_devices: dict[str, NetDevice] = field(factory=dict)
    seccomp: Seccomp | None = None
    rootfs_propagation: str = ""
    masked_paths: list[str] = field(factory=list)
    readonly_paths: list[str] = field(factory=list)
    mount_label: str = ""
    intel_rdt: IntelRdt | None = None
    memory_policy: MemoryPolicy | None = None
    personality: Personality | None = None
    time_offsets: dict[str, TimeOffset] = field(factory=dict)

    def namespace(self, kind: str) -> Namespace | None:
        """Return the namespace of that type, or None if the container shares the runtime's."""
        return next((each for each in self.namespaces if each.type == kind), None)


class Config(Document):
    """A container: the content of ``config.json``."""

    oci_version: str
    process: Process
    root: Root
    hostname: str = ""
    domainname: str = ""
    mounts: list[Mount] = field(factory=list)
    hooks: Hooks = field(factory=Hooks)
    annotations: dict[str, str] = field(factory=dict)
    linux: Linux = field(factory=Linux)


class State(Document):
    """What the state operation prints, and what hooks read."""

    oci_version: str
    id: str
    status: str
    pid: int | None = None
    bundle: str
    annotations: dict[str, str] = field(factory=dict)


def load_config(text: bytes, name: str = "config.json") -> Config:
    """Decode a ``config.json``.

    Args:
        text: the file's content.
        name: what to call the file in messages.

    Raises:
        ConfigError: as ``codec.load``.
    """
    return load(Config, text, name)
