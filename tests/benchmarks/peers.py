"""The other ways to run /bin/true in a container: bundles and command lines for runc, crun and bubblewrap."""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

from pytest_ocirun.engine.request import Limits
from pytest_ocirun.oci import codec
from pytest_ocirun.runtime.defaults import MASKED_PATHS
from pytest_ocirun.runtime.seccomp_default import default_filter
from tests.requires import SBIN_PATH

HYBRID = "/sys/fs/cgroup/unified"
"""crun refuses to run where this is mounted."""

_FIRST_ID = 0x6F000000


def program(name: str) -> str | None:
    """Where a program of the host lies, also for users without sbin in their path."""
    return shutil.which(name, path=SBIN_PATH)


def spec_bundle(folder: Path, rootfs: Path, runtime: str, args: list[str]) -> dict[str, Any]:
    """Write a bundle as ``runc spec`` gives it, but for the program and the terminal; returns its config."""
    folder.mkdir()
    subprocess.run([runtime, "spec", "--bundle", folder], check=True, capture_output=True)
    config: dict[str, Any] = json.loads((folder / "config.json").read_text())
    config["process"].update(args=args, terminal=False)
    config["root"]["path"] = str(rootfs)
    write(folder, config)
    return config


def confined_bundle(folder: Path, rootfs: Path, runtime: str, args: list[str], limits: Limits) -> None:
    """Write a bundle with what the fixture's container has: limits, filter, user namespace, no capabilities.

    What it lacks: a writable root (the fixture's lies on an overlay).
    """
    config = spec_bundle(folder, rootfs, runtime, args)
    linux = config["linux"]
    linux["resources"]["memory"] = {"limit": limits.memory}
    linux["resources"]["pids"] = {"limit": limits.pids}
    if limits.cpus is not None:
        linux["resources"]["cpu"] = {"quota": int(limits.cpus * 100_000), "period": 100_000}
    linux["seccomp"] = codec.encode(default_filter())
    linux["maskedPaths"] = list(MASKED_PATHS)
    linux["namespaces"] += [{"type": "user"}]
    if {"type": "cgroup"} not in linux["namespaces"]:
        linux["namespaces"] += [{"type": "cgroup"}]
    for kind in ("uidMappings", "gidMappings"):
        linux[kind] = [{"containerID": 0, "hostID": _FIRST_ID, "size": 65536}]
    config["process"]["capabilities"] = {}
    write(folder, config)


def write(folder: Path, config: dict[str, Any]) -> None:
    """Write a bundle's config."""
    (folder / "config.json").write_text(json.dumps(config))


def bubblewrap(path: str, rootfs: Path, args: list[str]) -> list[str]:
    """The command line that comes closest: all namespaces, a proc, a dev, a tmpfs."""
    return [
        path,
        "--unshare-all",
        "--ro-bind",
        str(rootfs),
        "/",
        "--proc",
        "/proc",
        "--dev",
        "/dev",
        "--tmpfs",
        "/tmp",
        *args,
    ]


def hidden_from_crun() -> list[str]:
    """What must be unmounted, in a mount namespace of its own, before crun works."""
    return [HYBRID] if os.path.ismount(HYBRID) else []
