"""A bundle as podman writes it for ``podman run --memory --pids-limit --cpus``: root's, with no user namespace.

Its system call filter is Debian's own, /usr/share/containers/seccomp.json, resolved for the capabilities that podman
gives by default. Knows nothing of runtimes.
"""

import json
import os
from pathlib import Path
from typing import Any

from pytest_ocirun.oci import codec
from pytest_ocirun.runtime.seccomp_default import default_filter
from tests.benchmarks import peers

PROFILE = Path("/usr/share/containers/seccomp.json")
"""Of Debian's package golang-github-containers-common; without it the plugin's own filter is taken."""

_CAPABILITIES = [
    f"CAP_{name}"
    for name in (
        *("CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "NET_BIND_SERVICE"),
        *("SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT"),
    )
]
_LIMITS = {
    "memory": {"limit": 256 << 20, "swap": 256 << 20},
    "pids": {"limit": 2048},
    "cpu": {"shares": 512, "quota": 150_000, "period": 100_000},
}
_ARCHES = {"x86_64": "amd64", "aarch64": "arm64"}
_OF_A_RULE = ("names", "action", "args", "errnoRet")


def bundle(folder: Path, rootfs: Path, runtime: str, args: list[str]) -> None:
    """Write the bundle.

    Args:
        folder: a new directory.
        rootfs: the root file system, shared and read-only by nobody's wish but the program's.
        runtime: the program whose ``spec`` to begin with.
        args: what it runs.
    """
    config = peers.spec_bundle(folder, rootfs, runtime, args)
    for name in ("bounding", "effective", "permitted"):
        config["process"]["capabilities"][name] = _CAPABILITIES
    config["process"]["capabilities"] |= {"inheritable": [], "ambient": []}
    config["process"]["env"] += ["HOME=/root", "HOSTNAME=bench", "container=podman"]
    config["process"]["noNewPrivileges"] = False
    config["root"]["readonly"] = False
    linux = config["linux"]
    linux["resources"] = {"devices": [{"allow": False, "access": "rwm"}], **_LIMITS}
    linux["seccomp"] = _filter()
    linux["namespaces"] = [{"type": kind} for kind in ("pid", "network", "ipc", "uts", "mount", "cgroup")]
    config["annotations"] = {"io.container.manager": "libpod", "org.opencontainers.image.stopSignal": "15"}
    peers.write(folder, config)


def _filter() -> dict[str, Any]:
    if not PROFILE.exists():
        return codec.encode(default_filter())
    return seccomp(json.loads(PROFILE.read_text(encoding="utf-8")))


def seccomp(profile: dict[str, Any]) -> dict[str, Any]:
    """``linux.seccomp`` as podman resolves it from a profile, for its default capabilities on this machine."""
    arch = _ARCHES.get(os.uname().machine, "")
    native = next((each for each in profile["archMap"] if _is_ours(each["architecture"])), None)
    rules = [
        {key: rule[key] for key in _OF_A_RULE if rule.get(key) is not None}
        for rule in profile["syscalls"]
        if _holds(rule["includes"], arch, _CAPABILITIES) and not _excluded(rule["excludes"], arch, _CAPABILITIES)
    ]
    return {
        "defaultAction": profile["defaultAction"],
        "defaultErrnoRet": profile["defaultErrnoRet"],
        "architectures": [native["architecture"], *(native["subArchitectures"] or [])] if native else [],
        "syscalls": rules,
    }


def _is_ours(architecture: str) -> bool:
    return architecture == f"SCMP_ARCH_{os.uname().machine.upper()}"


def _holds(condition: dict[str, list[str]], arch: str, capabilities: list[str]) -> bool:
    if "arches" in condition and arch not in condition["arches"]:
        return False
    return all(name in capabilities for name in condition.get("caps", []))


def _excluded(condition: dict[str, list[str]], arch: str, capabilities: list[str]) -> bool:
    return arch in condition.get("arches", []) or any(name in capabilities for name in condition.get("caps", []))
