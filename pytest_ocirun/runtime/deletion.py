"""Deleting a container: its end, its cgroups, its state, its poststop hooks. Source: runtime-spec runtime.md "Delete".

Must not know: how containers are made, or zygotes, which remove what they made by themselves (``remains``).
"""

from __future__ import annotations

import os
import time

from pytest_ocirun.errors import ContainerExists, ContainerNotFound, OcirunError, WrongStatus
from pytest_ocirun.runtime import init, remains, state

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from pytest_ocirun.runtime.cgroups import Cgroup, Manager
    from pytest_ocirun.runtime.container import Runtime

_SECONDS = 5.0
_PAUSE = 0.01


def delete(root: str, container_id: str, *, force: bool, known: Cgroup | None, manager: Callable[[], Manager]) -> Any:
    """Delete a container; its hooks are the caller's to run.

    Args:
        root: the state root.
        container_id: the container.
        force: also a running one.
        known: its cgroup, if the caller has it.
        manager: gives who makes cgroups.

    Returns:
        The state document that it had.

    Raises:
        ContainerNotFound: there is none.
        WrongStatus: it runs and ``force`` is false; nothing was done.
    """
    with state.open_existing(root, container_id) as directory:
        document = directory.read()
        status = directory.status(document)
        if status in (state.RUNNING, state.PAUSED) and not force:
            raise WrongStatus(
                f"delete container {container_id}: it is {status}",
                hint=f"Stop it first, or: ocirun delete --force {container_id}",
            )
        if status == state.PAUSED:
            _kill_paused(document)
        if status in state.ALIVE:
            init.end((document["pid"], document["start_time"]))
        shares_pids = remains.shares_pids(document)
        if known is not None:
            remains.remove_cgroup(known, shares_pids=shares_pids)
        elif "cgroups" not in document:  # its maker died before it could say which
            _remove_unknown(manager(), container_id, document)
        cgroups = None if known is not None else document.get("cgroups")
        remains.remove({"cgroups": cgroups, "shares_pids": shares_pids, "state": directory.path})
    return document


def _remove_unknown(manager: Manager, container_id: str, document: dict[str, Any]) -> None:
    """Remove the cgroup that a maker may have made before it was killed, or may not.

    Its init ends by itself when it sees that; until then the cgroup is in use.
    """
    path = document.get("config", {}).get("linux", {}).get("cgroupsPath")
    cgroup = _again(lambda: manager.create(path, container_id, None, allow_none=True, everywhere=True))
    cgroup.remove()
    # One of the config's path was not made by us just now, so it stays; empty, it can only be the killed maker's.
    for directory in {os.path.dirname(file) for file in cgroup.join_files()} if path else ():
        try:
            os.rmdir(directory)
        except OSError:
            continue


def _again(make: Callable[[], Cgroup]) -> Cgroup:
    deadline = time.monotonic() + _SECONDS
    while True:
        try:
            return make()
        except ContainerExists:
            if time.monotonic() > deadline:
                raise
            time.sleep(_PAUSE)


def _kill_paused(document: dict[str, Any]) -> None:
    from pytest_ocirun.linux import sched
    from pytest_ocirun.runtime import pausing

    init.send_signal((document["pid"], document["start_time"]), sched.SIGKILL)
    pausing.let_die(document["cgroups"])


def destroy(runtime: Runtime, container_id: str, error: OcirunError) -> None:
    """Delete a container because of an error; what cannot be deleted becomes a note of that."""
    try:
        runtime.delete(container_id, force=True)
    except ContainerNotFound:
        pass  # somebody else was quicker
    except OcirunError as left:
        error.add_note(f"deleting the container failed too: {left}")
