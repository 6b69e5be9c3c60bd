"""From a config to the steps that make its root file system: the root itself, devices, links, masks, the pivot.

Pure, as ``plan`` is, of which this is the part that knows paths of the container. Must not know processes.
"""

from __future__ import annotations

from pytest_ocirun.errors import ConfigError
from pytest_ocirun.linux import mount as m
from pytest_ocirun.runtime.mount_plan import PROPAGATION, MountPlan

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pytest_ocirun.oci.runtime import Config
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


def prepare_root(
    config: Config, mounts: MountPlan, idmaps: list[list[list[int]]] | None, owner: tuple[int, int], bundle: str
) -> list[Step]:
    """The prepare steps of the root and of the mounts.

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
    # Device nodes of the image must not open devices; those of the runtime live on the mount at /dev.
    attributes = m.MOUNT_ATTR_NODEV if any(each.destination == "/dev" for each in config.mounts) else 0
    if OVERLAY not in config.annotations:
        if mounts.overlays:
            raise ConfigError(f"$.mounts: an overlay without upperdir needs the annotation {OVERLAY}")
        return [["clone_tree", "root", path, True, attributes, 0, 0, root_maps], *mounts.prepare]
    size, inodes = overlay_limits(config.annotations[OVERLAY])
    return [
        ["upper_tmpfs", size, inodes, *owner],
        ["overlay", "root", path, 0, *owner, attributes, root_maps],
        *mounts.prepare,
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


def root_steps(config: Config, mounts: MountPlan, *, in_user_namespace: bool) -> list[Step]:
    """The enter steps from cut propagation to the pivot. Source: runtime-spec config-linux, "Default Devices".

    Args:
        config: the container's.
        mounts: its mounts, planned.
        in_user_namespace: whether it has a user namespace, new or joined.
    """
    linux = config.linux
    if not linux.namespace("mount"):
        raise ConfigError("$.linux.namespaces: a container without a mount namespace of its own is not supported")
    wanted = PROPAGATION.get(linux.rootfs_propagation, m.MS_PRIVATE | m.MS_REC)
    steps: list[Step] = [["propagation", wanted], ["attach_root", "root", 0], *mounts.enter]
    for name, major, minor in DEVICES:
        if in_user_namespace:
            steps.append(["bind_device", f"/dev/{name}", f"/dev/{name}"])
        else:
            steps.append(["make_device", f"/dev/{name}", "c", major, minor, 0o666, 0, 0])
    for device in linux.devices:
        if in_user_namespace:
            steps.append(["bind_device", device.path, device.path])
        else:
            mode = 0o666 if device.file_mode is None else device.file_mode & 0o7777
            numbers = (device.major or 0, device.minor or 0)
            steps.append(["make_device", device.path, device.type, *numbers, mode, device.uid or 0, device.gid or 0])
    steps += [["symlink", path, target] for path, target in _LINKS]
    if config.process.terminal:
        size = config.process.console_size
        steps.append(["open_console", size.height if size else 0, size.width if size else 0, config.process.user.uid])
        steps.append(["bind_console", "/dev/console"])
    steps += [["read_only", path] for path in linux.readonly_paths]
    steps += [["mask", path] for path in linux.masked_paths]
    steps.append(["make_place", config.process.cwd])
    if config.root.readonly:
        steps.append(["root_read_only"])
    return [*steps, ["pivot"]]
