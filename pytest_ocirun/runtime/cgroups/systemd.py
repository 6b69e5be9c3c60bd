"""Cgroups that systemd makes: a scope of its own for each container (``--systemd-cgroup``).

Responsible for: reading ``cgroupsPath`` as SLICE:PREFIX:NAME, and for the scope's start. A scope cannot be empty, so a
placeholder keeps it until the container's init is there. The scope is delegated, so the cgroup below it is ours alone:
systemd never touches what is written there, and takes the scope away when the last process has left. Must not know: the
wire (``bus``), limits. Sources: systemd's CGROUP_DELEGATION.md, systemd.scope(5), runc's docs/systemd.md.
"""

from __future__ import annotations

import os

from pytest_ocirun.errors import ConfigError, ContainerExists, Unsupported
from pytest_ocirun.linux import fd_ranges

from . import Cgroup, Manager, Refusal, knobs, tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pytest_ocirun.oci.runtime import Resources

_BOOTED = "/run/systemd/system"
_SOCKET = "/run/systemd/private"
_PREFIX = "ocirun"
_OWN, _PLACEHOLDER = "container", "placeholder"
_EXISTS = "org.freedesktop.systemd1.UnitExists"
_WITHOUT = "Leave --systemd-cgroup out; podman does with --cgroup-manager=cgroupfs."


def unit_of(path: str, container_id: str) -> tuple[str, str]:
    """The slice and the scope that a path names; none is a scope in system.slice, as runc has it.

    Raises:
        ConfigError: it is not of the form SLICE:PREFIX:NAME.
    """
    if not path:
        return "system.slice", f"{_PREFIX}-{container_id}.scope"
    parts = path.split(":")
    if len(parts) != 3 or not parts[2] or "/" in path:
        raise ConfigError(
            f"$.linux.cgroupsPath: expected SLICE:PREFIX:NAME with --systemd-cgroup, got {path!r}",
            hint="Write it so, or leave --systemd-cgroup out.",
        )
    slice_name, prefix, name = parts
    if slice_name and not slice_name.endswith(".slice"):
        raise ConfigError(f"$.linux.cgroupsPath: {slice_name!r} is no slice: its name must end with .slice")
    if name.endswith(".slice"):
        raise ConfigError(f"$.linux.cgroupsPath: {name!r} is a slice, and a container needs a scope: leave .slice out")
    return slice_name or "system.slice", f"{prefix}-{name}.scope" if prefix else f"{name}.scope"


class SystemdManager(Manager):
    """Has systemd make cgroups, on a host that has nothing but cgroup v2.

    Args:
        privileged: whether the caller is root of the host.

    Raises:
        Unsupported: there is no systemd, it cannot be asked, or there is more than cgroup v2.
    """

    def __init__(self, *, privileged: bool) -> None:
        from .detect import layout

        attempt = "have systemd make a cgroup (--systemd-cgroup)"
        if not os.path.isdir(_BOOTED):
            raise Unsupported(f"{attempt}: systemd is not the init of this host: there is no {_BOOTED}", hint=_WITHOUT)
        if not privileged:
            raise Unsupported(f"{attempt}: only root's systemd is asked, not a user's", hint=_WITHOUT)
        found = layout()
        if found.kind != "v2" or found.v2 is None:
            raise Unsupported(f"{attempt}: that needs cgroup v2 alone, and this host has {found.kind}", hint=_WITHOUT)
        self._mount = found.v2
        self._placeholder = (0, -1)

    def availability(self) -> dict[str, Refusal | None]:
        """See ``Manager``: systemd hands every controller down that the kernel has."""
        from .v2 import CONTROLLERS

        have = (knobs.read_or_none(f"{self._mount}/cgroup.controllers") or "").split()
        lack = Refusal("the kernel has no such controller on v2", "boot one that has")
        return {name: None if name in have else lack for name in CONTROLLERS}

    def device_refusal(self) -> Refusal | None:
        """See ``Manager``."""
        from . import devices

        return devices.refusal(self._mount)

    def create(
        self,
        path: str | None,
        container_id: str,
        resources: Resources | None,
        *,
        allow_none: bool = False,
        everywhere: bool = False,
    ) -> Cgroup:
        """See ``Manager.create``; ``release`` must be called when the container's init is in its cgroup."""
        from .delegate import Place
        from .v2 import V2Manager

        slice_name, unit = unit_of(path or "", container_id)
        try:
            scope = self._start(slice_name, unit, container_id)
            leaf = f"{scope}/{_PLACEHOLDER}"
            tree.Made().mkdir(leaf)
            tree.join(f"{leaf}/cgroup.procs", self._placeholder[0])
            place = Place(scope, set(), set(), [], privileged=True)
            below = f"{scope.removeprefix(self._mount)}/{_OWN}"
            return V2Manager(self._mount, place).create(
                below, container_id, resources, allow_none=allow_none, everywhere=everywhere
            )
        except BaseException:
            self.release()
            raise

    def _start(self, slice_name: str, unit: str, container_id: str) -> str:
        """Start the scope around a placeholder; its directory."""
        from .bus import Bus, BusError

        self._placeholder = _fork_placeholder()
        pid = self._placeholder[0]
        properties = [
            ("Description", "s", f"ocirun container {container_id}"),
            ("Slice", "s", slice_name),
            ("PIDs", "au", [pid]),
            ("Delegate", "b", True),
            ("DefaultDependencies", "b", False),
            ("CollectMode", "s", "inactive-or-failed"),
        ]
        try:
            with Bus(_SOCKET) as bus:
                bus.start_scope(unit, properties)
        except BusError as error:
            if error.name == _EXISTS:
                raise ContainerExists(
                    f"have systemd make {unit} in {slice_name}: there is such a unit: {error.message}",
                    hint="Choose another cgroupsPath, or end that one.",
                ) from error
            raise
        place = next(line[3:] for line in knobs.read(f"/proc/{pid}/cgroup").splitlines() if line.startswith("0::"))
        return f"{self._mount}{place}"

    def release(self) -> None:
        """Let the placeholder go: the container keeps the scope from now on, or nobody does."""
        pid, pipe = self._placeholder
        if pid:
            self._placeholder = (0, -1)
            leaf = next(line[3:] for line in knobs.read(f"/proc/{pid}/cgroup").splitlines() if line.startswith("0::"))
            os.close(pipe)
            os.waitpid(pid, 0)
            if leaf.endswith(f"/{_PLACEHOLDER}"):
                tree.remove_all([f"{self._mount}{leaf}"], 1.0)

    def prune(self) -> None:
        """See ``Manager``: systemd does that."""


def _fork_placeholder() -> tuple[int, int]:
    """A process that does nothing until we let it go, or end ourselves: its pid, and the pipe that holds it."""
    read, write = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        try:
            fd_ranges.close_all_but({read})
            os.read(read, 1)
        finally:
            os._exit(0)
    os.close(read)
    return pid, write
