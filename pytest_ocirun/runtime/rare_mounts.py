"""Mount steps that few containers need: mounts that stay in the host's peer groups, changes of a mount that is there.

Both halves of a replay have one here: ``clone_peers`` is the spawner's, ``change_mount`` the child's.
"""

from __future__ import annotations

import os

from pytest_ocirun.linux import mount, sched
from pytest_ocirun.runtime import stage
from pytest_ocirun.runtime.inside import open_inside
from pytest_ocirun.runtime.prepare import change_copy
from pytest_ocirun.runtime.rootfs import set_propagation
from pytest_ocirun.runtime.steps import Context, operation

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


@operation("take a detached copy of the host's own mount at {1}")
def clone_peers(context: Context, slot: str, path: str, recursive: bool, *changes: Any) -> None:  # noqa: FBT001
    """As ``clone_tree``, but the copy propagates to the host if the host's mount is shared.

    The spawner's mount namespace is a slave of the host's, so a copy of what it sees would only receive. It goes back
    to the host's for the time of one open_tree(2).
    """
    host = stage.host_mounts()
    own = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    here = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        sched.setns(host, sched.CLONE_NEWNS)
        try:
            context.mounts[slot] = mount.open_tree(mount.AT_FDCWD, path, recursive=recursive)
        finally:
            sched.setns(own, sched.CLONE_NEWNS)
            os.fchdir(here)
    finally:
        for fd in (host, own, here):
            os.close(fd)
    change_copy(context, slot, path, *changes)


@operation("change the mount at {0}")
def change_mount(
    context: Context,
    path: str,
    attributes: int,
    clear: int,
    tree_attributes: int,
    tree_clear: int,
    propagation: list[int],
) -> None:
    """Change the attributes of what an earlier mount of the config, or the root itself, brought to ``path``."""
    fd = open_inside(context.root, path)
    try:
        if attributes or clear:
            mount.mount_setattr(fd, set=attributes, clear=clear)
        if tree_attributes or tree_clear:
            mount.mount_setattr(fd, set=tree_attributes, clear=tree_clear, recursive=True)
        set_propagation(fd, propagation)
    finally:
        os.close(fd)
