"""From a request to an OCI config: the defaults for code that is not trusted.

It reads nothing but who owns the directories that are shown.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from pytest_ocirun.errors import ConfigError
from pytest_ocirun.oci.process import Process, User
from pytest_ocirun.oci.runtime import CPU, Config, IDMapping, Linux, Memory, Mount, Pids, Resources, Root
from pytest_ocirun.runtime import defaults
from pytest_ocirun.runtime.root_plan import IDMAP, OVERLAY

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_ocirun.engine.request import Request
    from pytest_ocirun.oci.runtime import Seccomp

_CPU_PERIOD = 100_000
_BYTES_PER_INODE = 4096
_SCRATCH = (("/tmp", "mode=1777"), ("/var/tmp", "mode=1777"), ("/run", "mode=755"), ("/root", "mode=700"))
_SAFE = ("nosuid", "nodev")
# In a user namespace a mount with others below it can only be copied whole: they are locked to it.
_SAFE_TREE = ("rbind", "rro", "rnosuid", "rnodev")


def build(request: Request, mapping: IDMapping, seccomp: Seccomp, can_map: Callable[[str], bool]) -> Config:
    """The config of the container that ``request`` describes.

    Args:
        request: what is wanted.
        mapping: which host ids its uids and gids are.
        seccomp: the system call filter; the same object for every container, so that it is compiled once.
        can_map: whether the file system of a path can be idmapped; files of one that cannot show as nobody's.
    """
    image = request.image
    several = mapping.size > 1
    config = Config(
        oci_version=defaults.OCI_VERSION,
        root=Root(path=str(image.rootfs)),
        hostname=request.hostname,
        process=Process(
            user=User(uid=request.user[0], gid=request.user[1]),
            args=list(request.args) or ["ocirun-holder"],
            env=[f"{name}={value}" for name, value in request.env.items()],
            cwd=request.cwd,
        ),
        annotations={
            OVERLAY: f"size={request.limits.disk},inodes={max(request.limits.disk // _BYTES_PER_INODE, 1024)}"
        },
        linux=Linux(resources=resources(request)),
    )
    if several and image.owners == "real":
        config.annotations[IDMAP] = "root"
    defaults.confine(config, [mapping], [mapping], seccomp)
    config.root.readonly = not request.writable_root
    config.mounts = [*_system_mounts(rootless=not several), *_mounts(request, mapping, can_map)]
    return config


def resources(request: Request) -> Resources:
    """The cgroup limits that ``request`` asks for."""
    limits = request.limits
    cpu = CPU()
    if limits.cpus is not None:
        cpu = CPU(quota=int(limits.cpus * _CPU_PERIOD), period=_CPU_PERIOD)
    return Resources(memory=Memory(limit=limits.memory), pids=Pids(limit=limits.pids), cpu=cpu)


def _system_mounts(*, rootless: bool) -> list[Mount]:
    mounts = [mount for mount in defaults.default_mounts() if mount.type != "cgroup"]
    for mount in mounts:
        if rootless and mount.type == "devpts":
            mount.options.remove("gid=5")
    return mounts


def _mounts(request: Request, mapping: IDMapping, can_map: Callable[[str], bool]) -> list[Mount]:
    idmapped = mapping.size > 1

    def owned(mount: Mount) -> Mount:
        return _owned(mount, mapping) if idmapped and can_map(mount.source) else mount

    mounts = []
    for place in request.image.mounts:
        mount = _bind(str(place.source), place.destination, ["bind", "ro", *_SAFE] if idmapped else [*_SAFE_TREE])
        mounts.append(owned(mount) if place.idmap else mount)
    if not request.writable_root:
        mounts += [Mount(destination=path, type="overlay", options=[mode, *_SAFE]) for path, mode in _SCRATCH]
    for path in request.overlays:
        mount = Mount(destination=str(path), type="overlay", source=str(path), options=[f"lowerdir={path}", *_SAFE])
        mounts.append(owned(mount))
    for bind in request.binds:
        options = ["bind" if idmapped else "rbind", "ro" if bind.readonly else "rw", *_SAFE]
        mount = _bind(str(bind.source), bind.destination, options)
        mounts.append(owned(mount) if bind.idmap else mount)
    return sorted(mounts, key=lambda mount: mount.destination.count("/") if mount.destination != "/" else 0)


def _bind(source: str, destination: str, options: list[str]) -> Mount:
    return Mount(destination=destination, type="bind", source=source, options=options)


def _owned(mount: Mount, mapping: IDMapping) -> Mount:
    """Show the owner of the mount's source as the container's root: it has no capability to get round permissions."""
    mount.options.append("idmap")
    try:
        found = os.stat(mount.source)
    except OSError as error:
        raise ConfigError(f"mount {mount.source} in the container: {error.strerror}") from error
    if (found.st_uid, found.st_gid) != (0, 0):
        mount.uid_mappings = _swapped(found.st_uid, mapping)
        mount.gid_mappings = _swapped(found.st_gid, mapping)
    return mount


def _swapped(owner: int, mapping: IDMapping) -> list[IDMapping]:
    """The mapping, but with 0 and ``owner`` in each other's place; an owner beyond the range takes that of 0."""
    first, size = mapping.host_id, mapping.size
    rows = [(owner, first, 1)]
    if 0 < owner < size:
        rows += [(0, first + owner, 1), (1, first + 1, owner - 1), (owner + 1, first + owner + 1, size - owner - 1)]
    else:
        rows.append((1, first + 1, size - 1))
    return [IDMapping(container_id=a, host_id=b, size=count) for a, b, count in rows if count]
