"""Whether mounts and devices make sense: their own values, and which option goes with which kind.

Pure. Must not know how they are carried out, nor the rest of the configuration's checks (``runtime.validate``).
"""

from __future__ import annotations

import os

from pytest_ocirun.errors import ConfigError
from pytest_ocirun.runtime.mount_options import Options
from pytest_ocirun.runtime.mount_plan import is_bind
from pytest_ocirun.runtime.validate_process import ID, one_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pytest_ocirun.oci.runtime import Config, IDMapping, Mount

_PARTICULAR = frozenset(("tmpcopyup", "idmap", "ridmap", "remount"))
"""Options that not every kind of mount takes."""

DEVICE_TYPES = ("c", "u", "b", "p")

PROC_ALLOWED = (
    *("/proc/cpuinfo", "/proc/diskstats", "/proc/loadavg", "/proc/meminfo", "/proc/slabinfo", "/proc/stat"),
    *("/proc/swaps", "/proc/uptime", "/proc/sys/kernel/ns_last_pid", "/proc/sys/crypto/fips_enabled"),
)
"""Files of /proc that lxcfs and its like may cover, as in runc; elsewhere mounts could deceive us."""


def check_mounts(config: Config) -> None:
    """Check ``$.mounts``.

    Raises:
        ConfigError: the first mount that makes no sense.
    """
    for index, mount in enumerate(config.mounts):
        where = f"$.mounts[{index}]"
        _check_destination(mount, where)
        if not mount.type and not is_bind(mount) and "remount" not in mount.options:
            raise ConfigError(f"{where}.type: missing, and the options name no bind")
        if is_bind(mount) and not mount.source:
            raise ConfigError(f"{where}.source: a bind mount needs a source")
        if not _PARTICULAR.isdisjoint(mount.options):
            _check_options(mount, where)
        if mount.uid_mappings or mount.gid_mappings:
            _check_mappings(mount, where)


def _check_destination(mount: Mount, where: str) -> None:
    destination = os.path.normpath("/" + mount.destination.lstrip("/"))
    if not mount.destination or destination == "/":
        raise ConfigError(f"{where}.destination: must name a place below the root, got {mount.destination!r}")
    below_proc = destination.startswith("/proc/") and destination not in PROC_ALLOWED
    if below_proc or (destination == "/proc" and mount.type != "proc" and not is_bind(mount)):
        raise ConfigError(
            f"{where}.destination: {destination} must not be covered: the runtime trusts what is there",
            hint=f"allowed are proc itself at /proc, and {', '.join(PROC_ALLOWED)}",
        )


def _check_options(mount: Mount, where: str) -> None:
    options = Options(mount.options)
    if options.copy_up and (mount.type != "tmpfs" or is_bind(mount)):
        raise ConfigError(f"{where}.options: tmpcopyup is for a tmpfs, not for {mount.type or 'a bind'}")
    if options.idmap and not is_bind(mount) and mount.type != "overlay":
        raise ConfigError(
            f"{where}.options: {options.idmap} is for a bind: the owners of a new {mount.type} are the container's"
        )
    if options.remount and not is_bind(mount) and options.data:
        names = ", ".join(options.data)
        raise ConfigError(f"{where}.options: a remount changes the mount alone, not its file system, so not: {names}")


def _check_mappings(mount: Mount, where: str) -> None:
    if not is_bind(mount):
        raise ConfigError(f"{where}.uidMappings: only a bind takes mappings, got type {mount.type!r}")
    for name, mappings, other in (
        ("uidMappings", mount.uid_mappings, "gidMappings"),
        ("gidMappings", mount.gid_mappings, "uidMappings"),
    ):
        if not mappings:
            raise ConfigError(f"{where}.{name}: missing, beside {other}")
        check_mapping_rows(mappings, f"{where}.{name}")


def mount_warnings(config: Config) -> list[str]:
    """What is odd about the mounts but to be carried on with, as runc does."""
    warnings = []
    for index, mount in enumerate(config.mounts):
        if not mount.destination.startswith("/"):
            warnings.append(
                f"$.mounts[{index}].destination: {mount.destination!r} is not absolute; taken from the root"
            )
        if is_bind(mount) and (data := Options(mount.options).data):
            warnings.append(f"$.mounts[{index}].options: a bind makes no file system; left out: {', '.join(data)}")
    return warnings


def check_mapping_rows(mappings: list[IDMapping], path: str) -> None:
    """Check that the rows of an id mapping leave each id one meaning. Source: user_namespaces(7).

    Args:
        mappings: the rows.
        path: where they are in the document.

    Raises:
        ConfigError: two rows overlap, or one goes beyond the last id.
    """
    for side in ("container_id", "host_id"):
        end, before = 0, -1
        for index, mapping in sorted(enumerate(mappings), key=lambda pair: int(getattr(pair[1], side))):
            first: int = getattr(mapping, side)
            where = f"{path}[{index}]"
            if before >= 0 and first < end:
                raise ConfigError(f"{where}: overlaps with {path}[{before}] in its {side.replace('_id', ' ids')}")
            end, before = first + mapping.size, index
            if end > ID[1] + 1:
                raise ConfigError(f"{where}.size: {first} + {mapping.size} goes beyond the last id, {ID[1]}")


def check_devices(config: Config) -> None:
    """Check ``$.linux.devices``.

    Raises:
        ConfigError: the first device that makes no sense.
    """
    for index, device in enumerate(config.linux.devices):
        where = f"$.linux.devices[{index}]"
        one_of(device.type, DEVICE_TYPES, f"{where}.type")
        if not device.path.startswith("/") or ".." in device.path.split("/"):
            raise ConfigError(f"{where}.path: must be absolute and without '..', got {device.path!r}")
        if device.type != "p" and (device.major is None or device.minor is None):
            raise ConfigError(f"{where}: a device of type {device.type} needs major and minor")
