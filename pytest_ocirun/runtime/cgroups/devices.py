"""Who enforces device rules where: the devices hierarchy of cgroup v1, or a BPF program on a v2 directory.

Responsible for: choosing, and knowing beforehand that nobody can. Must not know: how either does it. Imported only
when a config has device rules.
"""

from __future__ import annotations

from pytest_ocirun.runtime.cgroups import Refusal, knobs
from pytest_ocirun.runtime.cgroups.device_rules import ordered

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pytest_ocirun.oci.runtime import DeviceRule

_ALL_IDS = ["0", "0", "4294967295"]
_SYS_ADMIN, _BPF = 1 << 21, 1 << 39 | 1 << 12


def enforce(rules: list[DeviceRule], *, v1: str | None, v2: str | None) -> None:
    """Make a container's cgroup obey its device rules; those of an earlier call are replaced.

    Args:
        rules: of the config, valid.
        v1: its directory in the devices hierarchy, if there is one.
        v2: its directory in the v2 hierarchy, if there is one.

    Raises:
        Unsupported: neither is there, or this kernel cannot express or enforce the rules.
        KernelRefused: the kernel refused them.
    """
    if v1 is not None:
        from pytest_ocirun.runtime.cgroups import devices_v1

        devices_v1.enforce(v1, ordered(rules))
        return
    missing = refusal(v2)
    if missing is not None or v2 is None:
        raise (missing or NOWHERE).error("cannot enforce linux.resources.devices")
    from pytest_ocirun.runtime.cgroups import device_program

    device_program.enforce(v2, ordered(rules))


def refusal(v2: str | None) -> Refusal | None:
    """Say why no BPF program can be attached, as far as that is known without trying.

    Args:
        v2: a directory of the v2 hierarchy, or its mount point.
    """
    if v2 is None:
        return NOWHERE
    if (knobs.read_or_none("/proc/self/uid_map") or "").split() == _ALL_IDS and _may_load():
        return None
    return Refusal(
        "attaching a BPF program to a cgroup takes CAP_SYS_ADMIN, or CAP_BPF and CAP_NET_ADMIN, on the host",
        "run as root with these, or remove the rules",
    )


def _may_load() -> bool:
    status = knobs.read_or_none("/proc/self/status") or ""
    held = int(status.partition("\nCapEff:")[2].split("\n", 1)[0] or "0", 16)
    return bool(held & _SYS_ADMIN) or held & _BPF == _BPF


NOWHERE = Refusal(
    "no cgroup v1 hierarchy with the devices controller and no cgroup v2 hierarchy is mounted",
    "mount one: `mount -t cgroup2 cgroup2 /sys/fs/cgroup`",
)
