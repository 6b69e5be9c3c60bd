"""What this runtime understands, as the document that clients ask for. Source: runtime-spec features*.md.

Responsible for deriving it from the tables that the runtime itself works by, so that it cannot promise what is not
there. It says nothing of this host: the same version answers the same everywhere. Must not know who asks.
"""

from __future__ import annotations

from pytest_ocirun import __version__
from pytest_ocirun.errors import Unsupported
from pytest_ocirun.linux import caps, sched
from pytest_ocirun.oci.codec import fields
from pytest_ocirun.oci.runtime import Hooks, Mount
from pytest_ocirun.runtime import defaults, seccomp_terms, unsupported
from pytest_ocirun.runtime.mount_plan import Options

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

OLDEST = "1.0.0"

_MOUNT_OPTIONS = """
    async atime bind defaults dev diratime dirsync exec iversion lazytime loud mand noatime nodev nodiratime noexec
    noiversion nolazytime nomand norelatime nostrictatime nosuid nosymfollow private ratime rbind rdev rdiratime
    relatime remount rexec rnoatime rnodev rnodiratime rnoexec rnorelatime rnostrictatime rnosuid rnosymfollow ro
    rprivate rrelatime rro rrw rshared rslave rstrictatime rsuid rsymfollow runbindable rw shared silent slave
    strictatime suid symfollow sync tmpcopyup unbindable acl noacl idmap ridmap
"""
"""The names of config.md, "Linux mount options"; what of them is recognized is found out."""

_OWN_ANNOTATIONS = "org.ocirun."
"""As a prefix: who lets others choose annotations must know of these, since they change what is mounted."""


def document() -> dict[str, Any]:
    """The features structure, as plain JSON values."""
    return {
        "ociVersionMin": OLDEST,
        "ociVersionMax": defaults.OCI_VERSION,
        "hooks": [field.key for field in fields(Hooks) if _acts_on(f"hooks.{field.name}")],
        "mountOptions": mount_options(),
        "linux": _linux(),
        "annotations": {f"{_OWN_ANNOTATIONS}version": __version__},
        "potentiallyUnsafeConfigAnnotations": [_OWN_ANNOTATIONS],
    }


def mount_options() -> list[str]:
    """The mount options that are no file system's data and are not refused."""
    return sorted(name for name in _MOUNT_OPTIONS.split() if _recognizes(name))


def _linux() -> dict[str, Any]:
    return {
        "namespaces": sorted(name for name in sched.NAMESPACES if _accepts_namespace(name)),
        "capabilities": list(caps.NAMES),
        "cgroup": {
            "v1": True,
            "v2": True,
            "systemd": False,
            "systemdUser": False,
            "rdma": _acts_on("linux.resources.rdma"),
        },
        "seccomp": _seccomp(),
        "apparmor": {"enabled": "apparmor_profile" not in unsupported.PROCESS.split()},
        "selinux": {"enabled": "selinux_label" not in unsupported.PROCESS.split()},
        "intelRdt": {"enabled": _acts_on("linux.intel_rdt")},
        "mountExtensions": {"idmap": {"enabled": _acts_on("mounts[].uid_mappings")}},
        "netDevices": {"enabled": _acts_on("linux.net_devices")},
    }


def _acts_on(attribute: str) -> bool:
    return attribute not in unsupported.CONFIG.split()


def _accepts_namespace(name: str) -> bool:
    refused = {word for attribute, word, _advice in unsupported.WORDS if attribute == "linux.namespaces[].type"}
    return name not in refused


def _recognizes(option: str) -> bool:
    """Whether a mount may have the option, and it is more than a word for the file system."""
    if Options([option]).data:
        return False
    config = defaults.spec()
    config.linux.resources.devices = []
    config.mounts = [Mount(destination="/mnt", type="bind", source="/mnt", options=["bind", option])]
    try:
        unsupported.refuse_unsupported(config)
    except Unsupported:
        return False
    return True


def _seccomp() -> dict[str, Any]:
    return {
        "enabled": True,
        "actions": sorted(seccomp_terms.ACTIONS),
        "operators": sorted(seccomp_terms.OPERATORS),
        "archs": sorted(seccomp_terms.ARCHITECTURES),
        "knownFlags": sorted(seccomp_terms.FLAGS),
        "supportedFlags": sorted(seccomp_terms.FLAGS),
    }
