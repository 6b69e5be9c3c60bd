"""What this runtime understands, as the document that clients ask for. Source: runtime-spec features*.md.

Responsible for deriving it from the tables that the runtime itself works by, so that it cannot promise what is not
there. It says nothing of this host: the same version answers the same everywhere. Must not know who asks.
"""

from __future__ import annotations

from pytest_ocirun import __version__
from pytest_ocirun.linux import caps, sched
from pytest_ocirun.oci.codec import fields
from pytest_ocirun.oci.runtime import Hooks
from pytest_ocirun.runtime import mount_options, seccomp_terms, tuning_terms

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

OLDEST, NEWEST = "1.0.0", "1.3.0"
"""Of the versions of the runtime-spec whose fields are understood."""

_OWN_ANNOTATIONS = "org.ocirun."
"""As a prefix: who lets others choose annotations must know of these, since they change what is mounted."""


def document() -> dict[str, Any]:
    """The features structure, as plain JSON values."""
    return {
        "ociVersionMin": OLDEST,
        "ociVersionMax": NEWEST,
        "hooks": [field.key for field in fields(Hooks)],
        "mountOptions": sorted(mount_options.known_options()),
        "linux": _linux(),
        "annotations": {f"{_OWN_ANNOTATIONS}version": __version__},
        "potentiallyUnsafeConfigAnnotations": [_OWN_ANNOTATIONS],
    }


def _linux() -> dict[str, Any]:
    return {
        "namespaces": sorted(sched.NAMESPACES),
        "capabilities": list(caps.NAMES),
        "cgroup": {"v1": True, "v2": True, "systemd": True, "systemdUser": False, "rdma": True},
        "seccomp": _seccomp(),
        "apparmor": {"enabled": True},
        "selinux": {"enabled": True},
        "intelRdt": {"enabled": True, "schemata": True, "monitoring": True},
        "memoryPolicy": {"modes": sorted(tuning_terms.MEMORY_MODES), "flags": sorted(tuning_terms.MEMORY_FLAGS)},
        "mountExtensions": {"idmap": {"enabled": True}},
        "netDevices": {"enabled": True},
    }


def _seccomp() -> dict[str, Any]:
    return {
        "enabled": True,
        "actions": sorted(seccomp_terms.ACTIONS),
        "operators": sorted(seccomp_terms.OPERATORS),
        "archs": sorted(seccomp_terms.ARCHITECTURES),
        "knownFlags": sorted(seccomp_terms.FLAGS),
        "supportedFlags": sorted(seccomp_terms.FLAGS),
    }
