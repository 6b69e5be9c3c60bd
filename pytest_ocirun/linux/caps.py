"""Capabilities: names, sets, bounding and ambient. Sources: capabilities(7), capget(2), prctl(2)."""

from __future__ import annotations

import ctypes

from pytest_ocirun.linux import _libc, prctl

_VERSION_3 = 0x20080522

NAMES = (
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
)
NUMBERS = {name: number for number, name in enumerate(NAMES)}


class _Header(ctypes.Structure):
    _fields_ = [("version", ctypes.c_uint32), ("pid", ctypes.c_int)]


class _Data(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint32) for name in ("effective", "permitted", "inheritable")]


_capget = _libc.SystemCall("capget", ctypes.POINTER(_Header), ctypes.POINTER(_Data * 2))
_capset = _libc.SystemCall("capset", ctypes.POINTER(_Header), ctypes.POINTER(_Data * 2))


def mask(names: list[str]) -> int:
    """The bit mask of capability names; unknown names count as nothing, as the runtime-spec asks."""
    return sum(1 << NUMBERS[name] for name in set(names) if name in NUMBERS)


def capget() -> tuple[int, int, int]:
    """The calling thread's (effective, permitted, inheritable) sets as bit masks; see capget(2)."""
    data = (_Data * 2)()
    _capget(ctypes.byref(_Header(_VERSION_3, 0)), ctypes.byref(data))
    low, high = data
    return (
        low.effective | high.effective << 32,
        low.permitted | high.permitted << 32,
        low.inheritable | high.inheritable << 32,
    )


def capset(*, effective: int, permitted: int, inheritable: int) -> None:
    """Set the calling thread's capability sets from bit masks; see capset(2)."""
    data = (_Data * 2)()
    for index in range(2):
        shift = 32 * index
        data[index].effective = effective >> shift & 0xFFFFFFFF
        data[index].permitted = permitted >> shift & 0xFFFFFFFF
        data[index].inheritable = inheritable >> shift & 0xFFFFFFFF
    _capset(ctypes.byref(_Header(_VERSION_3, 0)), ctypes.byref(data))


def set_ambient(wanted: int) -> None:
    """Make the ambient set exactly ``wanted``; each must be permitted and inheritable."""
    prctl.cap_ambient_clear()
    for number in range(len(NAMES)):
        if wanted >> number & 1:
            prctl.cap_ambient_raise(number)
