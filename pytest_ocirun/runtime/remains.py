"""Removing what a container leaves behind: its cgroups and its state directory.

Used by delete, by the zygote when its client is gone, and by whoever cleans up after a killed run.
Trees are removed by directory fds and never through symlinks or across mounts (CVE-2017-1002102). Whatever is mounted
in a state directory is the root of a container without a mount namespace, and is detached, not entered. Where this
mount namespace does not have it but the host's does, the kernel detaches it there when its mount point is removed.
"""

from __future__ import annotations

import errno
import os

from pytest_ocirun.errors import Unsupported
from pytest_ocirun.linux.mount import MNT_DETACH, UMOUNT_NOFOLLOW, umount2
from pytest_ocirun.linux.paths import RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS, RESOLVE_NO_XDEV, openat2

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pytest_ocirun.runtime.cgroups import Cgroup


def remove(owned: dict[str, Any]) -> None:
    """Remove the cgroups and then the state directory of a container whose processes have ended.

    Args:
        owned: ``cgroups`` (paths as ``Cgroup.paths`` gives them, or null), ``shares_pids`` (whether it has no pid
            namespace of its own) and ``state`` (the directory).
    """
    if owned["cgroups"]:
        from pytest_ocirun.runtime.cgroups import Cgroup

        remove_cgroup(Cgroup.from_paths(owned["cgroups"]), shares_pids=owned["shares_pids"])
    remove_tree(owned["state"])


def shares_pids(document: dict[str, Any]) -> bool:
    """Whether the container of a state document has no pid namespace of its own."""
    namespaces = document.get("config", {}).get("linux", {}).get("namespaces", [])
    return not any(each["type"] == "pid" and not each.get("path") for each in namespaces)


def remove_cgroup(cgroup: Cgroup, *, shares_pids: bool) -> None:
    """Remove a cgroup whose init has ended.

    Args:
        cgroup: the cgroup.
        shares_pids: the container had no pid namespace of its own, so the end of its init ended nobody else.
    """
    if shares_pids:
        try:
            cgroup.kill()
        except Unsupported:
            pass  # it was there before the container, and what else lives in it is not ours
    cgroup.remove()


def remove_tree(path: str) -> None:
    """Remove a directory and all below it; nothing there is fine."""
    parent, name = os.path.split(path)
    try:
        above = os.open(parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        _remove(above, name)
    except FileNotFoundError:
        pass
    finally:
        os.close(above)


def _remove(above: int, name: str) -> None:
    fd = _open_unmounted(above, name)
    try:
        for entry in os.listdir(fd):
            try:
                os.unlink(entry, dir_fd=fd)
            except IsADirectoryError:
                _remove(fd, entry)
    finally:
        os.close(fd)
    os.rmdir(name, dir_fd=above)


def _open_unmounted(above: int, name: str) -> int:
    while True:
        try:
            resolve = RESOLVE_NO_XDEV | RESOLVE_NO_SYMLINKS | RESOLVE_BENEATH
            return openat2(above, name, os.O_RDONLY | os.O_DIRECTORY, resolve=resolve)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            umount2(f"/proc/self/fd/{above}/{name}", MNT_DETACH | UMOUNT_NOFOLLOW)
