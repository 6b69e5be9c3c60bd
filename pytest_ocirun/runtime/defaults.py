"""What a container gets if nobody says otherwise.

Responsible for: the configuration that ``ocirun spec`` writes, and the pieces that confine code which is not
trusted. Must not know: images, tests, nor how a configuration is carried out.

``spec`` equals ``runc spec`` of runc 1.1 property by property, except for the host name, the version and one
more masked path; a test compares the two. OCI_VERSION is not the newest that is understood (1.3.0): nothing
in the document needs more, and older runtimes and their clients shall be able to read it.
"""

from __future__ import annotations

import os

from pytest_ocirun.oci.process import Capabilities, Process, Rlimit, User
from pytest_ocirun.oci.runtime import (
    Config,
    Device,
    DeviceRule,
    IDMapping,
    Linux,
    Mount,
    Namespace,
    Resources,
    Root,
    Seccomp,
)
from pytest_ocirun.runtime.seccomp_default import default_filter

OCI_VERSION = "1.2.0"

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

CAPABILITIES = ("CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE")

MASKED_PATHS = (
    "/proc/acpi",
    "/proc/asound",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
    "/proc/scsi",
)
"""Facts about the machine and its secrets; powercap's energy counters leak keys (CVE-2020-8694)."""

READONLY_PATHS = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")
"""What container root could write to the machine's harm."""

NAMESPACES = ("pid", "network", "ipc", "uts", "mount", "cgroup")
"""All but ``user``, which needs mappings, and ``time``, which nobody misses."""

_DEVICES = (("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0))

_MOUNTS = (
    ("/proc", "proc", "proc", ""),
    ("/dev", "tmpfs", "tmpfs", "nosuid,strictatime,mode=755,size=65536k"),
    ("/dev/pts", "devpts", "devpts", "nosuid,noexec,newinstance,ptmxmode=0666,mode=0620,gid=5"),
    ("/dev/shm", "tmpfs", "shm", "nosuid,noexec,nodev,mode=1777,size=65536k"),
    ("/dev/mqueue", "mqueue", "mqueue", "nosuid,noexec,nodev"),
    ("/sys", "sysfs", "sysfs", "nosuid,noexec,nodev,ro"),
    ("/sys/fs/cgroup", "cgroup", "cgroup", "nosuid,noexec,nodev,relatime,ro"),
)


def default_mounts(*, rootless: bool = False) -> list[Mount]:
    """Return the seven mounts that programs expect.

    Args:
        rootless: for a user namespace that maps one id only, made by a user without privilege: the group of
            terminals (5) does not exist in it, and a new sysfs needs a network namespace of its own, so the
            host's is bound.
    """
    mounts = [
        Mount(destination=destination, type=kind, source=source, options=options.split(",") if options else [])
        for destination, kind, source, options in _MOUNTS
    ]
    if rootless:
        terminals, system = mounts[2], mounts[5]
        terminals.options.remove("gid=5")
        system.type, system.source = "none", "/sys"
        system.options.insert(0, "rbind")
    return mounts


def default_devices() -> list[Device]:
    """Return the devices that the specification wants in every container, without console and ptmx."""
    return [
        Device(path=f"/dev/{name}", type="c", major=major, minor=minor, file_mode=0o666, uid=0, gid=0)
        for name, major, minor in _DEVICES
    ]


def spec(*, rootless: bool = False) -> Config:
    """Return the configuration to start from: a shell in a read-only ``rootfs`` with few capabilities.

    Args:
        rootless: make it work for the calling user without privilege: a user namespace in which the caller's
            ids are root's, the host's network, no device rules.
    """
    config = Config(
        oci_version=OCI_VERSION,
        process=_shell(),
        root=Root(path="rootfs", readonly=True),
        hostname="ocirun",
        mounts=default_mounts(rootless=rootless),
        linux=Linux(
            namespaces=[Namespace(type=kind) for kind in _spec_namespaces(rootless=rootless)],
            masked_paths=list(MASKED_PATHS),
            readonly_paths=list(READONLY_PATHS),
        ),
    )
    if rootless:
        config.linux.uid_mappings = [IDMapping(container_id=0, host_id=os.geteuid(), size=1)]
        config.linux.gid_mappings = [IDMapping(container_id=0, host_id=os.getegid(), size=1)]
    else:
        config.linux.resources = Resources(devices=[DeviceRule(allow=False, access="rwm")])
    return config


def _shell() -> Process:
    sets = ("bounding", "effective", "permitted")
    return Process(
        terminal=True,
        user=User(uid=0, gid=0),
        args=["sh"],
        env=[f"PATH={PATH}", "TERM=xterm"],
        cwd="/",
        capabilities=Capabilities(**{name: list(CAPABILITIES) for name in sets}),
        rlimits=[Rlimit(type="RLIMIT_NOFILE", soft=1024, hard=1024)],
        no_new_privileges=True,
    )


def _spec_namespaces(*, rootless: bool) -> list[str]:
    kinds = ["pid", "ipc", "uts", "mount"]
    if not rootless:
        kinds.insert(1, "network")
    if os.path.exists("/sys/fs/cgroup/cgroup.controllers"):
        kinds.append("cgroup")
    return [*kinds, "user"] if rootless else kinds


def confine(
    config: Config, uid_mappings: list[IDMapping], gid_mappings: list[IDMapping], seccomp: Seccomp | None = None
) -> None:
    """Make a configuration fit for code that is not trusted; what it mounts is left to the caller.

    No capabilities and no way to gain any, the default system call filter, a read-only root, masked and
    read-only paths, and all namespaces new, with a user namespace.

    Args:
        config: is changed in place.
        uid_mappings: for the user namespace.
        gid_mappings: for the user namespace.
        seccomp: the system call filter instead of a new copy of the default one.
    """
    config.process.capabilities = Capabilities()
    config.process.no_new_privileges = True
    config.root.readonly = True
    config.linux.namespaces = [Namespace(type=kind) for kind in (*NAMESPACES, "user")]
    config.linux.uid_mappings = uid_mappings
    config.linux.gid_mappings = gid_mappings
    config.linux.masked_paths = list(MASKED_PATHS)
    config.linux.readonly_paths = list(READONLY_PATHS)
    config.linux.seccomp = seccomp or default_filter()
