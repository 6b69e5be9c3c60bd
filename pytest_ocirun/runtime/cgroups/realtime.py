"""Real-time shares on cgroup v1: a cgroup can have no more than those above it have been given.

Responsible for: giving the cgroups above a container as much as their children need together. Must not know: limits
of other kinds. Source: the kernel's Documentation/scheduler/sched-rt-group.rst. A new cgroup has none at all, so
without this no container below a parent of its own could have any.
"""

from __future__ import annotations

import os

from . import knobs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .setting import Setting

_RUNTIME, _PERIOD = "cpu.rt_runtime_us", "cpu.rt_period_us"


def make_room(directory: str, runtime: int, settings: list[Setting]) -> None:
    """Raise the real-time shares of the cgroups above a container, so that it can have its own.

    Args:
        directory: the container's, in the cpu hierarchy.
        runtime: what it is to have in one period.
        settings: all that is to be set; its real-time period may be among them.

    Raises:
        KernelRefused: there is not as much left above.
    """
    period = next((int(each.value) for each in settings if each.file == _PERIOD), 0)
    share = max(runtime, 0) / (period or knobs.number(f"{directory}/{_PERIOD}") or 1)
    wanted: list[tuple[str, int]] = []
    above = os.path.dirname(directory)
    while share and os.path.exists(f"{os.path.dirname(above)}/{_RUNTIME}"):
        total = share + sum(_share(path) for path in _children(above) if path != directory)
        needed = int(total * (knobs.number(f"{above}/{_PERIOD}") or 0)) + 1
        if needed <= (knobs.number(f"{above}/{_RUNTIME}") or 0):
            break
        wanted.append((above, needed))
        directory, above, share = above, os.path.dirname(above), total
    for path, value in reversed(wanted):
        try:
            knobs.put(f"{path}/{_RUNTIME}", str(value))
        except OSError as error:
            attempt = f"cannot set cpu.realtimeRuntime (write {value} to {path}/{_RUNTIME}, for all below it)"
            raise knobs.refused(attempt, error, "real-time shares of all cgroups together are limited") from error


def _children(directory: str) -> list[str]:
    with os.scandir(directory) as entries:
        return [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]


def _share(directory: str) -> float:
    runtime, period = (knobs.number(f"{directory}/{name}") or 0 for name in (_RUNTIME, _PERIOD))
    return max(runtime, 0) / period if period else 0.0
