"""Mount steps that few containers need: those that go to the host's mounts, and changes of a mount that is there.

A container without a mount namespace has its root attached to a directory below its state directory, where nothing else
ever is, and everything else in that root; it is confined to it as chroot(2) does. Whoever removes the state directory
takes the mounts away with it (``remains``).
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


@operation("open the host's mounts, and make {0} for the root")
def open_host_mounts(context: Context, place: str) -> None:
    """Do what the spawner must before the clone of a container without a mount namespace."""
    context.fds["host-mounts"] = stage.host_mounts()
    os.mkdir(place, 0o700)


@operation("go to the host's mounts")
def enter_host_mounts(context: Context) -> None:
    """Leave the spawner's mount namespace; the directories of the process are the host's root then."""
    sched.setns(context.fds["host-mounts"], sched.CLONE_NEWNS)


@operation("change the root directory to the container's")
def change_root(context: Context) -> None:
    """Take the attached root as the process's own; the mount namespace, and its root, stay the host's."""
    os.fchdir(context.root)
    os.chroot(".")
    os.close(context.root)


@operation("change the root directory to the container's init's")
def enter_root(context: Context, slot: str) -> None:
    """Do the same for a process that joins such a container."""
    os.fchdir(context.fds[slot])
    os.chroot(".")
