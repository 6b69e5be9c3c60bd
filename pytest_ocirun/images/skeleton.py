"""A small root file system made of directories, links and a few copied files.

Responsible for the description of such a tree and for writing it. Must not know what it is for. Paths are
those inside, absolute, and no parent of one may be a link.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_ocirun.images.owners import Owners

_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(slots=True)
class Skeleton:
    """What there is to make: directories with modes, links with targets, files with content and mode."""

    directories: dict[str, int] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    files: dict[str, tuple[bytes, int]] = field(default_factory=dict)

    def add_directory(self, path: str, mode: int = 0o755) -> None:
        """A directory, and its parents as 0755; one that is there already keeps its mode."""
        self.add_parents(path)
        self.directories.setdefault(path, mode)

    def add_parents(self, path: str) -> None:
        """The parents of ``path``, as 0755 where they are new."""
        parent = os.path.dirname(path)
        while parent != "/" and parent not in self.directories:
            self.directories[parent] = 0o755
            parent = os.path.dirname(parent)

    def add_link(self, path: str, target: str) -> None:
        """A symbolic link, and its parents."""
        self.add_parents(path)
        self.links[path] = target

    def add_file(self, path: str, content: bytes, mode: int = 0o644) -> None:
        """A file, and its parents."""
        self.add_parents(path)
        self.files[path] = (content, mode)

    def digest(self) -> str:
        """Hex digits that are the same for the same tree and no other."""
        parts = (sorted(self.directories.items()), sorted(self.links.items()), sorted(self.files.items()))
        return hashlib.sha256(repr(parts).encode("utf-8", "surrogateescape")).hexdigest()

    def write(self, root: int, owners: Owners) -> None:
        """Make it all below the empty directory ``root``; everything belongs to the image's uid 0.

        Raises:
            OSError: something cannot be made.
        """
        for path in sorted(self.directories):
            os.mkdir(path[1:], 0o700, dir_fd=root)
        for path, target in self.links.items():
            os.symlink(target, path[1:], dir_fd=root)
        for path, (content, mode) in self.files.items():
            fd = os.open(path[1:], _CREATE, 0o600, dir_fd=root)
            with os.fdopen(fd, "wb") as file:
                file.write(content)
                os.fchmod(fd, mode)
        os.fchmod(root, 0o755)
        for path, mode in self.directories.items():
            os.chmod(path[1:], mode, dir_fd=root)
        if owners.changes:
            owner = owners.on_disk(0)
            os.fchown(root, owner, owner)
            for path in (*self.directories, *self.links, *self.files):
                os.chown(path[1:], owner, owner, dir_fd=root, follow_symlinks=False)
