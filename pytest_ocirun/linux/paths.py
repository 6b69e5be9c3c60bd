"""Opening paths below a directory that is not trusted. Source: openat2(2), Linux 5.6.

Responsible for the one safe way to turn a path of an image into a file descriptor. Must not know what an
image is.
"""

from __future__ import annotations

import ctypes
import errno
import os

from pytest_ocirun.linux import _libc

RESOLVE_NO_XDEV = 0x01
RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_BENEATH = 0x08
RESOLVE_IN_ROOT = 0x10

PROC_SUPER_MAGIC = 0x9FA0

# The kernel answers EAGAIN when a rename anywhere on the system may have moved ".." during the walk.
_TRIES = 100


class _OpenHow(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint64) for name in ("flags", "mode", "resolve")]


_openat2 = _libc.SystemCall("openat2", ctypes.c_int, ctypes.c_char_p, ctypes.POINTER(_OpenHow), ctypes.c_size_t)
_syncfs = _libc.function("syncfs", ctypes.c_int)
_fstatfs = _libc.function("fstatfs", ctypes.c_int, ctypes.c_void_p)


def openat2(dirfd: int, path: str | bytes, flags: int, *, mode: int = 0, resolve: int = 0) -> int:
    """Open ``path`` relative to ``dirfd``, its resolution held to ``resolve``; close-on-exec always.

    Args:
        dirfd: an open directory.
        path: the path as the image writes it.
        flags: O_* as for open(2).
        mode: the mode of a file that O_CREAT makes.
        resolve: RESOLVE_* flags.

    Raises:
        OSError: the kernel's errno, with ``path`` as its filename.
    """
    name = os.fsencode(path)
    how = _OpenHow(flags=flags | os.O_CLOEXEC, mode=mode, resolve=resolve)
    for attempt in range(_TRIES):
        try:
            return _openat2(dirfd, name, ctypes.byref(how), ctypes.sizeof(how), path=os.fsdecode(name))
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EINTR) or attempt == _TRIES - 1:
                raise
    raise AssertionError


def open_in_root(root: int, path: str | bytes, flags: int, *, mode: int = 0) -> int:
    """Open ``path`` as a process does whose root is ``root``: no link and no ``..`` leads out of it.

    Raises:
        OSError: the kernel's errno, with ``path`` as its filename.
    """
    return openat2(root, path, flags, mode=mode, resolve=RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS)


def syncfs(fd: int) -> None:
    """Write everything out that the file system of ``fd`` still holds in memory; see syncfs(2)."""
    _libc.check(_syncfs(fd), "syncfs")


def filesystem_type(fd: int) -> int:
    """The magic number of the file system that ``fd`` lies on, as PROC_SUPER_MAGIC; see fstatfs(2)."""
    buffer = (ctypes.c_long * 32)()  # struct statfs begins with f_type and has 15 words
    _libc.check(_fstatfs(fd, ctypes.byref(buffer)), "fstatfs")
    return int(buffer[0])
