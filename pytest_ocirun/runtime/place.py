"""The place of a process among the cgroups: put there, and verified. Source: cgroups(7).

Must not know: which cgroups there are, or their limits.
"""

from __future__ import annotations

import errno
import os

from pytest_ocirun.linux import proc

PROCS = "cgroup.procs"


def join(pid: int, procs: list[str], *, born_in: str | None = None) -> None:
    """Move a process into cgroups and verify that the kernel counts it there.

    Args:
        pid: the process; 0 for the caller.
        procs: the cgroup.procs files, at most one for each hierarchy; files of other names are not verified.
        born_in: the cgroup v2 directory that it was cloned into, if it was.

    Raises:
        ProcessLookupError: it has ended.
        OSError: the kernel refuses, or counts it elsewhere.
    """
    for path in procs:
        write(path, str(pid))
    wanted = {os.path.dirname(path) for path in procs if path.endswith(PROCS)} | ({born_in} if born_in else set())
    if wanted:
        verify(pid, wanted)


def write(path: str, text: str) -> None:
    """Write one of the kernel's files."""
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


def verify(pid: int, wanted: set[str]) -> None:
    """Fail closed: a process that the kernel counts in another cgroup has no limits (CVE-2025-47291).

    Args:
        pid: the process; 0 for the caller.
        wanted: directories of cgroups, at most one for each hierarchy.

    Raises:
        ProcessLookupError: it has ended.
        OSError: EPERM, naming one of ``wanted`` that does not count it.
    """
    with open(f"/proc/{pid or 'self'}/cgroup", "rb") as file:
        found = [line.rstrip(b"\n").split(b":", 2)[2].decode("utf-8", "surrogateescape") for line in file]
    # There is one line per hierarchy, so each wanted directory must account for a line of its own.
    places = [path for path in found if path != "/" and any(directory.endswith(path) for directory in wanted)]
    lost = [directory for directory in wanted if not any(directory.endswith(path) for path in places)]
    if lost or len(places) < len(wanted):
        state = proc.stat(pid)
        if pid and (state is None or state[0] in "ZX"):
            raise ProcessLookupError(errno.ESRCH, "the container ended meanwhile")
        where = min(lost or wanted)
        raise OSError(errno.EPERM, "the kernel counts the new process in another cgroup", where)
