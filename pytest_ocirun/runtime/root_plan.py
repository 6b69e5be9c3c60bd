"""From a config to the steps that make its root file system: the root itself, devices, links, masks, the pivot.

Pure, as ``plan`` is, of which this is the part that knows paths of the container. Must not know processes.
"""

from __future__ import annotations

from pytest_ocirun.errors import ConfigError
from pytest_ocirun.linux import mount as m
from pytest_ocirun.runtime.idmap import host_id
from pytest_ocirun.runtime.mount_options import PROPAGATIONS
from pytest_ocirun.runtime.mount_plan import JOINED, MountPlan, is_bind

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pytest_ocirun.oci.runtime import Config, Device, Mount
    from pytest_ocirun.runtime.steps import Step

OVERLAY = "org.ocirun.overlay"
IDMAP = "org.ocirun.idmap"

DEVICES = (("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0))
_LINKS = (
    ("/dev/fd", "/proc/self/fd"),
    ("/dev/stdin", "/proc/self/fd/0"),
    ("/dev/stdout", "/proc/self/fd/1"),
    ("/dev/stderr", "/proc/self/fd/2"),
    ("/dev/ptmx", "pts/ptmx"),
)
_PTMX = "/dev/ptmx"


def plan_mounts(
    config: Config, bundle: str, idmaps: list[list[list[int]]] | None, owner: tuple[int, int], cgroups: list[list[str]]
) -> MountPlan:
    """The mounts of a config, planned.

    Args:
        config: the container's.
        bundle: absolute path of the bundle.
        idmaps: [uid rows, gid rows] of a new user namespace, or None.
        owner: (uid, gid) on the host of the container's root.
        cgroups: what a cgroup mount shows.

    Raises:
        ConfigError: a mount makes no sense.
    """
    wanted = config.linux.rootfs_propagation
    joined, mounts = config.linux.namespace("user"), config.linux.namespace("mount")
    return MountPlan(
        config.mounts,
        bundle=bundle,
        idmaps=idmaps or (JOINED if joined else None),
        owner=owner,
        cgroups=cgroups,
        bounded=OVERLAY in config.annotations,
        # The kernel makes every mount that a user namespace inherits a slave, so that none of it reaches the host.
        peers=wanted in ("shared", "rshared") and joined is None,
        in_order=joined is None and mounts is not None and not mounts.path,
        propagation=m.MS_PRIVATE | m.MS_REC if wanted == "rprivate" else 0,
    )


def prepare_root(
    config: Config, mounts: MountPlan, idmaps: list[list[list[int]]] | None, owner: tuple[int, int], bundle: str
) -> list[Step]:
    """The prepare steps of the root, of the mounts and of device nodes.

    Args:
        config: the container's.
        mounts: its mounts, planned.
        idmaps: [uid rows, gid rows] of a new user namespace, or None.
        owner: (uid, gid) on the host of the container's root.
        bundle: absolute path of the bundle.

    Raises:
        ConfigError: an annotation makes no sense.
    """
    path = root_path(config, bundle)
    root_maps = None
    if config.annotations.get(IDMAP):
        if config.annotations[IDMAP] != "root" or idmaps is None:
            raise ConfigError(f"$.annotations[{IDMAP!r}]: takes 'root', and needs a new user namespace with mappings")
        root_maps = idmaps
    attributes = m.MOUNT_ATTR_NODEV if _root_opens_no_devices(config) else 0
    nodes = _prepared_devices(config, idmaps) if config.linux.devices and config.linux.namespace("user") else []
    if OVERLAY not in config.annotations:
        mapped = [root_maps, False] if root_maps else None
        return [["clone_tree", "root", path, True, attributes, 0, 0, 0, mapped], *mounts.prepare, *nodes]
    size, inodes = overlay_limits(config.annotations[OVERLAY])
    return [
        ["upper_tmpfs", size, inodes, *owner],
        ["overlay", "root", path, 0, *owner, attributes, root_maps],
        *mounts.prepare,
        *nodes,
        ["drop_upper"],
    ]


def root_path(config: Config, bundle: str) -> str:
    """The absolute path of the root file system."""
    return config.root.path if config.root.path.startswith("/") else f"{bundle}/{config.root.path}"


def overlay_limits(text: str) -> tuple[int, int]:
    """(bytes, inodes) of an overlay annotation ``size=BYTES,inodes=N``.

    Raises:
        ConfigError: it has another form.
    """
    try:
        values = {key: int(value) for key, value in (item.split("=") for item in text.split(","))}
        return values.pop("size"), values.pop("inodes")
    except (ValueError, KeyError):
        raise ConfigError(f"$.annotations[{OVERLAY!r}]: expected 'size=BYTES,inodes=N', got {text!r}") from None


def root_steps(config: Config, mounts: MountPlan) -> list[Step]:
    """The enter steps from cut propagation to the pivot. Source: runtime-spec config-linux, "Default Devices".

    Args:
        config: the container's.
        mounts: its mounts, planned.
    """
    linux = config.linux
    wanted = PROPAGATIONS.get(linux.rootfs_propagation, 0)
    # A slave stays one of the host's mounts, as the spawner's copy is; whatever else is asked for begins as private.
    cut = 0 if not wanted or wanted & m.MS_SLAVE else m.MS_PRIVATE | wanted & m.MS_REC
    steps: list[Step] = [["propagation", m.MS_SLAVE | m.MS_REC], ["attach_root", "root", cut], *mounts.enter]
    brings_dev = _brings_dev(config)
    steps += [*_devices(config, defaults=not brings_dev)]
    if not brings_dev:
        steps += [["symlink", path, target, path == _PTMX] for path, target in _LINKS]
    if config.process.terminal:
        size = config.process.console_size
        steps.append(["open_console", size.height if size else 0, size.width if size else 0, config.process.user.uid])
        steps.append(["bind_console", "/dev/console"])
    steps.append(["make_place", config.process.cwd])
    if mounts.seals:
        steps.append(["seal"])
    steps += [["read_only", path] for path in linux.readonly_paths]
    steps += [["mask", path] for path in linux.masked_paths]
    if config.root.readonly:
        steps.append(["root_read_only"])
    if linux.namespace("mount") is None:
        steps = [*_in_the_hosts(steps, wanted), ["change_root"]]
    else:
        steps.append(["pivot"])
    if wanted & (m.MS_SHARED | m.MS_UNBINDABLE):
        steps.append(["propagation", wanted])  # pivot_root takes neither a shared nor an unbindable root
    return steps


def _in_the_hosts(steps: list[Step], wanted: int) -> list[Step]:
    """The steps in the runtime's own mount namespace: nothing of the host is changed, and nothing reaches others."""
    attach: Step = ["attach_root", "root", m.MS_REC | (wanted & m.MS_SLAVE or m.MS_PRIVATE), ""]
    return [["enter_host_mounts"], attach, *steps[2:]]


def _devices(config: Config, *, defaults: bool) -> list[Step]:
    """The nodes of the specification, unless /dev is the host's, and those of the config."""
    in_user_namespace = config.linux.namespace("user") is not None
    given = _given_devices(config)
    paths = {device.path for _index, device in given}
    steps: list[Step] = []
    for name, major, minor in DEVICES if defaults else ():
        if f"/dev/{name}" in paths:
            continue
        if in_user_namespace:
            steps.append(["bind_device", f"/dev/{name}", f"/dev/{name}"])
        else:
            steps.append(["make_device", f"/dev/{name}", "c", major, minor, 0o666, 0, 0])
    for index, device in given:
        if in_user_namespace and device.type != "p":
            steps.append(["attach_device", f"device{index}", device.path])
        else:
            steps.append(["make_device", device.path, *_node(device), device.uid or 0, device.gid or 0])
    return steps


def _prepared_devices(config: Config, idmaps: list[list[list[int]]] | None) -> list[Step]:
    """In a user namespace nodes cannot be made, so the spawner makes them; one that is joined has unknown owners."""
    steps: list[Step] = []
    for index, device in _given_devices(config):
        if device.type != "p":
            owner = (
                [host_id(rows, inside or 0) for rows, inside in zip(idmaps, (device.uid, device.gid), strict=True)]
                if idmaps
                else None
            )
            steps.append(["device_node", f"device{index}", device.path, *_node(device), owner])
    return steps


def _given_devices(config: Config) -> list[tuple[int, Device]]:
    """The config's devices that are to be made, each with its place in the list.

    Not those below a /dev that is bound: who binds it brings them, and they would be made on the host. Not ptmx: it is
    the terminals' own. Both as with runc.
    """
    brought = _brings_dev(config)
    return [
        (index, device)
        for index, device in enumerate(config.linux.devices)
        if not (brought and device.path.startswith("/dev/")) and (brought or device.path != _PTMX)
    ]


def _brings_dev(config: Config) -> bool:
    return any(_is_dev(mount) and is_bind(mount) for mount in config.mounts)


def _node(device: Device) -> list[Any]:
    mode = 0o666 if device.file_mode is None else device.file_mode & 0o7777
    return ["c" if device.type == "u" else device.type, device.major or 0, device.minor or 0, mode]


def _root_opens_no_devices(config: Config) -> bool:
    """Nodes of the image must not open devices; those of the runtime live on the mount at /dev.

    Unless the config itself puts one elsewhere, or lets the container make some.
    """
    if not any(_is_dev(mount) for mount in config.mounts):
        return False
    if any(not device.path.startswith("/dev/") for device in config.linux.devices):
        return False
    sets = config.process.capabilities
    return sets is None or "CAP_MKNOD" not in sets.bounding or config.linux.namespace("user") is not None


def _is_dev(mount: Mount) -> bool:
    return mount.destination.strip("/") == "dev"
