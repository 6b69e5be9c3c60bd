"""Root file system steps: what the child does with mounts, from private propagation to pivot_root.

Order matters, and the plan keeps it: propagation is cut first, or pivot_root would be EINVAL and mounts would reach
the host; the root is attached before anything is mounted inside, since a detached tree cannot be mounted on before
Linux 6.15; masked paths come last, because the mounts of the config may lie under them; the old root is needed until
then, as the source of device nodes and of /dev/null.
"""

from __future__ import annotations

import errno
import os
import stat

from pytest_ocirun.linux import mount
from pytest_ocirun.linux.paths import PROC_SUPER_MAGIC, filesystem_type
from pytest_ocirun.runtime.inside import O_PATH, make_directory, make_file, make_symlink, open_inside
from pytest_ocirun.runtime.prepare import clone_tree
from pytest_ocirun.runtime.steps import Context, operation

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

ROOT = "root"
UPPER = "upper"
"""Directories below the spawner's working directory: the second is free again when the child replays."""

_OWN_DIRECTORIES = ("/proc", "/sys", "/dev")
_DEV_NULL = os.makedev(1, 3)


@operation("cut mount propagation (flags {0:#x})")
def propagation(context: Context, flags: int) -> None:
    """Set the propagation of every mount copied from the spawner."""
    del context
    mount.mount(None, "/", None, flags)


@operation("attach the root file system")
def attach_root(context: Context, slot: str, propagation: int, place: str = ROOT) -> None:
    """Move the prepared root mount to ``place``, by default the spawner's ``root``, or to what slot ``place`` holds."""
    opened = context.fds.pop("place", -1)
    target = os.open(place, O_PATH) if opened < 0 else opened
    mount.move_mount(context.mounts[slot], target)
    os.close(target)
    context.root = os.open(place, O_PATH | os.O_DIRECTORY) if opened < 0 else context.mounts.pop(slot)
    if propagation:
        set_propagation(context.root, [propagation])


@operation("mount {1} on {0}")
def mount_new(
    context: Context,
    path: str,
    fstype: str,
    source: str,
    options: dict[str, str | None],
    attributes: int,
    propagation: list[int],
    seal: bool,  # noqa: FBT001
) -> None:
    """Mount a file system of its own at ``path`` inside the root; with ``seal`` it becomes read-only in the end.

    A tmpfs without a mode has that of the directory that it covers, as with runc.
    """
    if fstype == "tmpfs" and "mode" not in options:
        options = {**options, **mode_at(context.root, path)}
    fd = new_file_system(fstype, source, options, attributes)
    place(context.root, fd, path, directory=True)
    finish(context, fd, propagation, seal=seal)


@operation("move the prepared mount {0} to {1}")
def attach(context: Context, slot: str, path: str, propagation: list[int]) -> None:
    """Move a mount that the spawner prepared to ``path`` inside the root."""
    fd = context.mounts.pop(slot)
    if path == "/proc" and filesystem_type(fd) != PROC_SUPER_MAGIC:
        raise OSError(errno.EPERM, "what is bound there is no proc, and the runtime trusts what is there", path)
    place(context.root, fd, path, directory=stat.S_ISDIR(os.fstat(fd).st_mode))
    finish(context, fd, propagation)


@operation("bind {1} to {0}")
def bind(context: Context, path: str, source: str, slot: str, propagation: list[int], *copy: Any) -> None:
    """Copy the mount at ``source``, as ``prepare.clone_tree`` does, and move it to ``path`` inside the root."""
    clone_tree(context, slot, source, *copy)
    attach(context, slot, path, propagation)


@operation("make the file systems read-only that were to be filled first")
def seal(context: Context) -> None:
    """Set what ``mount_new`` put off: mount points, devices and links have been made by now."""
    for fd in context.sealed:
        mount.mount_setattr(fd, set=mount.MOUNT_ATTR_RDONLY)
        os.close(fd)
    context.sealed = []


@operation("mount the cgroups on {0}")
def mount_cgroups(context: Context, path: str, hierarchies: list[list[str]], attributes: int) -> None:
    """Mount a tmpfs with what ``cgroup_view`` shows; a hierarchy that is bound is named by its slot."""
    fd = mount.new_mount("tmpfs", {"source": "cgroup", "mode": "0755"}, mount.MOUNT_ATTR_NOSUID)
    place(context.root, fd, path, directory=True)
    for name, how, what, *options in hierarchies:
        if how == "link":
            make_symlink(context.root, f"{path}/{name}", what)
            continue
        if how == "bind":
            hierarchy = context.mounts.pop(what)
        else:
            pairs = (option.partition("=") for option in options)
            named = {key: value if equals else None for key, equals, value in pairs}
            hierarchy = mount.new_mount(what, {"source": "cgroup", **named}, attributes)
        place(context.root, hierarchy, f"{path}/{name}", directory=True)
        os.close(hierarchy)
    mount.mount_setattr(fd, set=attributes)
    os.close(fd)


@operation("mask {0}")
def mask(context: Context, path: str) -> None:
    """Hide a directory behind an empty read-only tmpfs, a file behind the real /dev/null; nothing there is fine."""
    try:
        target = open_inside(context.root, path)
    except (FileNotFoundError, NotADirectoryError):
        return
    kind = "directory" if stat.S_ISDIR(os.fstat(target).st_mode) else "file"
    fd = mount.open_tree(context.masks[kind], "") if kind in context.masks else _new_mask(kind)
    mount.move_mount(fd, target)
    os.close(target)
    if context.masks.setdefault(kind, fd) != fd:
        os.close(fd)


@operation("make {0} read-only")
def read_only(context: Context, path: str) -> None:
    """Bind a path inside the root over itself, read-only; nothing there is fine."""
    try:
        target = open_inside(context.root, path)
    except (FileNotFoundError, NotADirectoryError):
        return
    fd = mount.open_tree(target, "", recursive=True)
    mount.mount_setattr(fd, set=mount.MOUNT_ATTR_RDONLY, recursive=True)
    mount.move_mount(fd, target)
    os.close(target)
    os.close(fd)


@operation("make the working directory {0}, if there is none")
def make_place(context: Context, path: str) -> None:
    """Make the directory that the process starts in; a root that cannot be written to is left to ``chdir`` to judge."""
    try:
        os.close(make_directory(context.root, path))
    except OSError as error:
        if error.errno not in (errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.ELOOP):
            raise


@operation("make the root file system read-only")
def root_read_only(context: Context) -> None:
    """Make the root mount itself read-only, not what is mounted in it."""
    mount.mount_setattr(context.root, set=mount.MOUNT_ATTR_RDONLY)


@operation("pivot into the root file system and let the old one go")
def pivot(context: Context) -> None:
    """Stack the old root on the new one, then detach it: pivot_root(2), "pivot_root(., .)"."""
    os.fchdir(context.root)
    mount.pivot_root(".", ".")
    mount.umount2(".", mount.MNT_DETACH)
    os.chdir("/")
    os.close(context.root)


def new_file_system(fstype: str, source: str, options: dict[str, str | None], attributes: int) -> int:
    """A fd of a mount that is nowhere in the root yet."""
    if mount.needs_mount_classic(options):
        return mount.mount_classic(source, UPPER, fstype, options, attributes)
    return mount.new_mount(fstype, {"source": source, **options}, attributes)


def place(root: int, fd: int, path: str, *, directory: bool) -> None:
    """Move the mount ``fd`` to ``path`` inside the root, made there as a directory or a file if nothing is there.

    The runtime's own directories must be real ones: behind a symlink the masks would miss what is mounted there. And
    no symlink elsewhere may lead into proc, where a mount could deceive whoever enters the container later.
    """
    own = any(path == name or path.startswith(f"{name}/") for name in _OWN_DIRECTORIES)
    target = make_directory(root, path, symlinks=not own) if directory else make_file(root, path, symlinks=not own)
    try:
        if not own and filesystem_type(target) == PROC_SUPER_MAGIC:
            raise OSError(errno.EPERM, "a symbolic link leads it into proc, where nothing must be covered", path)
        mount.move_mount(fd, target)
    finally:
        os.close(target)


def finish(context: Context, fd: int, propagation: list[int], *, seal: bool = False) -> None:
    """Give a mount that is in its place its propagation, and let go of it unless it is to be sealed."""
    if propagation:
        set_propagation(fd, propagation)
    if seal:
        context.sealed.append(fd)
    else:
        os.close(fd)


def set_propagation(fd: int, types: list[int]) -> None:
    """Set one type of propagation after another: slave and then shared is both."""
    for flags in types:
        mount.mount_setattr(fd, propagation=flags & ~mount.MS_REC, recursive=bool(flags & mount.MS_REC))


def _new_mask(kind: str) -> int:
    """A detached mount that hides what lies under it; read-only, for the null device is the host's: its mode is too."""
    if kind == "directory":
        options: dict[str, str | None] = {"source": "tmpfs", "nr_blocks": "1", "nr_inodes": "1", "mode": "0555"}
        return mount.new_mount("tmpfs", options, mount.MOUNT_ATTR_RDONLY)
    fd = mount.open_tree(mount.AT_FDCWD, "/dev/null")
    found = os.fstat(fd)
    if not stat.S_ISCHR(found.st_mode) or found.st_rdev != _DEV_NULL:
        raise OSError(errno.ENODEV, "the host's is not the null device", "/dev/null")
    mount.mount_setattr(fd, set=mount.MOUNT_ATTR_RDONLY)
    return fd


def mode_at(root: int, path: str) -> dict[str, str | None]:
    """The option of a tmpfs that gives it the mode of the directory at ``path``, if there is one."""
    try:
        found = open_inside(root, path)
    except FileNotFoundError:
        return {}
    try:
        return {"mode": f"{stat.S_IMODE(os.fstat(found).st_mode):o}"}
    finally:
        os.close(found)
