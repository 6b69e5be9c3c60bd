"""A signal for everything that runs in a container. Must not know who asks.

A member of the container's cgroup is opened before the members are listed a second time, so that a pid which
was given to another process meanwhile is not meant. What forks while it is signalled may leave a child that
is not; SIGKILL uses the kernel's own means, which no fork escapes.
"""

from __future__ import annotations

import os

from pytest_ocirun.errors import Unsupported, WrongStatus
from pytest_ocirun.linux import sched
from pytest_ocirun.runtime import state
from pytest_ocirun.runtime.cgroups import Cgroup


def signal_all(root: str, container_id: str, number: int) -> None:
    """Send signal ``number`` to every process of a container, also to what its init left behind.

    Raises:
        ContainerNotFound: there is no such container.
        WrongStatus: it is still being created.
        Unsupported: it has no cgroup of its own to tell its processes by.
    """
    with state.open_existing(root, container_id) as directory:
        document = directory.read()
        if directory.status(document) == state.CREATING:
            raise WrongStatus(f"kill container {container_id}: it is still being created")
    paths = document["cgroups"]
    cgroup = Cgroup.from_paths(paths)
    if paths["dirs"] and not set(paths["dirs"].values()).issubset(paths["made"]):
        raise Unsupported(
            f"signal all processes of container {container_id}: its cgroup was there before it, and may hold others",
            hint="Signal its init alone: leave --all out.",
        )
    if number == sched.SIGKILL:
        cgroup.kill()
        return
    opened = {pid: pidfd for pid in cgroup.processes() if pid and (pidfd := _open(pid)) is not None}
    try:
        for pid in opened.keys() & set(cgroup.processes()):
            sched.pidfd_send_signal(opened[pid], number)
    finally:
        for pidfd in opened.values():
            os.close(pidfd)


def _open(pid: int) -> int | None:
    try:
        return sched.pidfd_open(pid)
    except ProcessLookupError:
        return None
