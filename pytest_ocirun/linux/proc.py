"""What /proc says of a process and its namespaces. Sources: proc(5), ioctl_ns(2)."""

from __future__ import annotations

import errno
import fcntl
import os

_FLAGS = 6  # field 9, counted after the closing parenthesis of comm
_STARTTIME = 19  # field 22
_PF_EXITING = 0x4
_NS_GET_NSTYPE = 0xB703


def stat(pid: int) -> tuple[str, int] | None:
    """The state letter of a process and its start time in clock ticks since boot; None when there is none.

    Pid and start time together name a process for good: pids are used again, start times are not. A process
    on its way out counts as dead (X): the init of a pid namespace sleeps there until every zombie of the namespace
    was reaped by its parent, which may take the host's init seconds.
    """
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    state = "X" if int(fields[_FLAGS]) & _PF_EXITING else fields[0].decode()
    return state, int(fields[_STARTTIME])


def own() -> list[int]:
    """Our own pid and start time."""
    found = stat(os.getpid())
    return [os.getpid(), found[1] if found else 0]


def is_alive(pid: int, start_time: int) -> bool:
    """Whether the process of that pid and start time runs; a zombie does not."""
    found = stat(pid)
    return found is not None and found[1] == start_time and found[0] not in "ZX"


def namespace_type(path: str) -> int:
    """The CLONE_NEW* flag of the namespace that a file stands for; 0 when it stands for none."""
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        return fcntl.ioctl(fd, _NS_GET_NSTYPE)
    except OSError as error:
        if error.errno in (errno.ENOTTY, errno.EINVAL):
            return 0
        raise
    finally:
        os.close(fd)


def in_initial_user_namespace() -> bool:
    """Whether this process is in the initial user namespace, as far as its map tells: every id stands for itself."""
    with open("/proc/self/uid_map", "rb") as file:
        return file.read().split() == [b"0", b"0", b"4294967295"]
