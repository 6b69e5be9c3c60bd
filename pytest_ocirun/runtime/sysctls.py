"""Kernel parameters: which namespace one belongs to, and where it lies below /proc/sys. Source: sysctl(8).

Must not know configs. Reads nothing of the system.
"""

from __future__ import annotations

SYSCTLS = (
    ("kernel.msgmax", "ipc"),
    ("kernel.msgmnb", "ipc"),
    ("kernel.msgmni", "ipc"),
    ("kernel.sem", "ipc"),
    ("kernel.shmall", "ipc"),
    ("kernel.shmmax", "ipc"),
    ("kernel.shmmni", "ipc"),
    ("kernel.shm_rmid_forced", "ipc"),
    ("kernel.domainname", "uts"),
    ("kernel.hostname", "uts"),
    ("fs.mqueue.", "ipc"),
    ("net.", "network"),
    ("user.", "user"),
)
"""Kernel parameters that belong to a namespace, which must be the container's own; a dot ends a prefix."""


def is_name(path: str) -> bool:
    """Whether a path as ``sysctl_path`` gives it stays where it begins."""
    return not any(part in ("", ".", "..") for part in path.split("/"))


def namespace_of(path: str) -> str | None:
    """The type of namespace that a parameter belongs to, or None if it is the machine's.

    Args:
        path: as ``sysctl_path`` gives it.
    """
    dotted = path.replace("/", ".")
    for known, kind in SYSCTLS:
        if dotted == known or (known[-1] == "." and dotted.startswith(known)):
            return kind
    return None


def sysctl_path(name: str) -> str:
    """Return the file below ``/proc/sys`` of a kernel parameter, which sysctl(8) takes in two forms.

    If the first separator is a dot, dots separate and slashes stand for dots in names
    (``net.ipv4.conf.eth0/1``).
    """
    if "/" in name and ("." not in name or name.index("/") < name.index(".")):
        return name
    return name.translate({ord("."): "/", ord("/"): "."})
