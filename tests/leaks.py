"""What a run of the suite leaves behind on the host: processes, mounts, cgroups, interfaces, state, files.

A snapshot before and one after; what is new and ours is a leak. What carries our name but could belong to
another run on the same machine counts only where the machine is ours alone (in CI). Knows nothing of pytest.
"""

import glob
import os
import time
import uuid
from collections.abc import Iterator
from typing import NamedTuple

SESSION_VARIABLE = "OCIRUN_TEST_SESSION"
"""In the environment of everything that the suite starts."""

NAME = "ocirun"
_STATE_ROOTS = ("/run/ocirun", f"/run/user/{os.getuid()}/ocirun")


class Thing(NamedTuple):
    """Something that can be left behind.

    Attributes:
        kind: what it is, for the reader.
        key: what tells it from others of its kind.
        text: how the report names it.
        certain: whether it can only be of this run.
    """

    kind: str
    key: str
    text: str
    certain: bool


Snapshot = dict[tuple[str, str], Thing]


def begin() -> Snapshot:
    """Mark what is started from here on as ours, and remember what is there already."""
    os.environ[SESSION_VARIABLE] = uuid.uuid4().hex
    return take()


def take() -> Snapshot:
    """All that is there now."""
    found = [*_processes(), *_mounts(), *_cgroups(), *_interfaces(), *_entries()]
    return {(thing.kind, thing.key): thing for thing in found}


def left(before: Snapshot, *, alone: bool, patience: float = 3.0) -> list[Thing]:
    """What is new since ``before``, after waiting up to ``patience`` seconds for what is ours to go.

    Args:
        before: what was there already.
        alone: whether all that carries our name is ours, as no other run shares the machine.
        patience: how long a process may take to end, or another process to clean up after it.
    """
    deadline = time.monotonic() + patience
    while True:
        new = [thing for key, thing in take().items() if key not in before]
        if not any(thing.certain or alone for thing in new) or time.monotonic() > deadline:
            return sorted(new)
        time.sleep(0.1)


def _read(path: str) -> str:
    """A file of /proc, empty when its process is gone."""
    try:
        with open(path, "rb") as file:
            return file.read().decode(errors="replace")
    except OSError:
        return ""


def _processes() -> Iterator[Thing]:
    """Descendants of this process, whatever carries our variable, and whatever names us."""
    stats: dict[int, list[str]] = {}
    for pid in map(int, filter(str.isdigit, os.listdir("/proc"))):
        stat = _read(f"/proc/{pid}/stat").rpartition(")")[2].split()
        if stat:
            stats[pid] = stat
    mark = f"{SESSION_VARIABLE}={os.environ[SESSION_VARIABLE]}"
    for pid, stat in stats.items():
        if pid == os.getpid():
            continue
        command = _read(f"/proc/{pid}/cmdline").replace("\0", " ").strip() or f"[{_read(f'/proc/{pid}/comm').strip()}]"
        certain = _descends(pid, stats) or mark in _read(f"/proc/{pid}/environ").split("\0")
        if certain or f"/{NAME}" in _read(f"/proc/{pid}/cgroup") or f"pytest_{NAME}" in command:
            yield Thing("process", f"{pid} {stat[19]}", f"{pid} (state {stat[0]}): {command[:150]}", certain)


def _descends(pid: int, stats: dict[int, list[str]]) -> bool:
    while pid in stats and pid != os.getpid():
        pid = int(stats[pid][1])
    return pid == os.getpid()


def _mounts() -> Iterator[Thing]:
    for line in _read("/proc/self/mountinfo").splitlines():
        if NAME in line:
            yield Thing("mount", line.split()[0], line, certain=False)


def _cgroups() -> Iterator[Thing]:
    for folder, names, _ in os.walk("/sys/fs/cgroup"):
        for name in names:
            if NAME in name or NAME in folder:
                path = os.path.join(folder, name)
                # The root that all containers share is made once and kept.
                if name != NAME:
                    yield Thing("cgroup", path, path, certain=False)


def _interfaces() -> Iterator[Thing]:
    for path in (*glob.glob("/sys/class/net/*"), *glob.glob("/run/netns/*")):
        yield Thing("network", path, path, NAME in path or "/oci" in path)


def _entries() -> Iterator[Thing]:
    roots = {*_STATE_ROOTS, os.path.join(os.environ.get("XDG_RUNTIME_DIR", "/run"), NAME)}
    for root in roots:
        # What begins with @ is shared by all containers and kept; only work in progress must be gone.
        for path in (*glob.glob(f"{root}/[!@]*"), *glob.glob(f"{root}/@work/*")):
            yield Thing("state", path, path, certain=False)
