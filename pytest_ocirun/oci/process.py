"""The ``process`` object of the OCI runtime specification 1.3.0 for Linux, as a typed document.

Responsible for: the names and types of its properties. Must not know: which values make sense, nor the
container around the process. It is a part of ``config.json`` (``oci.runtime``), and a file of its own for
``exec --process``. Annotations are evaluated here, so their evaluation must not be postponed.
"""

from pytest_ocirun.oci.codec import Document, field, load


class ConsoleSize(Document):
    """The size of a terminal in characters."""

    height: int
    width: int


class User(Document):
    """Who the process is, in the container's user namespace."""

    uid: int
    gid: int
    umask: int | None = None
    additional_gids: list[int] = field(factory=list)


class Capabilities(Document):
    """The five sets of capabilities(7), by names such as ``CAP_KILL``."""

    bounding: list[str] = field(factory=list)
    effective: list[str] = field(factory=list)
    inheritable: list[str] = field(factory=list)
    permitted: list[str] = field(factory=list)
    ambient: list[str] = field(factory=list)


class Rlimit(Document):
    """One limit of setrlimit(2); ``type`` is a name such as ``RLIMIT_NOFILE``."""

    type: str
    soft: int
    hard: int


class Scheduler(Document):
    """The arguments of sched_setattr(2)."""

    policy: str
    nice: int | None = None
    priority: int | None = None
    flags: list[str] = field(factory=list)
    runtime: int | None = None
    deadline: int | None = None
    period: int | None = None


class IOPriority(Document, names={"class_": "class"}):
    """The arguments of ioprio_set(2)."""

    class_: str
    priority: int | None = None


class CPUAffinity(Document):
    """Lists of CPUs, as in ``0-3,7``, for processes that join a container."""

    initial: str = ""
    final: str = ""


class Process(Document, names={"io_priority": "ioPriority", "exec_cpu_affinity": "execCPUAffinity"}):
    """The program, and everything that belongs to its process alone."""

    terminal: bool = False
    console_size: ConsoleSize | None = None
    user: User
    args: list[str] = field(factory=list)
    env: list[str] = field(factory=list)
    cwd: str
    capabilities: Capabilities | None = None
    rlimits: list[Rlimit] = field(factory=list)
    no_new_privileges: bool = False
    apparmor_profile: str = ""
    oom_score_adj: int | None = None
    scheduler: Scheduler | None = None
    selinux_label: str = ""
    io_priority: IOPriority | None = None
    exec_cpu_affinity: CPUAffinity | None = None


def load_process(text: bytes, name: str = "process.json") -> Process:
    """Decode the ``process`` object alone, as ``exec --process`` takes it; see ``load_config``."""
    return load(Process, text, name)
