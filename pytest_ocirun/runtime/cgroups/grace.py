"""Beginning the kernel's wait before the first move between cgroups of version 1 ahead of that move.

The kernel guards such moves by a percpu rwsem: whoever moves a process after a while without moves waits for a grace
period of RCU, 4 to 14 ms, and those that come soon after wait no more. A child of ours moves itself to where it is,
again and again, while we find out which container is wanted; so the kernel's wait is over when our own move comes.
Version 2 needs none of this: a process is born in its cgroup. Must not know of containers.

Source: the kernel's kernel/cgroup/cgroup.c (cgroup_attach_lock) and kernel/rcu/sync.c.
"""

from __future__ import annotations

import os
import time

from pytest_ocirun.linux import pidfd

_MOUNT = "/sys/fs/cgroup"
_CONTROLLER = "pids"
_PAUSE = 0.002
_MOST = 30


class Helper:
    """The child that does it, begun where there is something to gain. It ends by itself after a moment."""

    __slots__ = ("_pid", "_pidfd")

    def __init__(self) -> None:
        own = _own_procs()
        self._pidfd = -1
        self._pid = 0 if own is None else os.fork()
        if own is not None and self._pid == 0:
            _stay(own)
        if self._pid:
            try:
                self._pidfd = pidfd.pidfd_open(self._pid)
            except ProcessLookupError:
                pass  # it has ended, and our caller had us ignore SIGCHLD

    def stop(self) -> None:
        """Our own move is made; ``end`` has nothing to wait for a moment later."""
        if self._pidfd >= 0:
            pidfd.pidfd_send_signal(self._pidfd, pidfd.SIGKILL)

    def end(self) -> None:
        """Stop, and leave no zombie; twice is fine."""
        self.stop()
        if self._pidfd >= 0:
            try:
                pidfd.wait_status(self._pidfd)
            except ChildProcessError:
                pass  # SIGCHLD is ignored: there is none to leave
            os.close(self._pidfd)
            self._pidfd = -1


def _own_procs() -> str | None:
    """The cgroup.procs of the calling process in a v1 hierarchy, where one expects it to be mounted."""
    with open("/proc/self/cgroup", encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            number, controllers, path = line.rstrip("\n").split(":", 2)
            if number != "0" and _CONTROLLER in controllers.split(","):
                found = f"{_MOUNT}/{controllers}{path.rstrip('/')}/cgroup.procs"
                return found if os.access(found, os.W_OK) else None
    return None


def _stay(path: str) -> None:
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        for _ in range(_MOST):
            os.write(fd, b"0")
            time.sleep(_PAUSE)
    finally:
        os._exit(0)
