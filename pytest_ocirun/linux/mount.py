"""Mounts: the classic calls and the new mount API. Sources: mount(2), open_tree(2), fsopen(2), mount_setattr(2).

A plain MS_REMOUNT on proc or sysfs changes the superblock that the host shares, so flags are only ever changed by
``mount_setattr`` or MS_BIND | MS_REMOUNT.
"""

from __future__ import annotations

import ctypes

from pytest_ocirun.linux import _libc

AT_FDCWD = -100
AT_EMPTY_PATH = 0x1000
AT_SYMLINK_NOFOLLOW = 0x100
AT_RECURSIVE = 0x8000
NO_FD = (1 << 32) - 1

MS_RDONLY = 0x1
MS_NOSUID = 0x2
MS_NODEV = 0x4
MS_NOEXEC = 0x8
MS_SYNCHRONOUS = 0x10
MS_REMOUNT = 0x20
MS_MANDLOCK = 0x40
MS_DIRSYNC = 0x80
MS_NOATIME = 0x400
MS_NODIRATIME = 0x800
MS_BIND = 0x1000
MS_MOVE = 0x2000
MS_REC = 0x4000
MS_SILENT = 0x8000
MS_UNBINDABLE = 0x20000
MS_PRIVATE = 0x40000
MS_SLAVE = 0x80000
MS_SHARED = 0x100000
MS_RELATIME = 0x200000
MS_I_VERSION = 0x800000
MS_STRICTATIME = 0x1000000
MS_LAZYTIME = 0x2000000

MNT_DETACH = 2
UMOUNT_NOFOLLOW = 8

OPEN_TREE_CLONE = 1
OPEN_TREE_CLOEXEC = 0o2000000
MOVE_MOUNT_F_EMPTY_PATH = 0x4
MOVE_MOUNT_T_EMPTY_PATH = 0x40

MOUNT_ATTR_RDONLY = 0x1
MOUNT_ATTR_NOSUID = 0x2
MOUNT_ATTR_NODEV = 0x4
MOUNT_ATTR_NOEXEC = 0x8
MOUNT_ATTR__ATIME = 0x70
MOUNT_ATTR_RELATIME = 0x0
MOUNT_ATTR_NOATIME = 0x10
MOUNT_ATTR_STRICTATIME = 0x20
MOUNT_ATTR_NODIRATIME = 0x80
MOUNT_ATTR_IDMAP = 0x100000
MOUNT_ATTR_NOSYMFOLLOW = 0x200000

_LONGEST_OPTION = 255
"""Bytes of one value that fsconfig(2) takes; mount(2) takes a page of all of them together."""

_FSOPEN_CLOEXEC = 1
_FSMOUNT_CLOEXEC = 1
_FSCONFIG_SET_FLAG = 0
_FSCONFIG_SET_STRING = 1
_FSCONFIG_CMD_CREATE = 6


class _MountAttr(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint64) for name in ("attr_set", "attr_clr", "propagation", "userns_fd")]


_c = ctypes
_mount = _libc.function("mount", _c.c_char_p, _c.c_char_p, _c.c_char_p, _c.c_ulong, _c.c_char_p)
_umount2 = _libc.function("umount2", _c.c_char_p, _c.c_int)
_pivot_root = _libc.SystemCall("pivot_root", _c.c_char_p, _c.c_char_p)
_open_tree = _libc.SystemCall("open_tree", _c.c_int, _c.c_char_p, _c.c_uint)
_move_mount = _libc.SystemCall("move_mount", _c.c_int, _c.c_char_p, _c.c_int, _c.c_char_p, _c.c_uint)
_mount_setattr = _libc.SystemCall(
    "mount_setattr", _c.c_int, _c.c_char_p, _c.c_uint, _c.POINTER(_MountAttr), _c.c_size_t
)
_fsopen = _libc.SystemCall("fsopen", _c.c_char_p, _c.c_uint)
_fsconfig = _libc.SystemCall("fsconfig", _c.c_int, _c.c_uint, _c.c_char_p, _c.c_char_p, _c.c_int)
_fsmount = _libc.SystemCall("fsmount", _c.c_int, _c.c_uint, _c.c_uint)


def _bytes(text: str | None) -> bytes | None:
    return None if text is None else text.encode("utf-8", "surrogateescape")


def mount(source: str | None, target: str, fstype: str | None, flags: int = 0, data: str | None = None) -> None:
    """Mount a file system, or change a mount; see mount(2)."""
    _libc.check(_mount(_bytes(source), _bytes(target), _bytes(fstype), flags, _bytes(data)), "mount", target)


def umount2(target: str, flags: int = 0) -> None:
    """Take a mount away; see umount(2)."""
    _libc.check(_umount2(_bytes(target), flags), "umount2", target)


def pivot_root(new_root: str, put_old: str) -> None:
    """Make ``new_root`` the root mount and move the old one to ``put_old``; see pivot_root(2)."""
    _pivot_root(_bytes(new_root), _bytes(put_old), path=new_root)


def open_tree(dirfd: int, path: str, *, recursive: bool = False, follow: bool = True) -> int:
    """A detached copy of the mount at ``path`` (of the whole subtree if ``recursive``), as a close-on-exec fd.

    An empty ``path`` stands for ``dirfd`` itself. Linux 5.2.
    """
    flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | (0 if path else AT_EMPTY_PATH)
    flags |= (AT_RECURSIVE if recursive else 0) | (0 if follow else AT_SYMLINK_NOFOLLOW)
    return _open_tree(dirfd, _bytes(path), flags, path=path or None)


def move_mount(source: int, target: int, path: str = "") -> None:
    """Attach the detached mount ``source`` at the place that ``target`` (and ``path`` below it) is open on."""
    flags = MOVE_MOUNT_F_EMPTY_PATH | (0 if path else MOVE_MOUNT_T_EMPTY_PATH)
    _move_mount(source, b"", target, _bytes(path), flags, path=path or None)


def mount_setattr(
    fd: int, *, set: int = 0, clear: int = 0, propagation: int = 0, userns: int | None = None, recursive: bool = False
) -> None:
    """Change the attributes of the mount that ``fd`` is open on; see mount_setattr(2), Linux 5.12.

    Args:
        fd: any fd on the mount's root.
        set: MOUNT_ATTR_* to set.
        clear: MOUNT_ATTR_* to clear.
        propagation: one of MS_PRIVATE, MS_SLAVE, MS_SHARED, MS_UNBINDABLE, or 0.
        userns: a user namespace fd: the mount becomes idmapped by that namespace's maps.
        recursive: also every mount below.
    """
    attr = _MountAttr(attr_set=set, attr_clr=clear, propagation=propagation)
    if userns is not None:
        attr.attr_set |= MOUNT_ATTR_IDMAP
        attr.userns_fd = userns
    flags = AT_EMPTY_PATH | (AT_RECURSIVE if recursive else 0)
    _mount_setattr(fd, b"", flags, ctypes.byref(attr), ctypes.sizeof(attr))


def new_mount(fstype: str, options: dict[str, str | None], attributes: int = 0) -> int:
    """Make a new superblock and a detached mount of it; see fsopen(2), fsconfig(2), fsmount(2).

    Args:
        fstype: ``tmpfs``, ``overlay``, ``proc`` ...
        options: file system parameters; None stands for a flag without a value. ``source`` names the device.
        attributes: MOUNT_ATTR_* of the mount.

    Returns:
        A close-on-exec fd of the mount.

    Raises:
        OSError: the kernel's errno; the file system's own message, where it left one, is in the text.
    """
    import os

    context = _fsopen(fstype.encode(), _FSOPEN_CLOEXEC)
    try:
        for key, value in options.items():
            command = _FSCONFIG_SET_FLAG if value is None else _FSCONFIG_SET_STRING
            _fsconfig(context, command, key.encode(), _bytes(value), 0, path=f"{fstype} {key}={value}")
        _fsconfig(context, _FSCONFIG_CMD_CREATE, None, None, 0, path=fstype)
        return _fsmount(context, _FSMOUNT_CLOEXEC, attributes, path=fstype)
    except OSError as error:
        raise OSError(error.errno, f"{error.strerror}{_messages(context)}", error.filename) from None
    finally:
        os.close(context)


def needs_mount_classic(options: dict[str, str | None]) -> bool:
    """Whether ``new_mount`` cannot take these options, for being too long or none of fsconfig(2)."""
    return "iversion" in options or any(len(value or "") > _LONGEST_OPTION for value in options.values())


def mount_classic(source: str, target: str, fstype: str, options: dict[str, str | None], attributes: int = 0) -> int:
    """Make a new superblock with mount(2), for options that ``new_mount`` cannot take.

    Args:
        source: names the device.
        target: a directory that the caller can spare, since the mount lies there until it is moved.
        fstype: as for ``new_mount``.
        options: as for ``new_mount``.
        attributes: MOUNT_ATTR_* of the mount.

    Returns:
        A close-on-exec fd of the mount.
    """
    import os

    flags = MS_I_VERSION if "iversion" in options else 0
    pairs = (key if value is None else f"{key}={value}" for key, value in options.items() if key != "iversion")
    mount(source, target, fstype, flags, ",".join(pairs))
    fd = os.open(target, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    mount_setattr(fd, set=attributes)
    return fd


def _messages(context: int) -> str:
    import os

    lines = []
    while True:
        try:
            lines.append(os.read(context, 4096).decode("utf-8", "replace").strip())
        except OSError:
            return "".join(f" ({line})" for line in lines)
