"""What is mounted where, as far as images need it. Source: proc(5), /proc/pid/mountinfo."""

from __future__ import annotations

import os
import re
from pathlib import Path

_ESCAPED = re.compile(r"\\([0-7]{3})")
_UNSUITABLE = ("nfs", "cifs", "smb", "fuse", "9p", "afs", "ceph", "virtiofs")
_NO_FILES = frozenset({"autofs", "proc", "sysfs", "devtmpfs", "devpts", "cgroup", "cgroup2", "mqueue", "nsfs", "bpf"})


def table() -> list[tuple[Path, str, str]]:
    """``(mount point, file system, "major:minor")`` of all mounts that the process sees, oldest first."""
    found = []
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            fields, _, rest = line.partition(" - ")
            columns = fields.split()
            point = _ESCAPED.sub(lambda match: chr(int(match[1], 8)), columns[4])
            found.append((Path(point), rest.split()[0], columns[2]))
    return found


def unsuitable_filesystem(path: Path) -> str | None:
    """The file system of ``path``, if another machine or process decides on its locks and owners."""
    device = os.stat(path).st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    for _, kind, mounted in table():
        if mounted == number and kind.startswith(_UNSUITABLE):
            return kind
    return None


def below(path: Path) -> list[Path]:
    """Directories below ``path`` on which files of another file system are mounted, parents first."""
    return sorted(
        {point for point, kind, _ in table() if path in point.parents and kind not in _NO_FILES and point.is_dir()}
    )
