"""Processes by file descriptor. Sources: pidfd_open(2), pidfd_send_signal(2), waitid(2).

Without ctypes, which some verbs of the command line can do without.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # as in ``signals``
import os

SIGKILL = 9
_CORE_DUMPED = 0x80


def pidfd_open(pid: int) -> int:
    """A close-on-exec fd that stands for the process; see pidfd_open(2)."""
    return os.pidfd_open(pid)


def pidfd_send_signal(pidfd: int, number: int) -> bool:
    """Signal the process of ``pidfd``; see pidfd_send_signal(2).

    Returns:
        False when the process had ended already.
    """
    try:
        _signal.pidfd_send_signal(pidfd, number)
    except ProcessLookupError:
        return False
    return True


def wait_status(pidfd: int, *, block: bool = True) -> int | None:
    """Reap the child that a pidfd stands for, and no other that has come to its pid; see waitid(2), Linux 5.4.

    Returns:
        Its wait status as ``os.waitpid`` gives it, or None when it still runs and ``block`` is false.

    Raises:
        ChildProcessError: it is no child of this process, or has been reaped already.
    """
    found = os.waitid(os.P_PIDFD, pidfd, os.WEXITED | (0 if block else os.WNOHANG))
    if found is None:
        return None
    if found.si_code == os.CLD_EXITED:
        return found.si_status << 8
    return found.si_status | (_CORE_DUMPED if found.si_code == os.CLD_DUMPED else 0)
