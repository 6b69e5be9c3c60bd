"""Which processes run in a container, as pids of the host.

Responsible for asking its cgroup; without one, its pid namespace. Must not know what is done with the answer. Source:
pid_namespaces(7).
"""

from __future__ import annotations

import os

from pytest_ocirun.errors import Unsupported, WrongStatus
from pytest_ocirun.runtime import state

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def pids(root: str, container_id: str) -> list[int]:
    """The processes in a container, sorted; also those that its init left behind when it ended.

    A cgroup that was there before the container may hold others, which are listed too.

    Raises:
        ContainerNotFound: there is no such container.
        WrongStatus: it is still being created.
        Unsupported: it has neither a cgroup nor a pid namespace to tell its processes by.
    """
    with state.look(root, container_id) as directory:
        document = directory.read()
        status = directory.status(document)
    if status == state.CREATING:
        raise WrongStatus(f"list the processes of container {container_id}: it is still being created")
    if document["cgroups"]["dirs"]:
        from pytest_ocirun.runtime.cgroups import Cgroup

        return [pid for pid in Cgroup.from_paths(document["cgroups"]).processes() if pid]
    return _of_namespace(container_id, document) if status in state.ALIVE else []


def _of_namespace(container_id: str, document: dict[str, Any]) -> list[int]:
    """The processes of the init's pid namespace and of those below it."""
    namespaces = document["config"]["linux"]["namespaces"]
    if not any(each["type"] == "pid" and not each.get("path") for each in namespaces):
        raise Unsupported(
            f"list the processes of container {container_id}: it has no cgroup, and no pid namespace of its own",
            hint="Make it where cgroups can be had, or with a new pid namespace.",
        )
    init = document["pid"]
    inside = _level(init)
    return [init, *sorted(pid for pid in _all() if pid != init and _is_below(pid, init, inside))]


def _all() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def _is_below(pid: int, init: int, inside: int) -> bool:
    """Whether the process is in the namespace of ``init`` or one below: then so is its chain of parents, up to there.

    What joined the namespace has a parent outside, so the namespace itself is asked too.
    """
    try:
        if os.readlink(f"/proc/{pid}/ns/pid") == os.readlink(f"/proc/{init}/ns/pid"):
            return True
        while _level(pid) > inside:
            pid = _parent(pid)
            if os.readlink(f"/proc/{pid}/ns/pid") == os.readlink(f"/proc/{init}/ns/pid"):
                return True
    except OSError:
        pass
    return False


def _level(pid: int) -> int:
    """How deep in pid namespaces a process is: the count of its pids."""
    return len(_status(pid, "NSpid"))


def _parent(pid: int) -> int:
    return int(_status(pid, "PPid")[0])


def _status(pid: int, key: str) -> list[str]:
    with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as file:
        return next((line.split()[1:] for line in file if line.startswith(f"{key}:")), ["0"])
