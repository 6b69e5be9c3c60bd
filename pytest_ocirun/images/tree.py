"""Directory trees whose content is not trusted: telling what they are, removing them.

Responsible for never following a link out of a tree and never crossing into another mount. Must not know the
store.
"""

from __future__ import annotations

import os
import stat

from pytest_ocirun.linux.paths import (
    RESOLVE_BENEATH,
    RESOLVE_NO_MAGICLINKS,
    RESOLVE_NO_SYMLINKS,
    RESOLVE_NO_XDEV,
    open_in_root,
    openat2,
)

_STRICT = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW


def is_rootfs(root: int) -> bool:
    """Whether the directory has at least one of /usr/bin, /bin and /etc, links resolved inside it."""
    return any(_has(root, name, stat.S_IFDIR) for name in ("usr/bin", "bin", "etc"))


def foreign_form(root: int) -> str | None:
    """The kind of image that a directory (or an unpacked archive) is instead of a root file system."""
    if _has(root, "oci-layout", stat.S_IFREG):
        return "an OCI layout"
    if _has(root, "rootfs", stat.S_IFDIR) and _has(root, "config.json", stat.S_IFREG):
        return "an OCI bundle"
    if _has(root, "manifest.json", stat.S_IFREG) and not is_rootfs(root):
        return "a docker archive"
    return None


def _has(root: int, path: str, kind: int) -> bool:
    try:
        fd = open_in_root(root, path, os.O_PATH)
    except OSError:
        return False
    try:
        return stat.S_IFMT(os.fstat(fd).st_mode) == kind
    finally:
        os.close(fd)


def remove(parent: int, name: bytes) -> None:
    """Remove the tree ``name`` of the directory ``parent``; nothing there is fine.

    Opens every directory by its path below ``parent``, so that a deep tree needs no deep stack of open files.

    Raises:
        OSError: something cannot be removed, or is the root of another mount.
    """
    pending = [name]
    while pending:
        path = pending[-1]
        try:
            fd = _open(parent, path)
        except FileNotFoundError:
            pending.pop()
            continue
        except NotADirectoryError:
            os.unlink(path, dir_fd=parent)
            return
        try:
            inner = _empty(fd)
        finally:
            os.close(fd)
        if inner:
            pending += [path + b"/" + entry for entry in inner]
        else:
            os.rmdir(path, dir_fd=parent)
            pending.pop()


def _open(parent: int, path: bytes) -> int:
    """Open a directory that is about to go, made accessible first where its owner is not root."""
    if os.geteuid():
        fd = openat2(parent, path, os.O_PATH | _DIRECTORY, resolve=_STRICT)
        try:
            if os.fstat(fd).st_mode & 0o700 != 0o700:
                os.chmod(f"/proc/self/fd/{fd}", 0o700)
        finally:
            os.close(fd)
    return openat2(parent, path, _DIRECTORY, resolve=_STRICT)


def _empty(fd: int) -> list[bytes]:
    """Unlink everything in the directory but directories, whose names are returned."""
    inner = []
    with os.scandir(fd) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                inner.append(os.fsencode(entry.name))
            else:
                os.unlink(entry.name, dir_fd=fd)
    return inner
