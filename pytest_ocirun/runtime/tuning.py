"""Steps for scheduling, memory policy and personality, and what a plan makes of a config that asks for them.

Scheduling is set from outside, by the spawner on the new process: in a user namespace the process itself would lack
the right to it. Memory policy and personality only a process itself can set; both pass through execve. Loaded
only when a config uses one of them.
"""

from __future__ import annotations

import os
import resource

from pytest_ocirun.linux import numa, personality as domains, scheduling
from pytest_ocirun.runtime import tuning_terms as terms
from pytest_ocirun.runtime.steps import Context, operation

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pytest_ocirun.oci.process import Process
    from pytest_ocirun.oci.runtime import Config
    from pytest_ocirun.runtime.steps import Step


@operation("schedule it by {0} with {1}")
def schedule(context: Context, policy: str, parameters: dict[str, int]) -> None:
    """Set scheduling policy and parameters of the new process; ``parameters`` are ``sched_setattr``'s own."""
    scheduling.sched_setattr(context.pid, terms.POLICIES[policy], **parameters)


@operation("order its input and output by {0}, level {1}")
def io_priority(context: Context, kind: str, level: int) -> None:
    """Set the I/O priority of the new process, which all that it makes inherits."""
    scheduling.ioprio_set(context.pid, terms.IO_CLASSES[kind], level)


@operation("let it run on the CPUs {0}")
def affinity(context: Context, cpus: list[int]) -> None:
    """Set the CPU affinity of the new process, now that it is in its cgroup."""
    os.sched_setaffinity(context.pid, cpus)


@operation("raise its hard limit {0} to {1}")
def raise_limit(context: Context, number: int, hard: int) -> None:
    """Raise a hard limit of the new process where it is lower: root of a user namespace may not."""
    soft, present = resource.prlimit(context.pid, number)
    if present != resource.RLIM_INFINITY and (hard == resource.RLIM_INFINITY or hard > present):
        resource.prlimit(context.pid, number, (soft, hard))


@operation("take the personality {0}")
def personality(context: Context, domain: str) -> None:
    """Set the execution domain."""
    del context
    domains.personality(terms.DOMAINS[domain])


@operation("take memory by {0} {1} from the nodes {2}")
def memory_policy(context: Context, mode: str, flags: list[str], nodes: list[int]) -> None:
    """Set the NUMA memory policy."""
    del context
    bits = sum(terms.MEMORY_FLAGS[flag] for flag in set(flags))
    numa.set_mempolicy(terms.MEMORY_MODES[mode] | bits, nodes)


def from_outside(process: Process) -> list[Step]:
    """What the spawner does to a new process that has joined its cgroup."""
    steps: list[Step] = []
    scheduler = process.scheduler
    if scheduler is not None:
        given = {name: getattr(scheduler, name) for name in ("nice", "priority", "runtime", "deadline", "period")}
        parameters = {name: value for name, value in given.items() if value}
        if scheduler.flags:
            parameters["flags"] = sum(terms.FLAGS[flag] for flag in set(scheduler.flags))
        steps.append(["schedule", scheduler.policy, parameters])
    if process.io_priority is not None:
        steps.append(["io_priority", process.io_priority.class_, process.io_priority.priority or 0])
    return steps


def from_inside(config: Config) -> list[Step]:
    """What the new process does itself."""
    steps: list[Step] = []
    if config.linux.personality is not None:
        steps.append(["personality", config.linux.personality.domain])
    policy = config.linux.memory_policy
    if policy is not None:
        nodes = terms.numbers(policy.nodes, numa.MOST_NODES, "$.linux.memoryPolicy.nodes") if policy.nodes else []
        steps.append(["memory_policy", policy.mode, policy.flags, nodes])
    return steps
