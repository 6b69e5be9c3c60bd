"""User namespace id maps: writing them, and seeing host ids from where the spawner stands.

A config's ``hostID`` is an id of the user who runs ocirun. Without root the spawner lives in a user namespace that maps
its 0 to the caller, so a host id has to be expressed in that namespace before it is written. Source:
user_namespaces(7).
"""

from __future__ import annotations

import errno
import os

from pytest_ocirun.errors import ConfigError
from pytest_ocirun.runtime.stage import OUTER

_own_maps: dict[str, list[tuple[int, int, int]]] = {}


def own_map(kind: str) -> list[tuple[int, int, int]]:
    """The (inside, outside, count) rows of this process's own ``uid`` or ``gid`` map."""
    if kind not in _own_maps:
        with open(f"/proc/self/{kind}_map", "rb") as file:
            rows = [line.split() for line in file]
        _own_maps[kind] = [(int(a), int(b), int(c)) for a, b, c in rows]
    return _own_maps[kind]


def translate(kind: str, host_id: int) -> int:
    """The id by which this process knows the ``host_id`` of a config.

    That is the same, unless the process was moved into an outer namespace: who runs ocirun as root of a user namespace
    means the ids of that.

    Raises:
        OSError: EPERM, when the process has no name for it: it was not given that id.
    """
    if OUTER not in os.environ:
        return host_id
    for inside, outside, count in own_map(kind):
        if outside <= host_id < outside + count:
            return inside + host_id - outside
    raise OSError(errno.EPERM, f"{kind} {host_id} is not among the ids that this user may map")


def write_maps(pid: int, idmaps: list[list[list[int]]]) -> None:
    """Write [uid rows, gid rows] of (container id, host id, count) for the first process of a user namespace."""
    for kind, rows in zip(("uid", "gid"), idmaps, strict=True):
        lines = "".join(f"{inside} {translate(kind, outside)} {count}\n" for inside, outside, count in rows)
        fd = os.open(f"/proc/{pid}/{kind}_map", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, lines.encode())
        except OSError as error:
            raise OSError(error.errno, f"write {len(rows)} rows to its {kind}_map: {error.strerror}") from error
        finally:
            os.close(fd)


def host_id(rows: list[list[int]], inside: int) -> int:
    """The host's id for the container's id ``inside``.

    Raises:
        ConfigError: the maps do not hold it.
    """
    for first, outside, count in rows:
        if first <= inside < first + count:
            return outside + inside - first
    raise ConfigError(f"$.linux.uidMappings, gidMappings: the container's id {inside} is not mapped")


def setgroups_allowed() -> bool:
    """Whether setgroups(2) may work in this user namespace at all; not, as far as a root without a /proc can tell."""
    try:
        with open("/proc/self/setgroups", "rb") as file:
            return file.read().strip() == b"allow"
    except FileNotFoundError:
        return False
