"""Joining one more cgroup v1 hierarchy with a container that runs already.

Responsible for: the directory, and moving all processes, so that a limit can be set whose controller the container was
not made with. Must not know: limits. Imported only when a running container gets such a limit.
"""

from __future__ import annotations

import errno

from pytest_ocirun.errors import KernelRefused, Unsupported

from . import knobs, tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .setting import Setting

_UNIFIED = "unified"
_ROUNDS = 200


def join_late(dirs: dict[str, str], made: list[str], setting: Setting) -> str:
    """Make the container's cgroup in the hierarchy of a setting's controller and move it there.

    Args:
        dirs: controller to directory, of the container; the new one is added.
        made: the directories made for it; new ones are added.
        setting: what is to be set.

    Returns:
        The new directory.

    Raises:
        Unsupported: that hierarchy is not mounted.
        KernelRefused: it cannot be made or joined.
    """
    from .detect import layout

    found, name = layout(), setting.controller
    mounts = found.v1 if found.v2 is None else {**found.v1, _UNIFIED: found.v2}
    relative = next((path[len(mounts[key]) + 1 :] for key, path in dirs.items() if _below(path, mounts.get(key))), None)
    if name not in mounts or relative is None:
        raise Unsupported(
            f"cannot set {setting.limit} to {setting.asked}: no cgroup v1 hierarchy with the {name} controller is "
            "mounted",
            hint=f"mount it: `mount -t cgroup -o {name} cgroup /sys/fs/cgroup/{name}`",
        )
    new = tree.Made()
    try:
        tree.descend(new, mounts[name], relative, cpuset=name == "cpuset")
        directory = f"{mounts[name]}/{relative}"
        _move(list(dirs.values()), directory)
    except BaseException:
        new.unwind()
        raise
    dirs[name] = directory
    made.extend(new.paths)
    return directory


def _below(path: str, mount: str | None) -> bool:
    return mount is not None and path.startswith(f"{mount}/")


def _move(known: list[str], directory: str) -> None:
    """Move until none is left outside: those that are being moved may fork."""
    for _round in range(_ROUNDS):
        members = {pid for path in known for pid in tree.processes(path)}
        outside = members.difference(tree.processes(directory), [0])
        if not outside:
            return
        for pid in outside:
            try:
                knobs.put(f"{directory}/cgroup.procs", str(pid))
            except ProcessLookupError:
                continue
            except OSError as error:
                raise knobs.refused(f"cannot move process {pid} to {directory}", error) from error
    raise KernelRefused(f"cannot move all processes to {directory}: new ones keep appearing", errno=errno.EBUSY)
