"""Owner, attributes, mode and time of one unpacked file, in the order that keeps them all.

Responsible for what may be kept of a member's metadata. Must not know paths: it gets open files, or a name in
an open directory for what cannot be opened.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from pytest_ocirun.errors import ImageError
from pytest_ocirun.images.tarball import shown

if TYPE_CHECKING:
    from pytest_ocirun.images.owners import Owners
    from pytest_ocirun.images.tarball import Member

_LONGEST_XATTR = 65536

# They would forge the state of an overlay that uses the tree as a layer.
_REFUSED = (b"trusted.", b"user.overlay.")
_CAPABILITY = b"security.capability"


class Metadata:
    """Applies metadata as ``owners`` allows; counts the attributes that it cannot keep.

    Kept are ``user.*`` and ``security.capability``. Dropped are the host's own business: labels, hashes and
    signatures of its security modules (``security.selinux``, ``security.ima``...), and ``system.*``, whose
    ACLs hold unmapped ids.
    """

    def __init__(self, owners: Owners) -> None:
        self._owners = owners
        self._default = (os.geteuid(), os.getegid())
        self.dropped_xattrs = 0

    def prepare_root(self, fd: int) -> None:
        """Free the tree's root of what it inherits from around it: group, set-gid bit, default ACL."""
        os.fchown(fd, *self._default)
        os.fchmod(fd, 0o700)
        try:
            os.removexattr(fd, "system.posix_acl_default")
        except OSError as error:
            if error.errno not in {errno.ENODATA, errno.EOPNOTSUPP}:
                raise

    def settle(self, fd: int, member: Member) -> None:
        """Finish an open regular file.

        Raises:
            ImageError: an attribute or an owner is not acceptable.
            OSError: the kernel refused.
        """
        self._apply(fd, member, 0 if self._owners.changes else 0o400)

    def settle_directory(self, fd: int, member: Member | None) -> None:
        """Finish an open directory; without a member, one that the archive implies: root's, 0755.

        Raises:
            ImageError: an attribute or an owner is not acceptable.
            OSError: the kernel refused.
        """
        if member is not None:
            self._apply(fd, member, 0 if self._owners.changes else 0o500)
            return
        if self._owners.changes:
            os.fchown(fd, self._owners.on_disk(0), self._owners.on_disk(0))
        os.fchmod(fd, 0o755)

    def _apply(self, fd: int, member: Member, readable: int) -> None:
        if self._owners.changes:
            owner = self._owner(member)
            if owner != self._default:
                os.fchown(fd, *owner)
        if member.xattrs:
            for name, value in member.xattrs:
                self._set_xattr(fd, name, value)
        os.fchmod(fd, member.mode | readable)
        os.utime(fd, ns=(member.mtime, member.mtime))

    def settle_by_name(self, parent: int, name: bytes, member: Member) -> None:
        """Finish what cannot be opened: a link, a fifo or a device node, just made by us.

        Raises:
            ImageError: an owner is not acceptable.
            OSError: the kernel refused.
        """
        if self._owners.changes:
            os.chown(name, *self._owner(member), dir_fd=parent, follow_symlinks=False)
        self.dropped_xattrs += len(member.xattrs)
        if member.kind != "symlink":
            os.chmod(name, member.mode, dir_fd=parent)
        os.utime(name, ns=(member.mtime, member.mtime), dir_fd=parent, follow_symlinks=False)

    def _owner(self, member: Member) -> tuple[int, int]:
        return self._owners.on_disk(member.uid), self._owners.on_disk(member.gid)

    def _set_xattr(self, fd: int, name: bytes, value: bytes) -> None:
        if name.startswith(_REFUSED):
            raise ImageError(
                f"its extended attribute {shown(name)} would act on the overlay that containers get",
                hint=f"Make the archive without it: tar --xattrs-exclude={shown(name)}",
            )
        kept: bytes | None = None
        if name == _CAPABILITY:
            kept = self._owners.capability(value)
        elif name.startswith(b"user."):
            kept = value
        if kept is None:
            self.dropped_xattrs += 1
            return
        if len(kept) > _LONGEST_XATTR:
            raise ImageError(f"its extended attribute {shown(name)} is {len(kept)} bytes long")
        os.setxattr(fd, name, kept)
