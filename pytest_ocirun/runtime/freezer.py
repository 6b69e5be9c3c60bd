"""Whether a container's cgroup is frozen, by the freezer's own file.

Responsible for reading it cheaply: every status depends on it. Must not know how cgroups are made or frozen. Where a
v2 tree is mounted, alone or beside v1, the file is ``cgroup.freeze``, and what it holds can still be killed; otherwise
it is v1's ``freezer.state``, where a SIGKILL waits for the thaw. Sources: cgroup-v2.rst and freezer-subsystem.rst.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Paths = dict[str, Any]
    """As ``Cgroup.paths`` gives them."""


def is_frozen(paths: Paths | None) -> bool:
    """Whether a cgroup is frozen; no cgroup is not."""
    if not paths:
        return False
    dirs = paths["dirs"]
    if not holds_killed(paths):
        return "unified" in dirs and _read(f"{dirs['unified']}/cgroup.freeze") == b"1\n"
    return _read(f"{dirs['freezer']}/freezer.state") in (b"FROZEN\n", b"FREEZING\n")


def holds_killed(paths: Paths) -> bool:
    """Whether it is v1's freezer, in which a process does not even die."""
    return "freezer" in paths["dirs"] and paths.get("tracker") != "unified"


def _read(path: str) -> bytes:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return b""
    try:
        return os.read(fd, 64)
    except OSError:
        return b""
    finally:
        os.close(fd)
