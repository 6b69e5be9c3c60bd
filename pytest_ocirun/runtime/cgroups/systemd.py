"""``cgroupsPath`` as ``--systemd-cgroup`` has it, SLICE:PREFIX:NAME: what it means, and why it cannot be had.

Responsible for refusing it with the reason and the fix. Must not know: the command line. Sources: runc's
docs/systemd.md, systemd.slice(5), sd_booted(3).
"""

from __future__ import annotations

import os

from pytest_ocirun.errors import ConfigError, Unsupported

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

_BOOTED = "/run/systemd/system"
_PREFIX = "ocirun"


def unit_of(path: str, container_id: str) -> tuple[str, str]:
    """The slice and the unit that a path names; none is a scope in the slice that runc takes.

    Raises:
        ConfigError: it is not of the form SLICE:PREFIX:NAME.
    """
    if not path:
        return ("user.slice" if os.geteuid() else "system.slice"), f"{_PREFIX}-{container_id}.scope"
    parts = path.split(":")
    if len(parts) != 3 or not parts[2] or "/" in path:
        raise ConfigError(
            f"$.linux.cgroupsPath: expected SLICE:PREFIX:NAME with --systemd-cgroup, got {path!r}",
            hint="Write it so, or leave --systemd-cgroup out.",
        )
    slice_name, prefix, name = parts
    if slice_name and not slice_name.endswith(".slice"):
        raise ConfigError(f"$.linux.cgroupsPath: {slice_name!r} is no slice: its name must end with .slice")
    unit = name if name.endswith(".slice") else f"{prefix}-{name}.scope" if prefix else f"{name}.scope"
    return slice_name or "system.slice", unit


def refuse(path: str, container_id: str) -> NoReturn:
    """Say why systemd cannot be asked for the cgroup of a container.

    Raises:
        ConfigError: the path is wrong in any case.
        Unsupported: there is no systemd, or it is not asked.
    """
    slice_name, unit = unit_of(path, container_id)
    attempt = f"have systemd make the cgroup {unit} in {slice_name} (--systemd-cgroup)"
    if not os.path.isdir(_BOOTED):
        raise Unsupported(
            f"{attempt}: systemd is not the init of this host: there is no {_BOOTED}",
            hint="Leave --systemd-cgroup out; podman does with --cgroup-manager=cgroupfs.",
        )
    raise Unsupported(
        f"{attempt}: ocirun makes cgroups itself and does not talk to systemd",
        hint="Leave --systemd-cgroup out (podman: --cgroup-manager=cgroupfs); to have a scope around it: "
        "systemd-run --scope -p Delegate=yes -- ocirun ...",
    )
