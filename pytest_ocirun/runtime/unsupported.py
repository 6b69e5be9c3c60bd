"""What this version does not act on yet, so refuses.

Responsible for: the one table that says so; when the runtime learns something, its line goes. Must not know:
what is valid (``runtime.validate``). A property that is merely ignored is worse than a refusal: who asked for
it believes that it holds.
"""

from __future__ import annotations

import os
import stat

from pytest_ocirun.errors import Unsupported
from pytest_ocirun.oci.codec import Document, fields

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from pytest_ocirun.oci.runtime import Config, Device, Mount

CONFIG = """
    mounts[].uid_mappings mounts[].gid_mappings
    linux.intel_rdt linux.resources.block_io
    linux.resources.hugepage_limits linux.resources.rdma linux.resources.network linux.resources.unified
    linux.resources.memory.kernel linux.resources.memory.kernel_tcp linux.resources.memory.swappiness
    linux.resources.memory.disable_oom_killer linux.resources.cpu.burst linux.resources.cpu.realtime_runtime
    linux.resources.cpu.realtime_period linux.resources.cpu.idle
"""
"""Attributes of a configuration that must be absent; ``[]`` stands for each item of a list."""

WORDS = (
    ("linux.devices[].type", "u", "give the same device as type c"),
    ("linux.rootfs_propagation", "shared", "use slave, or private"),
    ("linux.rootfs_propagation", "rshared", "use rslave, or rprivate"),
    ("linux.rootfs_propagation", "unbindable", "use private"),
    ("linux.rootfs_propagation", "runbindable", "use rprivate"),
)
"""Values that an attribute must not have, and what to do instead."""

MOUNT_OPTIONS = ("remount", "tmpcopyup", "copy-symlink", "src-nofollow", "dest-nofollow", "iversion", "noiversion")
"""Mount options of other runtimes or of mount(8) that would otherwise go to the file system as data."""

RECURSIVE_CLEARING = ("rrw", "rsuid", "rdev", "rexec", "ratime", "rdiratime", "rsymfollow")
RECURSIVE_SETTING = (
    *("rro", "rnosuid", "rnodev", "rnoexec", "rnoatime", "rrelatime", "rstrictatime"),
    *("rnodiratime", "rnosymfollow"),
)
"""Options that set attributes of a whole tree of mounts: only a bind has one."""

_ABSENT: tuple[object, ...] = (None, "", [], {})


def refuse_unsupported(config: Config) -> None:
    """Raise for the first property that would not be acted on.

    Args:
        config: a valid configuration.

    Raises:
        Unsupported: the message begins with the property's path.
    """
    for attribute in CONFIG.split():
        _refuse_present(config, attribute, "$")
    for attribute, word, advice in WORDS:
        for path, value in select(config, attribute):
            if value == word:
                raise Unsupported(f"{path}: {word!r} is not supported", hint=advice)
    if config.linux.namespace("mount") is None:
        raise Unsupported("$.linux.namespaces: a container in the runtime's own mount namespace is not supported")
    for index, mount in enumerate(config.mounts):
        _refuse_mount(mount, f"$.mounts[{index}]")
    _refuse_devices(config)


def select(document: Document, attribute: str, path: str = "$") -> Iterator[tuple[str, object]]:
    """Yield the present values of an attribute such as ``process.rlimits[].soft``, each with its path.

    Args:
        document: where the first name is an attribute.
        attribute: names joined by dots; ``[]`` after one stands for each item of a list.
        path: where the document lies.
    """
    names, each, rest = attribute.partition("[]")
    value: Any = document
    for name in names.split("."):
        value = getattr(value, name)
        if value in _ABSENT:
            return
    place = _place(document, names, path)
    if not each:
        yield place, value
        return
    for index, item in enumerate(value):
        if rest:
            yield from select(item, rest[1:], f"{place}[{index}]")
        else:
            yield f"{place}[{index}]", item


def _place(document: Document, names: str, path: str) -> str:
    for name in names.split("."):
        path = f"{path}.{next(field.key for field in fields(type(document)) if field.name == name)}"
        document = getattr(document, name)
    return path


def _refuse_present(document: Document, attribute: str, path: str) -> None:
    for place, _value in select(document, attribute, path):
        raise Unsupported(f"{place}: not supported yet", hint="remove it, or use another OCI runtime")


def _refuse_mount(mount: Mount, path: str) -> None:
    options = set(mount.options)
    bind = mount.type in ("bind", "none") or not options.isdisjoint(("bind", "rbind"))
    refused = options.intersection((*MOUNT_OPTIONS, *RECURSIVE_CLEARING, *(() if bind else RECURSIVE_SETTING)))
    if not bind and mount.type != "overlay":
        refused |= options.intersection(("idmap", "ridmap"))
    if refused:
        names = ", ".join(sorted(refused))
        raise Unsupported(f"{path}.options: not supported for {mount.type or 'bind'} mounts: {names}")


def _refuse_devices(config: Config) -> None:
    """In a user namespace nodes cannot be made, so the host's are bound: they must be the same device."""
    if config.linux.namespace("user") is None:
        return
    for index, device in enumerate(config.linux.devices):
        if not _host_has(device):
            raise Unsupported(
                f"$.linux.devices[{index}]: the host's {device.path} is not the device "
                f"{device.type} {device.major}:{device.minor}",
                hint="in a user namespace only devices that the host has at the same path can be given",
            )


def _host_has(device: Device) -> bool:
    try:
        found = os.stat(device.path)
    except OSError:
        return False
    kinds = {"c": stat.S_IFCHR, "b": stat.S_IFBLK}
    numbers = (os.major(found.st_rdev), os.minor(found.st_rdev))
    return stat.S_IFMT(found.st_mode) == kinds.get(device.type) and numbers == (device.major, device.minor)
