"""Writing the members of a tarball below a directory, and nowhere else.

Responsible for every file that unpacking makes. Must not know the store or the archive's format.

The rules, each for an attack that worked on some other extractor (tests/security/test_images_hostile.py):

- Parents are opened by openat2(RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS): a link leads where it leads a
  process whose root is the image, never to the host. A link to nothing is an error, not a place to make
  directories.
- The last component is made by O_EXCL | O_NOFOLLOW, or its *at() sibling; what is in the way is unlinked, not
  opened.
- Open parents are cached until something is replaced, so no stale directory is ever written to.
- Owner, then attributes, then mode: chown clears capabilities and set-id bits. Directories get theirs last,
  deepest first, so that neither modes nor times suffer from what is made inside.
"""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_ocirun.errors import ImageError
from pytest_ocirun.images import tree
from pytest_ocirun.images.metadata import Metadata
from pytest_ocirun.images.tarball import shown
from pytest_ocirun.linux.paths import open_in_root

if TYPE_CHECKING:
    from pytest_ocirun.images.owners import Owners
    from pytest_ocirun.images.tarball import Member, Tarball

_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_CACHED_PARENTS = 64
_NO_ROOM = "Make room where the image store lies, or choose another directory with --ocirun-store."

# null, zero, full, random, urandom; tty, console, ptmx: what every root file system has in its /dev, and what
# gives nobody anything. The runtime makes its own /dev in any case.
_HARMLESS = frozenset({(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 1), (5, 2)})


@dataclass(slots=True)
class Counts:
    """What an unpacking made, and what it had to leave out."""

    members: int = 0
    skipped_devices: int = 0
    dropped_xattrs: int = 0


class Extractor:
    """Writes members below ``root``, an empty directory of the caller's, which stays open for the caller.

    Args:
        root: the directory's fd.
        owners: whose the files are to be.
    """

    def __init__(self, root: int, owners: Owners) -> None:
        self._root = root
        self._metadata = Metadata(owners)
        self._devices = os.geteuid() == 0 and owners.changes
        self._parents: dict[bytes, int] = {}
        self._parents_stale = False
        self._directories: dict[tuple[int, int], tuple[bytes, Member | None]] = {}
        self._makers = {
            "file": self._file,
            "directory": self._directory,
            "link": self._link,
            "symlink": self._symlink,
            "fifo": self._fifo,
            "char": self._device,
            "block": self._device,
        }
        self.counts = Counts()

    def run(self, tarball: Tarball) -> Counts:
        """Write every member of ``tarball``.

        Raises:
            ImageError: a member is hostile or cannot be made; it is named. What was made so far is the
            caller's
                to remove.
        """
        self._metadata.prepare_root(self._root)
        self._note_directory(self._root, b"", None)
        try:
            for member in tarball.members():
                self._make(member, tarball)
            self._finish_directories()
        finally:
            self._forget_parents()
        self.counts.dropped_xattrs = self._metadata.dropped_xattrs
        return self.counts

    def _make(self, member: Member, tarball: Tarball) -> None:
        self.counts.members += 1
        try:
            if not member.path:
                self._root_member(member)
                return
            parent, name = self._place(member.path)
            if member.kind == "file":
                self._file(parent, name, member, tarball)
            else:
                self._makers[member.kind](parent, name, member, tarball)
        except ImageError as error:
            raise ImageError(f"member {member}: {error.message}", hint=error.hint) from error
        except OSError as error:
            hint = _NO_ROOM if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG} else None
            raise ImageError(f"member {member} cannot be made: {error.strerror}", hint=hint) from error

    def _root_member(self, member: Member) -> None:
        if member.kind != "directory":
            raise ImageError(f"the root is a {member.kind}")
        self._note_directory(self._root, b"", member)

    # Places

    def _place(self, path: bytes) -> tuple[int, bytes]:
        head, _, name = path.rpartition(b"/")
        if not head:
            return self._root, name
        if self._parents_stale:
            self._forget_parents()
        parent = self._parents.get(head)
        if parent is None:
            if len(self._parents) >= _CACHED_PARENTS:
                self._forget_parents()
            parent = self._parents[head] = self._open_parent(head)
        return parent, name

    def _open_parent(self, path: bytes) -> int:
        """An O_PATH fd of a directory; it and its missing parents are made."""
        try:
            return open_in_root(self._root, path, os.O_PATH | os.O_DIRECTORY)
        except FileNotFoundError:
            parts = path.split(b"/")
            for depth in range(1, len(parts) + 1):
                self._make_parent(b"/".join(parts[:depth]))
            return open_in_root(self._root, path, os.O_PATH | os.O_DIRECTORY)
        except NotADirectoryError:
            raise ImageError(f"{shown(path)} is not a directory") from None

    def _make_parent(self, path: bytes) -> None:
        try:
            os.close(open_in_root(self._root, path, os.O_PATH | os.O_DIRECTORY))
        except FileNotFoundError:
            pass
        else:
            return
        head, _, name = path.rpartition(b"/")
        parent = open_in_root(self._root, head or b".", os.O_PATH | os.O_DIRECTORY)
        try:
            os.mkdir(name, 0o700, dir_fd=parent)
            self._note_directory(parent, path, None, name)
        except FileExistsError:
            raise ImageError(f"{shown(path)} is a link that leads to nothing inside the image") from None
        finally:
            os.close(parent)

    def _forget_parents(self) -> None:
        while self._parents:
            os.close(self._parents.popitem()[1])
        self._parents_stale = False

    def _clear(self, parent: int, name: bytes) -> None:
        """Take away what an earlier member made in this place: the last one wins."""
        self._parents_stale = True
        tree.remove(parent, name)

    # Members

    def _file(self, parent: int, name: bytes, member: Member, tarball: Tarball) -> None:
        try:
            fd = os.open(name, _CREATE, 0o600, dir_fd=parent)
        except FileExistsError:
            self._clear(parent, name)
            fd = os.open(name, _CREATE, 0o600, dir_fd=parent)
        try:
            if member.extents is not None:
                _write_extents(fd, member, tarball)
            elif member.size:
                for piece in tarball.data():
                    _write(fd, piece)
            self._metadata.settle(fd, member)
        finally:
            os.close(fd)

    def _directory(self, parent: int, name: bytes, member: Member, _: Tarball) -> None:
        try:
            os.mkdir(name, 0o700, dir_fd=parent)
        except FileExistsError:
            if not stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
                self._clear(parent, name)
                os.mkdir(name, 0o700, dir_fd=parent)
        self._note_directory(parent, member.path, member, name)

    def _link(self, parent: int, name: bytes, member: Member, _: Tarball) -> None:
        head, _slash, source = member.target.rpartition(b"/")
        try:
            directory = open_in_root(self._root, head or b".", os.O_PATH | os.O_DIRECTORY)
        except FileNotFoundError:
            raise ImageError(f"no member before it made {shown(member.target)}, which it links to") from None
        try:
            self._link_to(directory, source, parent, name, member)
        finally:
            os.close(directory)

    def _link_to(self, directory: int, source: bytes, parent: int, name: bytes, member: Member) -> None:
        try:
            wanted = os.stat(source, dir_fd=directory, follow_symlinks=False)
        except FileNotFoundError:
            raise ImageError(f"no member before it made {shown(member.target)}, which it links to") from None
        if stat.S_ISDIR(wanted.st_mode):
            raise ImageError(f"it links to {shown(member.target)}, a directory")
        try:
            os.link(source, name, src_dir_fd=directory, dst_dir_fd=parent, follow_symlinks=False)
        except FileExistsError:
            if os.path.samestat(wanted, os.stat(name, dir_fd=parent, follow_symlinks=False)):
                return
            self._clear(parent, name)
            os.link(source, name, src_dir_fd=directory, dst_dir_fd=parent, follow_symlinks=False)

    def _symlink(self, parent: int, name: bytes, member: Member, _: Tarball) -> None:
        try:
            os.symlink(member.target, name, dir_fd=parent)
        except FileExistsError:
            self._clear(parent, name)
            os.symlink(member.target, name, dir_fd=parent)
        self._metadata.settle_by_name(parent, name, member)

    def _fifo(self, parent: int, name: bytes, member: Member, _: Tarball) -> None:
        self._node(parent, name, member, stat.S_IFIFO, 0)

    def _device(self, parent: int, name: bytes, member: Member, _: Tarball) -> None:
        if member.kind == "block" or member.device not in _HARMLESS:
            major, minor = member.device
            raise ImageError(
                f"it is the {member.kind} device {major}:{minor}, which an image has no business with",
                hint="Make the archive without it (tar --exclude); containers get a /dev of their own.",
            )
        if self._devices:
            try:
                self._node(parent, name, member, stat.S_IFCHR, os.makedev(*member.device))
            except PermissionError:
                self._devices = False
            else:
                return
        self.counts.skipped_devices += 1

    def _node(self, parent: int, name: bytes, member: Member, kind: int, device: int) -> None:
        try:
            os.mknod(name, kind | 0o600, device, dir_fd=parent)
        except FileExistsError:
            self._clear(parent, name)
            os.mknod(name, kind | 0o600, device, dir_fd=parent)
        self._metadata.settle_by_name(parent, name, member)

    # Directories, last

    def _note_directory(self, parent: int, path: bytes, member: Member | None, name: bytes | None = None) -> None:
        found = os.fstat(parent) if name is None else os.stat(name, dir_fd=parent, follow_symlinks=False)
        self._directories[found.st_dev, found.st_ino] = (path, member)

    def _finish_directories(self) -> None:
        self._forget_parents()
        by_depth = sorted(self._directories.items(), key=lambda item: item[1][0].count(b"/") + bool(item[1][0]))
        for inode, (path, member) in reversed(by_depth):
            try:
                fd = open_in_root(self._root, path or b".", os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            except (FileNotFoundError, NotADirectoryError):
                continue
            try:
                found = os.fstat(fd)
                if (found.st_dev, found.st_ino) == inode:
                    self._metadata.settle_directory(fd, member)
            except OSError as error:
                raise ImageError(f"member {shown(path)} cannot be finished: {error.strerror}") from error
            finally:
                os.close(fd)


def _write(fd: int, piece: memoryview) -> None:
    written = os.write(fd, piece)
    while written < len(piece):
        written += os.write(fd, piece[written:])


def _write_extents(fd: int, member: Member, tarball: Tarball) -> None:
    """Lay the data into the extents of a sparse file, leaving the holes."""
    os.ftruncate(fd, member.size)
    extents = iter(member.extents or ())
    offset = left = 0
    for piece in tarball.data():
        rest = piece
        while rest:
            while not left:
                offset, left = next(extents)
            written = os.pwrite(fd, rest[:left], offset)
            offset += written
            left -= written
            rest = rest[written:]
