"""What a plan makes of a config that asks for scheduling, CPU affinity, memory policy or personality.

Pure, as ``plan`` is. The steps stand in ``tuning``, the words in ``tuning_terms``.
"""

from __future__ import annotations

from pytest_ocirun.linux.numa import MOST_NODES
from pytest_ocirun.runtime import tuning_terms as terms

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pytest_ocirun.oci.process import CPUAffinity, Process
    from pytest_ocirun.oci.runtime import Config
    from pytest_ocirun.runtime.steps import Step


def first_cpus(config: Config, process: Process) -> list[int] | None:
    """The CPUs that a joining process is born on, or None for those of the spawner."""
    wanted = _affinity(config, process)
    return _cpus(wanted.initial) if wanted and wanted.initial else None


def from_outside(config: Config, process: Process, *, joining: bool) -> list[Step]:
    """What the spawner does to a new process that has joined its cgroup."""
    own = config.process
    steps: list[Step] = []
    wanted = _affinity(config, process) if joining else None
    if wanted and wanted.final:
        steps.append(["affinity", _cpus(wanted.final)])
    scheduler = process.scheduler or own.scheduler
    if scheduler is not None:
        given = {name: getattr(scheduler, name) for name in ("nice", "priority", "runtime", "deadline", "period")}
        parameters = {name: value for name, value in given.items() if value}
        if scheduler.flags:
            parameters["flags"] = sum(terms.FLAGS[flag] for flag in set(scheduler.flags))
        steps.append(["schedule", scheduler.policy, parameters])
    priority = process.io_priority or own.io_priority
    if priority is not None:
        steps.append(["io_priority", priority.class_, priority.priority or 0])
    return steps


def from_inside(config: Config) -> list[Step]:
    """What the new process does itself."""
    steps: list[Step] = []
    if config.linux.personality is not None:
        steps.append(["personality", config.linux.personality.domain])
    policy = config.linux.memory_policy
    if policy is not None:
        nodes = terms.numbers(policy.nodes, MOST_NODES, "$.linux.memoryPolicy.nodes") if policy.nodes else []
        steps.append(["memory_policy", policy.mode, policy.flags, nodes])
    return steps


def _affinity(config: Config, process: Process) -> CPUAffinity | None:
    return process.exec_cpu_affinity or config.process.exec_cpu_affinity


def _cpus(text: str) -> list[int]:
    return terms.numbers(text, terms.MOST_CPUS, "$.process.execCPUAffinity")
