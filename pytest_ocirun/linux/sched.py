"""Processes and namespaces: clone3, unshare, setns, pidfds. Sources: clone(2), setns(2), pidfd_getfd(2).

clone3 is called with no stack of its own, so it returns twice, like fork. glibc and CPython are not told: the
caller must be single-threaded, and the child must go on to execve or ``os._exit``.
"""

from __future__ import annotations

import ctypes

from pytest_ocirun.linux import _libc
from pytest_ocirun.linux.pidfd import SIGKILL as SIGKILL  # noqa: PLC0414 - passed on
from pytest_ocirun.linux.pidfd import pidfd_open as pidfd_open  # noqa: PLC0414 - passed on
from pytest_ocirun.linux.pidfd import pidfd_send_signal as pidfd_send_signal  # noqa: PLC0414 - passed on
from pytest_ocirun.linux.pidfd import wait_status as wait_status  # noqa: PLC0414 - passed on

CLONE_NEWTIME = 0x00000080
CLONE_PIDFD = 0x00001000
CLONE_PARENT = 0x00008000
CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000
CLONE_INTO_CGROUP = 0x200000000

SIGCHLD = 17

# The OCI names, in the order in which they are joined: user first, since it gives the right to the others.
NAMESPACES = {
    "user": CLONE_NEWUSER,
    "mount": CLONE_NEWNS,
    "pid": CLONE_NEWPID,
    "network": CLONE_NEWNET,
    "ipc": CLONE_NEWIPC,
    "uts": CLONE_NEWUTS,
    "cgroup": CLONE_NEWCGROUP,
    "time": CLONE_NEWTIME,
}
# The same as file names below /proc/PID/ns.
NS_FILES = {
    "user": "user",
    "mount": "mnt",
    "pid": "pid",
    "network": "net",
    "ipc": "ipc",
    "uts": "uts",
    "cgroup": "cgroup",
    "time": "time",
}


class _CloneArgs(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_uint64)
        for name in (
            "flags",
            "pidfd",
            "child_tid",
            "parent_tid",
            "exit_signal",
            "stack",
            "stack_size",
            "tls",
            "set_tid",
            "set_tid_size",
            "cgroup",
        )
    ]


_clone3 = _libc.SystemCall("clone3", ctypes.POINTER(_CloneArgs), ctypes.c_size_t)
_unshare = _libc.function("unshare", ctypes.c_int)
_setns = _libc.function("setns", ctypes.c_int, ctypes.c_int)
_pidfd_getfd = _libc.SystemCall("pidfd_getfd", ctypes.c_int, ctypes.c_int, ctypes.c_uint)


def clone3(flags: int, *, cgroup: int | None = None, exit_signal: int = SIGCHLD) -> tuple[int, int]:
    """Clone the calling process; see clone(2).

    Args:
        flags: CLONE_NEW* and CLONE_PARENT; CLONE_PIDFD is added.
        cgroup: a fd of the cgroup v2 directory to be born in (CLONE_INTO_CGROUP, Linux 5.7).
        exit_signal: sent to the parent at the child's end; must be 0 with CLONE_PARENT.

    Returns:
        (pid, pidfd) in the parent, (0, -1) in the child. The pidfd is close-on-exec.
    """
    pidfd = ctypes.c_int(-1)
    args = _CloneArgs(flags=flags | CLONE_PIDFD, pidfd=ctypes.addressof(pidfd), exit_signal=exit_signal)
    if cgroup is not None:
        args.flags |= CLONE_INTO_CGROUP
        args.cgroup = cgroup
    pid = _clone3(ctypes.byref(args), ctypes.sizeof(args))
    return pid, pidfd.value if pid else -1


def unshare(flags: int) -> None:
    """Leave the namespaces of ``flags`` for new ones; see unshare(2)."""
    _libc.check(_unshare(flags), "unshare")


def setns(fd: int, flags: int = 0) -> None:
    """Join a namespace file, or with a pidfd all namespaces of ``flags`` (Linux 5.8); see setns(2)."""
    _libc.check(_setns(fd, flags), "setns")


def pidfd_getfd(pidfd: int, number: int) -> int:
    """A close-on-exec copy of the fd ``number`` of another process that one may trace; see pidfd_getfd(2)."""
    return _pidfd_getfd(pidfd, number, 0)
