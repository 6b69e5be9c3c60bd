"""The words of scheduling, memory policy and personality, and their right use.

Responsible for: the specification's names, the kernel's numbers behind them, and the combinations that the kernel
would refuse or, worse, take without effect. Must not know: who applies them when. Loaded only when a config uses
them. Sources: runtime-spec config.md "Linux Process", config-linux.md "Memory policy" and "Personality",
sched(7), sched_setattr(2), ioprio_set(2), set_mempolicy(2).
"""

from __future__ import annotations

from pytest_ocirun.errors import ConfigError, Unsupported
from pytest_ocirun.linux import numa, personality, scheduling

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pytest_ocirun.oci.process import CPUAffinity, IOPriority, Scheduler
    from pytest_ocirun.oci.runtime import MemoryPolicy, Personality

POLICIES = {
    name: getattr(scheduling, name)
    for name in ("SCHED_OTHER", "SCHED_FIFO", "SCHED_RR", "SCHED_BATCH", "SCHED_IDLE", "SCHED_DEADLINE")
}
FLAGS = {
    f"SCHED_FLAG_{name}": getattr(scheduling, f"SCHED_FLAG_{name}")
    for name in (
        *("RESET_ON_FORK", "RECLAIM", "DL_OVERRUN", "KEEP_POLICY", "KEEP_PARAMS"),
        *("UTIL_CLAMP_MIN", "UTIL_CLAMP_MAX"),
    )
}
IO_CLASSES = {f"IOPRIO_CLASS_{name}": getattr(scheduling, f"IOPRIO_CLASS_{name}") for name in ("RT", "BE", "IDLE")}
MEMORY_MODES = {
    f"MPOL_{name}": getattr(numa, f"MPOL_{name}")
    for name in ("DEFAULT", "BIND", "INTERLEAVE", "WEIGHTED_INTERLEAVE", "PREFERRED", "PREFERRED_MANY", "LOCAL")
}
MEMORY_FLAGS = {
    f"MPOL_F_{name}": getattr(numa, f"MPOL_F_{name}") for name in ("NUMA_BALANCING", "RELATIVE_NODES", "STATIC_NODES")
}
DOMAINS = {"LINUX": personality.PER_LINUX, "LINUX32": personality.PER_LINUX32}

_REAL_TIME = ("SCHED_FIFO", "SCHED_RR")
_NICE = ("SCHED_OTHER", "SCHED_BATCH")
_DEADLINE = "SCHED_DEADLINE"
_LEAST_RUNTIME = 1024  # nanoseconds; the kernel keeps time no finer
_MOST_TIME = 2**63 - 1
MOST_CPUS = 8192
_NODES_WITH_MEMORY = "/sys/devices/system/node/has_memory"


def check_scheduler(scheduler: Scheduler, path: str) -> None:
    """Check ``process.scheduler``.

    Raises:
        ConfigError: a word or a number is wrong, or has no meaning for the policy.
        Unsupported: Linux never had the policy.
    """
    if scheduler.policy == "SCHED_ISO":
        raise Unsupported(f"{path}.policy: Linux has never implemented SCHED_ISO", hint="SCHED_RR comes closest.")
    _one_of(scheduler.policy, POLICIES, f"{path}.policy")
    for index, flag in enumerate(scheduler.flags):
        _one_of(flag, FLAGS, f"{path}.flags[{index}]")
        if flag in ("SCHED_FLAG_RECLAIM", "SCHED_FLAG_DL_OVERRUN") and scheduler.policy != _DEADLINE:
            raise ConfigError(f"{path}.flags[{index}]: {flag} goes with {_DEADLINE} only")
    _in_range(scheduler.nice, -20, 19, f"{path}.nice")
    if scheduler.nice and scheduler.policy not in _NICE:
        raise ConfigError(f"{path}.nice: goes with {' and '.join(_NICE)} only")
    if scheduler.policy in _REAL_TIME:
        _in_range(scheduler.priority or 0, 1, 99, f"{path}.priority")
    elif scheduler.priority:
        raise ConfigError(f"{path}.priority: goes with {' and '.join(_REAL_TIME)} only")
    _check_times(scheduler, path)


def _check_times(scheduler: Scheduler, path: str) -> None:
    times = {name: getattr(scheduler, name) or 0 for name in ("runtime", "deadline", "period")}
    if scheduler.policy != _DEADLINE:
        for name, value in times.items():
            if value:
                raise ConfigError(f"{path}.{name}: goes with {_DEADLINE} only")
        return
    _in_range(times["runtime"], _LEAST_RUNTIME, _MOST_TIME, f"{path}.runtime")
    _in_range(times["deadline"], times["runtime"], _MOST_TIME, f"{path}.deadline")
    if times["period"]:
        _in_range(times["period"], times["deadline"], _MOST_TIME, f"{path}.period")


def check_io_priority(priority: IOPriority, path: str) -> None:
    """Check ``process.ioPriority``.

    Raises:
        ConfigError: an unknown class, or a level that is none.
    """
    _one_of(priority.class_, IO_CLASSES, f"{path}.class")
    _in_range(priority.priority, 0, 7, f"{path}.priority")


def check_affinity(affinity: CPUAffinity, path: str) -> None:
    """Check ``process.execCPUAffinity``.

    Raises:
        ConfigError: no list of CPUs.
    """
    for name in ("initial", "final"):
        text = getattr(affinity, name)
        if text:
            numbers(text, MOST_CPUS, f"{path}.{name}")


def check_memory_policy(policy: MemoryPolicy, path: str) -> None:
    """Check ``linux.memoryPolicy``, also that the machine has the nodes: the kernel would leave missing ones out.

    Raises:
        ConfigError: a word is wrong, or mode, flags and nodes do not go together.
        Unsupported: the machine lacks a node.
    """
    _one_of(policy.mode, MEMORY_MODES, f"{path}.mode")
    for index, flag in enumerate(policy.flags):
        _one_of(flag, MEMORY_FLAGS, f"{path}.flags[{index}]")
    nodes = numbers(policy.nodes, numa.MOST_NODES, f"{path}.nodes") if policy.nodes else []
    if policy.mode in ("MPOL_DEFAULT", "MPOL_LOCAL"):
        if nodes:
            raise ConfigError(f"{path}.nodes: {policy.mode} takes none")
    elif not nodes and policy.mode != "MPOL_PREFERRED":
        raise ConfigError(f"{path}.nodes: {policy.mode} needs at least one")
    flags = set(policy.flags)
    if not nodes and flags:
        raise ConfigError(f"{path}.flags: {policy.mode} without nodes takes none")
    if flags >= {"MPOL_F_RELATIVE_NODES", "MPOL_F_STATIC_NODES"}:
        raise ConfigError(f"{path}.flags: nodes cannot be both relative and static")
    if "MPOL_F_NUMA_BALANCING" in flags and policy.mode not in ("MPOL_BIND", "MPOL_PREFERRED_MANY"):
        raise ConfigError(f"{path}.flags: MPOL_F_NUMA_BALANCING goes with MPOL_BIND and MPOL_PREFERRED_MANY only")
    if "MPOL_F_RELATIVE_NODES" not in flags:
        _check_nodes(nodes, f"{path}.nodes")


def _check_nodes(nodes: list[int], path: str) -> None:
    try:
        with open(_NODES_WITH_MEMORY, encoding="ascii") as file:
            text = file.read().strip()
    except OSError:
        return  # the kernel will say whether it knows memory policies at all
    present = set(numbers(text, numa.MOST_NODES, _NODES_WITH_MEMORY))
    missing = [node for node in nodes if node not in present]
    if missing:
        raise Unsupported(f"{path}: this machine has no memory node {missing[0]}", hint=f"It has {text}.")


def check_personality(personality: Personality, path: str) -> None:
    """Check ``linux.personality``.

    Raises:
        ConfigError: an unknown domain, or any flag: the specification defines none.
    """
    _one_of(personality.domain, DOMAINS, f"{path}.domain")
    if personality.flags:
        raise ConfigError(f"{path}.flags: the specification defines no flag, got {personality.flags[0]!r}")


def numbers(text: str, below: int, path: str) -> list[int]:
    """The numbers of a list such as ``0-3,7``.

    Args:
        text: the list.
        below: what each number must be less than.
        path: where the list stands, for messages.

    Raises:
        ConfigError: it is no such list.
    """
    found: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        ends = (first, last) if dash else (first, first)
        if not all(end.isascii() and end.isdigit() for end in ends) or int(ends[0]) > int(ends[1]):
            raise ConfigError(f"{path}: expected a list such as 0-3,7, got {text!r}")
        if int(ends[1]) >= below:
            raise ConfigError(f"{path}: numbers end at {below - 1}, got {ends[1]}")
        found.update(range(int(ends[0]), int(ends[1]) + 1))
    return sorted(found)


def _one_of(word: str, words: dict[str, int], path: str) -> None:
    if word not in words:
        raise ConfigError(f"{path}: {word!r} is none of {', '.join(words)}")


def _in_range(value: int | None, low: int, high: int, path: str) -> None:
    if value is not None and not low <= value <= high:
        raise ConfigError(f"{path}: expected {low} to {high}, got {value}")
