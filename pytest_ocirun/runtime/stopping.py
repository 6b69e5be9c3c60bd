"""Ending a container with manners: a signal, time to act on it, SIGKILL.

Responsible for waiting by pidfd, with no lock held: others may kill or delete the container meanwhile. Must not know
who asks.
"""

from __future__ import annotations

import os

from pytest_ocirun.errors import Unsupported, WrongStatus
from pytest_ocirun.linux import fds, pidfd
from pytest_ocirun.runtime import init, pausing, remains, state
from pytest_ocirun.runtime.cgroups import Cgroup

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def stop(root: str, container_id: str, number: int, grace: float) -> None:
    """Stop a container; one that is stopped already is fine. Returns when its init has ended.

    One that was never started is killed at once, since its init does not listen yet; a paused one goes on, so that
    it can act on the signal.

    Args:
        root: the state root.
        container_id: the container.
        number: the signal that asks it to end.
        grace: seconds until SIGKILL.

    Raises:
        ContainerNotFound: there is no such container.
        WrongStatus: it is still being created.
    """
    with state.open_existing(root, container_id) as directory:
        document = directory.read()
        status = directory.status(document)
        if status == state.CREATING:
            raise WrongStatus(f"stop container {container_id}: it is still being created")
        fd = init.open_pidfd((document["pid"], document["start_time"])) if status != state.STOPPED else None
        if fd is not None:
            pidfd.pidfd_send_signal(fd, pidfd.SIGKILL if status == state.CREATED else number)
        if status == state.PAUSED:
            Cgroup.from_paths(document["cgroups"]).thaw()
    if fd is not None:
        try:
            _await(fd, document["cgroups"], grace)
        finally:
            os.close(fd)
    end_rest(document)


def _await(fd: int, paths: dict[str, Any], grace: float) -> None:
    if fds.readable(fd, grace):
        return
    pidfd.pidfd_send_signal(fd, pidfd.SIGKILL)
    pausing.let_die(paths)  # somebody may have paused it meanwhile
    fds.readable(fd, None)


def end_rest(document: dict[str, Any]) -> None:
    """End what the end of the init did not, since the container has no pid namespace of its own."""
    if remains.shares_pids(document):
        try:
            Cgroup.from_paths(document["cgroups"]).kill()
        except Unsupported:
            pass  # there is none, or it was there before the container, and what else lives in it is not ours
