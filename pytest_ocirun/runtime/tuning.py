"""Steps for scheduling, CPU affinity, memory policy and personality.

Scheduling is set from outside, by the spawner on the new process: in a user namespace the process itself would lack
the right to it. Memory policy and personality only a process itself can set; both pass through execve. Loaded
only when a config uses one of them.
"""

from __future__ import annotations

import os

from pytest_ocirun.linux import numa, scheduling
from pytest_ocirun.linux import personality as domains
from pytest_ocirun.runtime import tuning_terms as terms
from pytest_ocirun.runtime.steps import Context, operation


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
