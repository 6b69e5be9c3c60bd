"""From a request to an OCI config: the defaults for code that is not trusted. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_ocirun.oci.process import Process, User
from pytest_ocirun.oci.runtime import CPU, Config, IDMapping, Linux, Memory, Mount, Pids, Resources, Root
from pytest_ocirun.runtime import defaults
from pytest_ocirun.runtime.plan import IDMAP, OVERLAY

if TYPE_CHECKING:
    from pytest_ocirun.engine.request import Request
    from pytest_ocirun.oci.runtime import Seccomp

_CPU_PERIOD = 100_000
_BYTES_PER_INODE = 4096
_SCRATCH = (("/tmp", "mode=1777"), ("/var/tmp", "mode=1777"), ("/run", "mode=755"), ("/root", "mode=700"))
_SAFE = ("nosuid", "nodev")
# In a user namespace a mount with others below it can only be copied whole: they are locked to it.
_SAFE_TREE = ("rbind", "rro", "rnosuid", "rnodev")


def build(request: Request, mapping: IDMapping, seccomp: Seccomp) -> Config:
    """The config of the container that ``request`` describes.

    Args:
        request: what is wanted.
        mapping: which host ids its uids and gids are.
        seccomp: the system call filter; the same object for every container, so that it is compiled once.
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
    config.mounts = [*_system_mounts(rootless=not several), *_mounts(request, idmapped=several)]
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


def _mounts(request: Request, *, idmapped: bool) -> list[Mount]:
    idmap = ["idmap"] if idmapped else []
    mounts = []
    for place in request.image.mounts:
        options = ["bind", "ro", *_SAFE, *(idmap if place.idmap else [])] if idmapped else list(_SAFE_TREE)
        mounts.append(_bind(str(place.source), place.destination, options))
    if not request.writable_root:
        mounts += [Mount(destination=path, type="overlay", options=[mode, *_SAFE]) for path, mode in _SCRATCH]
    for path in request.overlays:
        options = [f"lowerdir={path}", *_SAFE, *idmap]
        mounts.append(Mount(destination=str(path), type="overlay", options=options))
    for bind in request.binds:
        options = ["bind" if idmapped else "rbind", "ro" if bind.readonly else "rw", *_SAFE]
        options += idmap if bind.idmap else []
        mounts.append(_bind(str(bind.source), bind.destination, options))
    return sorted(mounts, key=lambda mount: mount.destination.count("/") if mount.destination != "/" else 0)


def _bind(source: str, destination: str, options: list[str]) -> Mount:
    return Mount(destination=destination, type="bind", source=source, options=options)
