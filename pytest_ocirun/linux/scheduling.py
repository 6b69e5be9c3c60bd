"""How the kernel schedules a process and its input and output. Sources: sched_setattr(2), ioprio_set(2)."""

from __future__ import annotations

import ctypes

from pytest_ocirun.linux import _libc

SCHED_OTHER = 0
SCHED_FIFO = 1
SCHED_RR = 2
SCHED_BATCH = 3
SCHED_IDLE = 5
SCHED_DEADLINE = 6

SCHED_FLAG_RESET_ON_FORK = 0x01
SCHED_FLAG_RECLAIM = 0x02
SCHED_FLAG_DL_OVERRUN = 0x04
SCHED_FLAG_KEEP_POLICY = 0x08
SCHED_FLAG_KEEP_PARAMS = 0x10
SCHED_FLAG_UTIL_CLAMP_MIN = 0x20
SCHED_FLAG_UTIL_CLAMP_MAX = 0x40

IOPRIO_CLASS_RT = 1
IOPRIO_CLASS_BE = 2
IOPRIO_CLASS_IDLE = 3

_IOPRIO_WHO_PROCESS = 1
_IOPRIO_CLASS_SHIFT = 13


class _SchedAttr(ctypes.Structure):
    _fields_ = [
        ("size", ctypes.c_uint32),
        ("policy", ctypes.c_uint32),
        ("flags", ctypes.c_uint64),
        ("nice", ctypes.c_int32),
        ("priority", ctypes.c_uint32),
        ("runtime", ctypes.c_uint64),
        ("deadline", ctypes.c_uint64),
        ("period", ctypes.c_uint64),
        ("util_min", ctypes.c_uint32),
        ("util_max", ctypes.c_uint32),
    ]


_sched_setattr = _libc.SystemCall("sched_setattr", ctypes.c_int, ctypes.POINTER(_SchedAttr), ctypes.c_uint)
_ioprio_set = _libc.SystemCall("ioprio_set", ctypes.c_int, ctypes.c_int, ctypes.c_int)


def sched_setattr(
    pid: int,
    policy: int,
    *,
    flags: int = 0,
    nice: int = 0,
    priority: int = 0,
    runtime: int = 0,
    deadline: int = 0,
    period: int = 0,
) -> None:
    """Set policy and parameters of the thread ``pid``; see sched_setattr(2).

    Args:
        pid: a thread id; 0 is the caller.
        policy: SCHED_*.
        flags: SCHED_FLAG_*.
        nice: for SCHED_OTHER and SCHED_BATCH.
        priority: for SCHED_FIFO and SCHED_RR.
        runtime: nanoseconds, for SCHED_DEADLINE like the two that follow.
        deadline: nanoseconds.
        period: nanoseconds; 0 is the deadline.
    """
    attr = _SchedAttr(
        policy=policy, flags=flags, nice=nice, priority=priority, runtime=runtime, deadline=deadline, period=period
    )
    attr.size = ctypes.sizeof(attr)
    _sched_setattr(pid, ctypes.byref(attr), 0)


def ioprio_set(pid: int, kind: int, level: int) -> None:
    """Set class and level of the thread ``pid``; see ioprio_set(2).

    Args:
        pid: a thread id; 0 is the caller.
        kind: IOPRIO_CLASS_*.
        level: 0, the first, to 7.
    """
    _ioprio_set(_IOPRIO_WHO_PROCESS, pid, kind << _IOPRIO_CLASS_SHIFT | level)
