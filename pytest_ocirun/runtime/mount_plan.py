"""From the mounts of a config to steps: options to flags, sources to detached mounts.

Pure: it reads nothing of the system. Sources: runtime-spec config-linux "mounts", mount(8).
"""

from __future__ import annotations

import os

from pytest_ocirun.errors import ConfigError
from pytest_ocirun.linux import mount as m

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pytest_ocirun.oci.runtime import Mount
    from pytest_ocirun.runtime.steps import Step

# option -> (attributes to set, attributes to clear)
_ATTRIBUTES = {
    "ro": (m.MOUNT_ATTR_RDONLY, 0),
    "rw": (0, m.MOUNT_ATTR_RDONLY),
    "nosuid": (m.MOUNT_ATTR_NOSUID, 0),
    "suid": (0, m.MOUNT_ATTR_NOSUID),
    "nodev": (m.MOUNT_ATTR_NODEV, 0),
    "dev": (0, m.MOUNT_ATTR_NODEV),
    "noexec": (m.MOUNT_ATTR_NOEXEC, 0),
    "exec": (0, m.MOUNT_ATTR_NOEXEC),
    "noatime": (m.MOUNT_ATTR_NOATIME, m.MOUNT_ATTR__ATIME),
    "atime": (0, m.MOUNT_ATTR__ATIME),
    "relatime": (m.MOUNT_ATTR_RELATIME, m.MOUNT_ATTR__ATIME),
    "strictatime": (m.MOUNT_ATTR_STRICTATIME, m.MOUNT_ATTR__ATIME),
    "nodiratime": (m.MOUNT_ATTR_NODIRATIME, 0),
    "diratime": (0, m.MOUNT_ATTR_NODIRATIME),
    "nosymfollow": (m.MOUNT_ATTR_NOSYMFOLLOW, 0),
    "symfollow": (0, m.MOUNT_ATTR_NOSYMFOLLOW),
    "defaults": (0, 0),
}
PROPAGATION = {
    "private": m.MS_PRIVATE,
    "rprivate": m.MS_PRIVATE | m.MS_REC,
    "slave": m.MS_SLAVE,
    "rslave": m.MS_SLAVE | m.MS_REC,
    "shared": m.MS_SHARED,
    "rshared": m.MS_SHARED | m.MS_REC,
    "unbindable": m.MS_UNBINDABLE,
    "runbindable": m.MS_UNBINDABLE | m.MS_REC,
}

BIND = "bind"
MOUNT = "mount"
"""How a cgroup hierarchy is shown: ``cgroup_view``."""


class Options:
    """The options of one mount, sorted by what they are.

    Args:
        options: as the config lists them.
    """

    __slots__ = ("bind", "clear", "data", "idmap", "propagation", "recursive", "set", "set_recursive")

    def __init__(self, options: list[str]) -> None:
        self.set = self.clear = self.set_recursive = self.propagation = 0
        self.bind = self.recursive = self.idmap = False
        self.data: dict[str, str | None] = {}
        for option in options:
            self._add(option)

    def _add(self, option: str) -> None:
        if option in _ATTRIBUTES:
            added, cleared = _ATTRIBUTES[option]
            self.clear |= cleared
            self.set = self.set & ~cleared | added
        elif option[:1] == "r" and option[1:] in _ATTRIBUTES:
            self.set_recursive |= _ATTRIBUTES[option[1:]][0]
        elif option in PROPAGATION:
            self.propagation = PROPAGATION[option]
        elif option in ("bind", "rbind"):
            self.bind, self.recursive = True, option == "rbind"
        elif option in ("idmap", "ridmap"):
            self.idmap = True
        else:
            key, equals, value = option.partition("=")
            self.data[key] = value if equals else None


class MountPlan:
    """The steps for a list of mounts.

    Args:
        mounts: in the config's order.
        bundle: absolute path that relative sources start from.
        idmaps: [uid rows, gid rows] of the container's user namespace, or None without one.
        owner: (uid, gid) on the host of the container's root.
        cgroups: what a cgroup mount shows, as ``cgroup_view.hierarchies`` says.
    """

    def __init__(
        self,
        mounts: list[Mount],
        *,
        bundle: str,
        idmaps: list[list[list[int]]] | None,
        owner: tuple[int, int],
        cgroups: list[list[str]],
    ) -> None:
        self.prepare: list[Step] = []
        self.enter: list[Step] = []
        self.overlays = 0
        self._bundle = bundle
        self._idmaps = idmaps
        self._owner = owner
        self._cgroups = cgroups
        for index, mount in enumerate(mounts):
            self._mount(index, mount)

    def _mount(self, index: int, mount: Mount) -> None:
        options = Options(mount.options)
        # One spelling of each path: rootfs tells the runtime's own directories by it.
        path = os.path.normpath(f"/{mount.destination.lstrip('/')}")
        slot = f"mount{index}"
        where = f"$.mounts[{index}]"
        if options.idmap and self._idmaps is None:
            raise ConfigError(f"{where}.options: idmap needs a new user namespace with mappings")
        if options.bind or mount.type in ("bind", "none"):
            self._bind(where, slot, path, mount, options)
        elif mount.type == "overlay" and "upperdir" not in options.data:
            self._overlay(where, slot, path, mount, options)
        elif mount.type == "cgroup":
            self._cgroup(slot, path, options)
        elif not mount.type:
            raise ConfigError(f"{where}.type: missing, and the options name no bind")
        else:
            self._new(path, mount, options)

    def _maps(self, mount: Mount, options: Options) -> list[list[list[int]]] | None:
        """How the mount's owners are mapped: by its own mappings, else by the container's."""
        if not options.idmap:
            return None
        if not mount.uid_mappings:
            return self._idmaps
        return [
            [[row.container_id, row.host_id, row.size] for row in rows]
            for rows in (mount.uid_mappings, mount.gid_mappings)
        ]

    def _bind(self, where: str, slot: str, path: str, mount: Mount, options: Options) -> None:
        source = mount.source
        if not source:
            raise ConfigError(f"{where}.source: a bind mount needs a source")
        if options.data:
            raise ConfigError(f"{where}.options: a bind mount takes no file system options: {', '.join(options.data)}")
        absolute = source if source.startswith("/") else f"{self._bundle}/{source}"
        idmaps = self._maps(mount, options)
        self.prepare.append(
            ["clone_tree", slot, absolute, options.recursive, options.set, options.clear, options.set_recursive, idmaps]
        )
        self.enter.append(["attach", slot, path, options.propagation])

    def _overlay(self, where: str, slot: str, path: str, mount: Mount, options: Options) -> None:
        lower = options.data.pop("lowerdir", None)
        mode = options.data.pop("mode", None)
        if options.data or (lower and mode):
            raise ConfigError(f"{where}.options: an overlay without upperdir takes lowerdir=DIRECTORY or mode=OCTAL")
        self.overlays += 1
        idmaps = self._maps(mount, options)
        if lower:
            self.prepare.append(["overlay", slot, lower, self.overlays, *self._owner, options.set, idmaps])
        else:
            bits = _octal(f"{where}.options", mode or "755")
            self.prepare.append(["scratch", slot, self.overlays, *self._owner, bits, options.set])
        self.enter.append(["attach", slot, path, options.propagation])

    def _cgroup(self, slot: str, path: str, options: Options) -> None:
        shown = []
        for name, how, *rest in self._cgroups:
            own = f"{slot}.{name}" if how == BIND else ""
            if own:
                self.prepare.append(["clone_tree", own, rest[0], False, options.set, options.clear, 0, None])
            if not name and own:
                self.enter.append(["attach", own, path, options.propagation])
            elif not name:
                self.enter.append(["mount_new", path, "cgroup2", options.data, options.set, options.propagation])
            else:
                shown.append([name, own] if own else [name, "", *rest])
        if shown or not self._cgroups:
            self.enter.append(["mount_cgroups", path, shown, options.set])

    def _new(self, path: str, mount: Mount, options: Options) -> None:
        data = dict(options.data)
        if mount.type == "devpts" and self._idmaps is not None and not self._maps_group(data.get("gid")):
            data.pop("gid", None)
        self.enter.append(["mount_new", path, mount.type, data, options.set, options.propagation])

    def _maps_group(self, gid: str | None) -> bool:
        if gid is None or self._idmaps is None:
            return True
        return any(inside <= int(gid) < inside + count for inside, _outside, count in self._idmaps[1])


def _octal(where: str, text: str) -> int:
    try:
        return int(text, 8) & 0o7777
    except ValueError:
        raise ConfigError(f"{where}: mode={text} is no octal number") from None
