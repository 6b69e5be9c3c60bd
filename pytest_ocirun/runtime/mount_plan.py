"""From the mounts of a config to steps: sources to detached mounts, and where they go.

Pure: it reads nothing of the system. Sources: runtime-spec config.md "Mounts", mount(8).
"""

from __future__ import annotations

import os

from pytest_ocirun.errors import ConfigError
from pytest_ocirun.linux import mount as m
from pytest_ocirun.runtime.mount_options import Options

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pytest_ocirun.oci.runtime import Mount
    from pytest_ocirun.runtime.steps import Step

BIND = "bind"
MOUNT = "mount"
LINK = "link"
"""How a cgroup hierarchy is shown: ``cgroup_view``."""

JOINED = "ns-user"
"""The slot of a user namespace that is joined: it has the maps."""


def is_bind(mount: Mount) -> bool:
    """Whether a mount shows what is there already; some tools say so by its type alone, others by an option."""
    return mount.type in ("bind", "none") or "bind" in mount.options or "rbind" in mount.options


class MountPlan:
    """The steps for a list of mounts.

    Args:
        mounts: in the config's order.
        bundle: absolute path that relative sources start from.
        idmaps: [uid rows, gid rows] of the container's new user namespace, ``JOINED``, or None without one.
        owner: (uid, gid) on the host of the container's root.
        cgroups: what a cgroup mount shows, as ``cgroup_view.hierarchies`` says.
        bounded: the root is an overlay on a bounded tmpfs, where overlays without an upper directory get one.
        peers: binds stay in the peer groups of the host's mounts.
        in_order: the child itself makes the binds, having the rights and the sight: then mountinfo, which the kernel
            sorts by the time of making, shows all mounts in the config's order.
        propagation: of binds that name none, MS_* or 0.
    """

    def __init__(
        self,
        mounts: list[Mount],
        *,
        bundle: str,
        idmaps: list[list[list[int]]] | str | None,
        owner: tuple[int, int],
        cgroups: list[list[str]],
        bounded: bool = False,
        peers: bool = False,
        in_order: bool = False,
        propagation: int = 0,
    ) -> None:
        self.prepare: list[Step] = []
        self.enter: list[Step] = []
        self.seals = False
        self._overlays = 0
        self._bundle = bundle
        self._idmaps = idmaps
        self._owner = owner
        self._cgroups = cgroups
        self._bounded = bounded
        self._clone = "clone_peers" if peers else "clone_tree"
        self._in_order = in_order and not peers
        self._propagation = [propagation] if propagation else []
        for index, mount in enumerate(mounts):
            self._mount(index, mount)

    def _mount(self, index: int, mount: Mount) -> None:
        options = Options(mount.options)
        # One spelling of each path: rootfs tells the runtime's own directories by it.
        path = os.path.normpath(f"/{mount.destination.lstrip('/')}")
        slot = f"mount{index}"
        where = f"$.mounts[{index}]"
        if is_bind(mount):
            self._bind(where, slot, path, mount, options)
        elif options.remount:
            self.enter.append(["change_mount", path, options.set, options.clear, *options.tree, options.propagation])
        elif mount.type == "overlay" and self._bounded and "upperdir" not in options.data:
            self._overlay(where, slot, path, mount, options)
        elif mount.type == "overlay" and "lowerdir" not in options.data:
            raise ConfigError(
                f"{where}.options: an overlay without lowerdir needs the annotation org.ocirun.overlay",
                hint="it bounds the tmpfs that an empty writable directory is made in",
            )
        elif mount.type in ("cgroup", "cgroup2"):
            self._cgroup(slot, path, options, alone=mount.type == "cgroup2")
        elif not mount.type:
            raise ConfigError(f"{where}.type: missing, and the options name no bind")
        else:
            self._new(path, mount, options)

    def _maps(self, where: str, mount: Mount, options: Options) -> list[list[list[int]]] | str | None:
        """How the mount's owners are mapped: by its own mappings, else by the container's."""
        if mount.uid_mappings:
            return [
                [[row.container_id, row.host_id, row.size] for row in rows]
                for rows in (mount.uid_mappings, mount.gid_mappings)
            ]
        if options.idmap and self._idmaps is None:
            raise ConfigError(
                f"{where}.options: {options.idmap} needs uidMappings and gidMappings",
                hint="or a user namespace, whose mappings are taken then",
            )
        return self._idmaps if options.idmap else None

    def _bind(self, where: str, slot: str, path: str, mount: Mount, options: Options) -> None:
        source = mount.source
        if not source:
            raise ConfigError(f"{where}.source: a bind mount needs a source")
        absolute = source if source.startswith("/") else f"{self._bundle}/{source}"
        maps = self._maps(where, mount, options)
        mapped = [maps, options.idmap == "ridmap"] if maps else None
        copy = [options.recursive, options.set, options.clear, *options.tree, mapped]
        propagation = options.propagation or self._propagation
        if self._in_order and mapped is None:
            self.enter.append(["bind", path, absolute, slot, propagation, *copy])
            return
        self.prepare.append([self._clone, slot, absolute, *copy])
        self.enter.append(["attach", slot, path, propagation])

    def _overlay(self, where: str, slot: str, path: str, mount: Mount, options: Options) -> None:
        lower = options.data.pop("lowerdir", None)
        mode = options.data.pop("mode", None)
        if options.data or (lower and mode):
            raise ConfigError(f"{where}.options: an overlay without upperdir takes lowerdir=DIRECTORY or mode=OCTAL")
        self._overlays += 1
        maps = self._maps(where, mount, options)
        attributes = options.set | options.tree[0]
        if lower:
            self.prepare.append(["overlay", slot, lower, self._overlays, *self._owner, attributes, maps])
        else:
            bits = _octal(f"{where}.options", mode or "755")
            self.prepare.append(["scratch", slot, self._overlays, *self._owner, bits, attributes])
        self.enter.append(["attach", slot, path, options.propagation])

    def _cgroup(self, slot: str, path: str, options: Options, *, alone: bool) -> None:
        """Show the hierarchies; ``alone``: only that of version 2, as the mount itself."""
        shown = []
        attributes = options.set | options.tree[0]
        for name, how, *rest in self._cgroups:
            if alone and name not in ("", "unified"):
                continue
            own = f"{slot}.{name}" if how == BIND else ""
            if own:
                self.prepare.append(["clone_tree", own, rest[0], False, attributes, options.clear, 0, 0, None])
            if name and not alone:
                shown.append([name, how, own] if own else [name, how, *rest])
            elif own:
                self.enter.append(["attach", own, path, options.propagation])
                return
            else:
                self.enter.append(
                    ["mount_new", path, "cgroup2", "cgroup", options.data, attributes, options.propagation, False]
                )
                return
        self.enter.append(["mount_cgroups", path, shown, attributes])

    def _new(self, path: str, mount: Mount, options: Options) -> None:
        data = options.parameters()
        if mount.type == "devpts" and isinstance(self._idmaps, list) and not self._maps_group(data.get("gid")):
            data.pop("gid", None)
        attributes: int = options.set | options.tree[0]
        # Later mounts, devices and links are made in it, so these become read-only in the end.
        seal = bool(attributes & m.MOUNT_ATTR_RDONLY) and (mount.type == "tmpfs" or path == "/dev")
        if seal:
            self.seals = True
            attributes &= ~m.MOUNT_ATTR_RDONLY
        elif attributes & m.MOUNT_ATTR_RDONLY and mount.source.startswith("/"):
            data.setdefault("ro", None)  # a device that cannot be written to can only be opened so
        name = "mount_copied" if options.copy_up else "mount_new"
        arguments: list[Any] = [data, attributes, options.propagation, seal]
        self.enter.append([name, path, mount.type, mount.source or mount.type, *arguments])

    def _maps_group(self, gid: str | None) -> bool:
        if gid is None or not isinstance(self._idmaps, list):
            return True
        return any(inside <= int(gid) < inside + count for inside, _outside, count in self._idmaps[1])


def _octal(where: str, text: str) -> int:
    try:
        return int(text, 8) & 0o7777
    except ValueError:
        raise ConfigError(f"{where}: mode={text} is no octal number") from None
