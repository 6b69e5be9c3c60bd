"""Paths inside a root file system, always by directory fd and openat2(RESOLVE_IN_ROOT), never by joining strings.

A hostile image can make any component a symlink; with RESOLVE_IN_ROOT the kernel resolves it as if the root fd were
``/``, so nothing outside can be reached, whatever is swapped while we look.
"""

from __future__ import annotations

import errno
import os

from pytest_ocirun.linux.paths import RESOLVE_IN_ROOT, RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS, openat2

_INSIDE = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS
O_PATH = os.O_PATH | os.O_CLOEXEC


def open_inside(root: int, path: str, flags: int = O_PATH, *, symlinks: bool = True) -> int:
    """Open ``path`` below ``root``; with ``symlinks`` false every symlink on the way is ELOOP."""
    return openat2(root, path, flags, resolve=_INSIDE | (0 if symlinks else RESOLVE_NO_SYMLINKS))


def make_directory(root: int, path: str, mode: int = 0o755, *, symlinks: bool = True) -> int:
    """Open the directory ``path`` below ``root``, making what is missing on the way; returns an O_PATH fd."""
    try:
        return open_inside(root, path, O_PATH | os.O_DIRECTORY, symlinks=symlinks)
    except FileNotFoundError:
        pass
    parent, _, name = path.rstrip("/").rpartition("/")
    if name in ("", ".", ".."):
        raise OSError(errno.ENOENT, os.strerror(errno.ENOENT), path)
    above = make_directory(root, parent or "/", symlinks=symlinks)
    try:
        _mkdirat(name, mode, above)
    finally:
        os.close(above)
    return open_inside(root, path, O_PATH | os.O_DIRECTORY, symlinks=symlinks)


def make_file(root: int, path: str, mode: int = 0o644) -> int:
    """Open the file ``path`` below ``root``, making an empty one if there is none; returns an O_PATH fd."""
    try:
        return open_inside(root, path)
    except FileNotFoundError:
        pass
    parent, _, name = path.rpartition("/")
    above = make_directory(root, parent or "/")
    try:
        # O_EXCL: a dangling symlink of that name is not followed.
        os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, mode, dir_fd=above))
    except FileExistsError:
        pass
    finally:
        os.close(above)
    return open_inside(root, path)


def make_symlink(root: int, path: str, target: str) -> None:
    """Put a symlink at ``path`` below ``root`` unless something is there."""
    parent, _, name = path.rpartition("/")
    above = make_directory(root, parent or "/")
    try:
        os.symlink(target, name, dir_fd=above)
    except FileExistsError:
        pass
    finally:
        os.close(above)


def _mkdirat(name: str, mode: int, above: int) -> None:
    try:
        os.mkdir(name, mode, dir_fd=above)
    except FileExistsError:
        pass
