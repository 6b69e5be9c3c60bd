"""The step of a tmpfs with ``tmpcopyup``: it begins with a copy of what its mount point holds.

Everything goes by directory fd and without following links: the tree is the image's.
"""

from __future__ import annotations

import errno
import os
import stat

from pytest_ocirun.runtime.inside import open_inside
from pytest_ocirun.runtime.rootfs import finish, mode_at, new_file_system, place
from pytest_ocirun.runtime.steps import Context, operation

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_CHUNK = 1 << 30
_NO_ATTRIBUTES = (errno.ENOTSUP, errno.EPERM, errno.ENODATA, errno.EACCES)


@operation("mount {1} on {0} with a copy of what is there")
def mount_copied(
    context: Context,
    path: str,
    fstype: str,
    source: str,
    options: dict[str, str | None],
    attributes: int,
    propagation: list[int],
    seal: bool,  # noqa: FBT001
) -> None:
    """As ``rootfs.mount_new``, filled before it is moved into its place."""
    if "mode" not in options:
        options = {**options, **mode_at(context.root, path)}
    fd = new_file_system(fstype, source, options, attributes)
    try:
        original = open_inside(context.root, path, _FOLDER & ~os.O_NOFOLLOW)
    except FileNotFoundError:
        pass
    else:
        _Copy(fd).folder(original, ".")
        os.close(original)
    place(context.root, fd, path, directory=True)
    finish(context, fd, propagation, seal=seal)


class _Copy:
    """One copying of a tree.

    Args:
        top: the empty directory to fill.
    """

    def __init__(self, top: int) -> None:
        self._top = os.open(".", _FOLDER, dir_fd=top)
        self._links: dict[tuple[int, int], str] = {}

    def folder(self, source: int, path: str) -> None:
        """Copy what the directory ``source`` holds to ``path`` below the top."""
        target = os.open(path, _FOLDER, dir_fd=self._top)
        try:
            for name in os.listdir(source):
                found = os.stat(name, dir_fd=source, follow_symlinks=False)
                self._item(source, target, name, found, f"{path}/{name}")
        finally:
            os.close(target)

    def _item(self, source: int, target: int, name: str, found: os.stat_result, path: str) -> None:
        first = self._links.setdefault((found.st_dev, found.st_ino), path)
        if first != path and not stat.S_ISDIR(found.st_mode):
            os.link(first, name, src_dir_fd=self._top, dst_dir_fd=target, follow_symlinks=False)
            return
        if stat.S_ISLNK(found.st_mode):
            os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=target)
        elif stat.S_ISDIR(found.st_mode):
            os.mkdir(name, 0o700, dir_fd=target)
        elif stat.S_ISREG(found.st_mode):
            os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=target))
        else:
            os.mknod(name, found.st_mode, found.st_rdev, dir_fd=target)
        _own(target, name, found)
        if stat.S_ISDIR(found.st_mode) or stat.S_ISREG(found.st_mode):
            self._content(source, target, name, found, path)
        if not stat.S_ISLNK(found.st_mode):
            os.chmod(name, stat.S_IMODE(found.st_mode), dir_fd=target)
        os.utime(name, ns=(found.st_atime_ns, found.st_mtime_ns), dir_fd=target, follow_symlinks=False)

    def _content(self, source: int, target: int, name: str, found: os.stat_result, path: str) -> None:
        is_folder = stat.S_ISDIR(found.st_mode)
        original = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=source)
        copy = os.open(name, _FOLDER if is_folder else os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=target)
        try:
            if is_folder:
                self.folder(original, path)
            else:
                while os.sendfile(copy, original, None, _CHUNK):
                    pass
            _copy_attributes(original, copy)
        finally:
            os.close(original)
            os.close(copy)


def _own(target: int, name: str, found: os.stat_result) -> None:
    try:
        os.chown(name, found.st_uid, found.st_gid, dir_fd=target, follow_symlinks=False)
    except OSError as error:
        # An owner that this user namespace does not know shows as nobody, and cannot be given: it stays root's.
        if error.errno not in (errno.EINVAL, errno.EPERM):
            raise


def _copy_attributes(original: int, copy: int) -> None:
    for name in os.listxattr(original):
        try:
            os.setxattr(copy, name, os.getxattr(original, name))
        except OSError as error:
            if error.errno not in _NO_ATTRIBUTES:
                raise
