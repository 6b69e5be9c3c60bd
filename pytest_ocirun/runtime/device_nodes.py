"""Device nodes for a container with a user namespace, where mknod(2) is EPERM: made by the spawner, bound by the child.

With root outside, the node is made outside: of any number, with the mode and the owner that the config asks for. A
spawner without that right binds the host's node of the same path, if it is the same device; its mode and owner are
the host's then, since nobody but the host's root could change them.

A mount whose root has been unlinked cannot be moved into place (move_mount(2) is ENOENT), so each node has a folder in
the spawner's working directory, which the container's root owns: the child unlinks the node once it is bound.
"""

from __future__ import annotations

import errno
import os
import stat

from pytest_ocirun.linux import mount
from pytest_ocirun.runtime.idmap import translate
from pytest_ocirun.runtime.rootfs import place
from pytest_ocirun.runtime.steps import Context, operation

_FOLDERS = "nodes"


@operation("prepare the device {1} ({2} {3}:{4})")
def device_node(
    context: Context, slot: str, path: str, kind: str, major: int, minor: int, mode: int, owner: list[int] | None
) -> None:
    """Leave a detached mount of one device node in a slot.

    Args:
        context: the replay's.
        slot: where it goes.
        path: inside the container, and on the host if the host's is bound.
        kind: ``c`` or ``b``.
        major: the device's number.
        minor: the device's number.
        mode: permission bits.
        owner: [uid, gid] on the host, or None if they are not known here.
    """
    wanted = (stat.S_IFCHR if kind == "c" else stat.S_IFBLK, os.makedev(major, minor))
    if owner is None or not _make(context, slot, wanted, mode, owner):
        context.mounts[slot] = fd = mount.open_tree(mount.AT_FDCWD, path)
        found = os.fstat(fd)
        if (stat.S_IFMT(found.st_mode), found.st_rdev) != wanted:
            why = f"the host's is not the device {kind} {major}:{minor}, and without root none can be made"
            raise OSError(errno.ENODEV, why, path)


@operation("put the device {1} into its place")
def attach_device(context: Context, slot: str, path: str) -> None:
    """Move the node's mount to ``path`` inside the root, and unlink the node that the spawner made for it."""
    fd = context.mounts.pop(slot)
    place(context.root, fd, path, directory=False)
    os.close(fd)
    if slot in context.nodes:
        os.unlink(context.nodes[slot])


def _make(context: Context, slot: str, wanted: tuple[int, int], mode: int, owner: list[int]) -> bool:
    """Make the node in a folder of its own; False if that is not allowed."""
    folder = _new_folder()
    node = f"{folder}/node"
    try:
        os.mknod(node, wanted[0] | mode, wanted[1])
    except PermissionError:
        os.rmdir(folder)
        return False
    ids = (translate("uid", owner[0]), translate("gid", owner[1]))
    os.chown(folder, *ids)
    os.chown(node, *ids)
    os.chmod(node, mode)
    context.mounts[slot] = fd = mount.open_tree(mount.AT_FDCWD, node)
    context.nodes[slot] = node
    mount.mount_setattr(fd, clear=mount.MOUNT_ATTR_NODEV)
    return True


def _new_folder() -> str:
    """An empty folder below the working directory; those whose node has been unlinked go."""
    try:
        os.mkdir(_FOLDERS, 0o711)
    except FileExistsError:
        for name in os.listdir(_FOLDERS):
            try:
                os.rmdir(f"{_FOLDERS}/{name}")
            except OSError:
                pass
    number = 0
    while True:
        try:
            os.mkdir(f"{_FOLDERS}/{number}")
        except FileExistsError:
            number += 1
        else:
            return f"{_FOLDERS}/{number}"
