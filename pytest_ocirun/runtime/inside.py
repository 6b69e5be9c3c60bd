"""Paths inside a root file system, always by directory fd and openat2(RESOLVE_IN_ROOT), never by joining strings.

A hostile image can make any component a symlink; with RESOLVE_IN_ROOT the kernel resolves it as if the root fd were
``/``, so nothing outside can be reached, whatever is swapped while we look.
"""

from __future__ import annotations

import errno
import os
import stat

from pytest_ocirun.linux.paths import RESOLVE_IN_ROOT, RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS, openat2

_INSIDE = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS
O_PATH = os.O_PATH | os.O_CLOEXEC

MAX_LINKS = 40
"""As many links as the kernel follows in one path."""


def open_inside(root: int, path: str, flags: int = O_PATH, *, symlinks: bool = True) -> int:
    """Open ``path`` below ``root``; with ``symlinks`` false every symlink on the way is ELOOP."""
    return openat2(root, path, flags, resolve=_INSIDE | (0 if symlinks else RESOLVE_NO_SYMLINKS))


def make_directory(root: int, path: str, mode: int = 0o755, *, symlinks: bool = True, links: int = MAX_LINKS) -> int:
    """Open the directory ``path`` below ``root``, making what is missing on the way; returns an O_PATH fd.

    What a dangling link points to is made too, where the link leads when the root is ``/``.
    """
    try:
        return open_inside(root, path, O_PATH | os.O_DIRECTORY, symlinks=symlinks)
    except FileNotFoundError:
        pass
    parent, name = _split(path)
    above = make_directory(root, parent, symlinks=symlinks, links=links)
    try:
        target = _link_at(above, name)
        if target is None:
            _mkdirat(name, mode, above)
    finally:
        os.close(above)
    if target is not None:
        path = _followed(parent, target, links)
        return make_directory(root, path, mode, symlinks=symlinks, links=links - 1)
    return open_inside(root, path, O_PATH | os.O_DIRECTORY, symlinks=symlinks)


def make_file(root: int, path: str, mode: int = 0o644, *, symlinks: bool = True, links: int = MAX_LINKS) -> int:
    """Open the file ``path`` below ``root``, making an empty one if there is none; returns an O_PATH fd."""
    try:
        return open_inside(root, path, symlinks=symlinks)
    except FileNotFoundError:
        pass
    parent, name = _split(path)
    above = make_directory(root, parent, symlinks=symlinks, links=links)
    try:
        target = _link_at(above, name)
        if target is None:
            _create(name, mode, above)
    finally:
        os.close(above)
    if target is not None:
        return make_file(root, _followed(parent, target, links), mode, symlinks=symlinks, links=links - 1)
    return open_inside(root, path, symlinks=symlinks)


def make_symlink(root: int, path: str, target: str, *, replace: bool = False) -> None:
    """Put a symlink at ``path`` below ``root`` unless something is there.

    Args:
        root: where ``path`` begins.
        path: of the link.
        target: what it says.
        replace: another link or a device node that is there goes.
    """
    parent, name = _split(path)
    above = make_directory(root, parent)
    try:
        os.symlink(target, name, dir_fd=above)
    except FileExistsError:
        if replace and _is_replaceable(name, above):
            os.unlink(name, dir_fd=above)
            os.symlink(target, name, dir_fd=above)
    finally:
        os.close(above)


def _split(path: str) -> tuple[str, str]:
    parent, _, name = path.rstrip("/").rpartition("/")
    if name in ("", ".", ".."):
        raise OSError(errno.ENOENT, os.strerror(errno.ENOENT), path)
    return parent or "/", name


def _link_at(above: int, name: str) -> str | None:
    try:
        return os.readlink(name, dir_fd=above)
    except OSError:
        return None


def _followed(parent: str, target: str, links: int) -> str:
    path = target if target.startswith("/") else f"{parent}/{target}"
    if not links:
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
    return path


def _is_replaceable(name: str, above: int) -> bool:
    mode = os.stat(name, dir_fd=above, follow_symlinks=False).st_mode
    return stat.S_ISLNK(mode) or stat.S_ISCHR(mode)


def _create(name: str, mode: int, above: int) -> None:
    try:
        # O_EXCL: a link that appears meanwhile is not followed.
        os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, mode, dir_fd=above))
    except FileExistsError:
        pass


def _mkdirat(name: str, mode: int, above: int) -> None:
    try:
        os.mkdir(name, mode, dir_fd=above)
    except FileExistsError:
        pass
