"""Prepare steps: what the spawner does before the clone, with rights that the child will not have.

The spawner sits in a private mount namespace with a small tmpfs of its own as working directory (``runtime.stage``).
It makes detached mounts and leaves them in ``context.mounts``; the child only moves them into place.

Why attach and detach: before Linux 6.15 overlayfs refuses layers from mounts that are attached nowhere, so the upper
tmpfs and an idmapped lower layer are attached below the working directory while the overlay is made. The overlay keeps
private copies of both; the tmpfs goes at once, idmapped layers stay for the next container of the same image.
"""

from __future__ import annotations

import errno
import os

from pytest_ocirun.linux import fds, mount, proc, sched
from pytest_ocirun.linux.seccomp import Filter
from pytest_ocirun.runtime.idmap import own_map, translate, write_maps
from pytest_ocirun.runtime.steps import Context, operation

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

UPPER = "upper"

_idmapped: dict[str, str] = {}
_user_namespaces: dict[str, int] = {}
_filters: dict[tuple[bytes, int], Filter] = {}


@operation("open {1} as {0}")
def open_path(context: Context, slot: str, path: str, flags: int) -> None:
    """Open ``path`` of the spawner's mount namespace into a slot."""
    context.fds[slot] = os.open(path, flags | os.O_CLOEXEC)


@operation("lay out the seccomp filter {0}")
def prepare_filter(context: Context, slot: str, flags: int) -> None:
    """Lay the compiled program out before the clone; a spawner makes many processes with the same one."""
    program = fds.read_all(context.fds[slot])
    key = (program, flags)
    if key not in _filters:
        _filters[key] = Filter(program, flags)
    context.filter = _filters[key]


@operation("open the container's init, pid {1}, as {0}")
def open_init(context: Context, slot: str, pid: int, start_time: int) -> None:
    """Open a pidfd of the process with that pid and start time, so that no other process of that pid is meant."""
    context.fds[slot] = sched.pidfd_open(pid)
    if not proc.is_alive(pid, start_time):
        raise ProcessLookupError(errno.ESRCH, "the container is not running any more")


@operation("read this process's own id maps")
def read_own_maps(context: Context) -> None:
    """Remember them for a child that will be in another user namespace."""
    del context
    for kind in ("uid", "gid"):
        own_map(kind)


@operation("make a tmpfs of {0} bytes and {1} inodes for everything the container writes to its root")
def upper_tmpfs(context: Context, size: int, inodes: int, uid: int, gid: int) -> None:
    """Mount the bounded tmpfs that holds the upper layers at the working directory's ``upper``."""
    del context
    options = {"size": str(size), "nr_inodes": str(inodes), "mode": "0755", "source": "ocirun"}
    options |= {"uid": str(translate("uid", uid)), "gid": str(translate("gid", gid))}
    fd = mount.new_mount("tmpfs", {**options})
    target = os.open(UPPER, os.O_PATH | os.O_CLOEXEC)
    try:
        mount.move_mount(fd, target)
    finally:
        os.close(target)
        os.close(fd)


@operation("let go of the upper tmpfs; the overlays keep it")
def drop_upper(context: Context) -> None:
    """Detach the upper tmpfs from the spawner's mount namespace."""
    del context
    mount.umount2(UPPER, mount.MNT_DETACH)


@operation("lay a writable overlay over {1} (layer {2})")
def overlay(
    context: Context,
    slot: str,
    lower: str,
    layer: int,
    uid: int,
    gid: int,
    attributes: int,
    idmaps: list[list[list[int]]] | None,
) -> None:
    """Make a detached overlay: ``lower`` below, a fresh directory of the upper tmpfs above.

    Args:
        context: the replay's.
        slot: where the detached mount goes.
        lower: a directory of the spawner's mount namespace.
        layer: a number that keeps the upper directories of one container apart.
        uid: owner of the upper directory, which becomes the mount's root: the container's root.
        gid: its group.
        attributes: MOUNT_ATTR_* of the mount.
        idmaps: [uid maps, gid maps] when the lower layer's owners are real ids to be mapped, else None.
    """
    upper, work = f"{UPPER}/{layer}", f"{UPPER}/{layer}.work"
    # By fd: in a path ':' separates layers, and the container could read it in its mountinfo.
    fd = os.open(lower, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for path in (upper, work):
            os.mkdir(path)
            os.chown(path, translate("uid", uid), translate("gid", gid))
        os.chmod(upper, os.fstat(fd).st_mode & 0o7777)
        options = {"source": "ocirun", "lowerdir": idmapped(lower, idmaps) if idmaps else f"/proc/self/fd/{fd}"}
        options |= {"upperdir": upper, "workdir": work}
        if not proc.in_initial_user_namespace():
            options["userxattr"] = ""
        context.mounts[slot] = mount.new_mount(
            "overlay", {key: value or None for key, value in options.items()}, attributes
        )
    finally:
        os.close(fd)


@operation("make an empty writable directory (layer {1})")
def scratch(context: Context, slot: str, layer: int, uid: int, gid: int, mode: int, attributes: int) -> None:
    """Make a detached mount of a fresh directory of the upper tmpfs: writable, and bounded with everything else."""
    path = f"{UPPER}/{layer}"
    os.mkdir(path)
    os.chown(path, translate("uid", uid), translate("gid", gid))
    os.chmod(path, mode)
    fd = mount.open_tree(mount.AT_FDCWD, path)
    context.mounts[slot] = fd
    if attributes:
        mount.mount_setattr(fd, set=attributes)


@operation("take a detached copy of the mount at {1}")
def clone_tree(context: Context, slot: str, path: str, recursive: bool, *changes: Any) -> None:  # noqa: FBT001
    """Copy the mount at ``path`` of the spawner's mount namespace into a slot, and make ``change_copy``'s changes."""
    context.mounts[slot] = mount.open_tree(mount.AT_FDCWD, path, recursive=recursive)
    change_copy(context, slot, path, *changes)


def change_copy(
    context: Context,
    slot: str,
    path: str,
    attributes: int,
    clear: int,
    tree_attributes: int,
    tree_clear: int,
    mapped: list[Any] | None,
) -> None:
    """Change a detached mount before anybody can see it.

    Args:
        context: the replay's.
        slot: where it is.
        path: what it is a copy of.
        attributes: MOUNT_ATTR_* to set.
        clear: MOUNT_ATTR_* to clear before.
        tree_attributes: MOUNT_ATTR_* to set on every mount of the copy, after that.
        tree_clear: MOUNT_ATTR_* to clear on every one before.
        mapped: [maps, whether of every mount] when the owners are mapped: [uid rows, gid rows], or the slot of a user
            namespace that has them.
    """
    fd = context.mounts[slot]
    if attributes or clear:
        mount.mount_setattr(fd, set=attributes, clear=clear)
    if tree_attributes or tree_clear:
        mount.mount_setattr(fd, set=tree_attributes, clear=tree_clear, recursive=True)
    if mapped:
        maps, every = mapped
        userns = context.fds[maps] if isinstance(maps, str) else user_namespace(maps)
        try:
            mount.mount_setattr(fd, userns=userns, recursive=every)
        except OSError as error:
            why = (
                f"map its owners: {error.strerror}; not every file system can be idmapped, and only with rights over it"
            )
            raise OSError(error.errno, why, path) from error


def idmapped(path: str, idmaps: list[list[list[int]]]) -> str:
    """An idmapped, read-only copy of the mount at ``path``, attached below the working directory and kept."""
    found = os.stat(path)
    key = f"{found.st_dev}:{found.st_ino}:{idmaps}"
    if key not in _idmapped:
        fd = mount.open_tree(mount.AT_FDCWD, path)
        try:
            mount.mount_setattr(fd, set=mount.MOUNT_ATTR_RDONLY, userns=user_namespace(idmaps))
            name = f"lower/{len(_idmapped)}"
            os.mkdir(name)
            target = os.open(name, os.O_PATH | os.O_CLOEXEC)
            try:
                mount.move_mount(fd, target)
            finally:
                os.close(target)
        finally:
            os.close(fd)
        _idmapped[key] = name
    return _idmapped[key]


def user_namespace(idmaps: list[list[list[int]]]) -> int:
    """A fd of a user namespace with these [uid maps, gid maps], made once and kept."""
    key = str(idmaps)
    if key not in _user_namespaces:
        ready_read, ready_write = os.pipe2(os.O_CLOEXEC)
        pid, pidfd = sched.clone3(sched.CLONE_NEWUSER)
        if pid == 0:
            os.close(ready_write)
            os.read(ready_read, 1)
            os._exit(0)
        try:
            write_maps(pid, idmaps)
            _user_namespaces[key] = os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
        finally:
            os.close(ready_read)
            os.close(ready_write)
            sched.wait_status(pidfd)
            os.close(pidfd)
    return _user_namespaces[key]
