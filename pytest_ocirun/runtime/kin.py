"""Killing everything in a container but its init, where there is no cgroup to do it by.

A process belongs to the container if its pid namespace is the init's. New ones may be forked while we look, so it
goes round until a round finds none; each is killed by pidfd, opened before the check. Source: pid_namespaces(7).
"""

from __future__ import annotations

import os

from pytest_ocirun.linux import sched

_ROUNDS = 1000


def kill_kin(init: int) -> None:
    """SIGKILL every process of the pid namespace of ``init`` but ``init`` itself."""
    try:
        namespace = os.readlink(f"/proc/{init}/ns/pid")
    except OSError:
        return
    for _round in range(_ROUNDS):
        pids = [int(name) for name in os.listdir("/proc") if name.isdigit() and int(name) != init]
        if not sum(_kill(pid, namespace) for pid in pids):
            return


def _kill(pid: int, namespace: str) -> bool:
    """Kill ``pid`` if it is of the namespace and alive; whether there was anything to kill."""
    try:
        pidfd = sched.pidfd_open(pid)
    except OSError:
        return False
    try:
        if os.readlink(f"/proc/{pid}/ns/pid") != namespace:
            return False
        return sched.pidfd_send_signal(pidfd, sched.SIGKILL)
    except OSError:
        return False
    finally:
        os.close(pidfd)
