"""Cgroup directories and the processes in them: what every version does alike.

Responsible for: resolving ``cgroupsPath``, making directories so that a failure can be unwound, listing and
killing processes, waiting, removing. Must not know: controllers, limits.
"""

from __future__ import annotations

import errno
import os
import select
import stat
import time

from pytest_ocirun.errors import ConfigError, ContainerExists, KernelRefused, Unsupported

from . import BASE, knobs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import TypeVar

    T = TypeVar("T")

KILL_SECONDS = 10.0
_BUILD_ATTEMPTS = 20
_GONE = (errno.ENOENT, errno.ENODEV)
_SHORTEST_SLEEP = 0.0005
_LONGEST_SLEEP = 0.02


def component(name: str, what: str) -> str:
    """Check that ``name`` is one path component.

    Raises:
        ConfigError: naming ``what`` it is meant for.
    """
    if not name or name in {".", ".."} or "/" in name or "\0" in name or "\n" in name:
        raise ConfigError(f"{name!r} cannot name {what}: expected a single path component")
    return name


def resolve(path: str | None, container_id: str) -> tuple[bool, str]:
    """Turn ``cgroupsPath`` into (from the top of the hierarchy?, clean relative path).

    Raises:
        ConfigError: the path has ``..``, or names a place that is not a container's.
    """
    if not path:
        return False, f"{BASE}/{component(container_id, 'a cgroup')}"
    parts = [part for part in path.split("/") if part not in {"", "."}]
    absolute = path.startswith("/")
    if ".." in parts or "\0" in path or "\n" in path:
        raise ConfigError(f"cgroupsPath {path!r} leads upwards or has a control character", hint="name a plain path")
    if not parts or (absolute and parts == [BASE]):
        raise ConfigError(
            f"cgroupsPath {path!r} is not a container's own cgroup",
            hint=f"leave it out for /{BASE}/ID, or name a cgroup below the top, for example /{BASE}/NAME",
        )
    return absolute, "/".join(parts if absolute else [BASE, *parts])


class Made:
    """The directories that one set-up made, in order; unwinds them if the set-up fails."""

    __slots__ = ("paths",)

    def __init__(self) -> None:
        self.paths: list[str] = []

    def mkdir(self, path: str) -> bool:
        """Make a directory; say whether it is new.

        Raises:
            ConfigError: a file of the kernel's has the name.
            KernelRefused: it cannot be made, or was there and is gone again (ENOENT).
        """
        try:
            os.mkdir(path, 0o755)
        except FileExistsError:
            try:
                found = os.stat(path)
            except OSError as error:
                raise knobs.refused(f"cannot make the cgroup {path}", error) from error
            if stat.S_ISDIR(found.st_mode):
                return False
            raise ConfigError(f"cannot make the cgroup {path}: a file of the kernel's has that name") from None
        except OSError as error:
            hint = "the parent takes no more cgroups" if error.errno == errno.EAGAIN else None
            raise knobs.refused(f"cannot make the cgroup {path}", error, hint) from error
        self.paths.append(path)
        return True

    def unwind(self) -> None:
        """Remove what was made, last first; what is in use by now stays."""
        for path in reversed(self.paths):
            try:
                os.rmdir(path)
            except OSError:
                pass


def replace_leftover(path: str) -> None:
    """Clear away the empty cgroup of a container that is gone.

    Raises:
        ContainerExists: it holds processes.
    """
    if not os.path.isdir(path):
        return
    pids = processes(path)
    if not pids:
        try:
            remove_tree(path)
            return
        except OSError:
            pids = processes(path)
    raise ContainerExists(
        f"the cgroup {path} is in use by another container: processes {_listed(pids)}",
        hint="choose another container id, or name a cgroupsPath",
    )


def directories(path: str) -> list[str]:
    """List a cgroup and all below it, deepest first; what vanishes meanwhile is left out."""
    return [directory for directory, _, _ in os.walk(path, topdown=False)]


def processes(path: str) -> list[int]:
    """List the pids in a cgroup and below; 0 stands for one outside the caller's pid namespace."""
    found: set[int] = set()
    for directory in directories(path):
        found.update(int(line) for line in (knobs.read_or_none(f"{directory}/cgroup.procs") or "").split())
    return sorted(found)


def join(path: str, pid: int) -> None:
    """Write ``pid`` into a ``cgroup.procs`` file.

    Raises:
        KernelRefused: naming the file.
    """
    try:
        knobs.put(path, str(pid))
    except OSError as error:
        raise knobs.refused(f"cannot move process {pid} into its cgroup (write to {path})", error) from error


def kill_all(path: str, timeout: float = KILL_SECONDS) -> None:
    """SIGKILL everything in a cgroup and below until nothing is left.

    For kernels without ``cgroup.kill``: the caller has stopped forks first, or this may take some rounds. A
    pid is opened before it is listed a second time, so what is signalled was in the cgroup, whatever became
    of the number.

    Raises:
        KernelRefused: something was left after ``timeout`` seconds.
    """
    deadline = time.monotonic() + timeout
    for _ in _pauses(deadline):
        pids = processes(path)
        if not pids:
            return
        _signal_members(path, pids)
    raise KernelRefused(
        f"cannot kill all processes of the cgroup {path}: {_listed(processes(path))} are left",
        errno=errno.EBUSY,
        hint="a process in uninterruptible sleep, or one outside this pid namespace, has to end by itself",
    )


def _signal_members(path: str, pids: list[int]) -> None:
    opened: list[tuple[int, int]] = []
    try:
        for pid in pids:
            try:
                opened.append((pid, os.pidfd_open(pid)))
            except OSError as error:
                if error.errno not in (errno.ESRCH, errno.EINVAL):
                    raise knobs.refused(f"cannot open process {pid} of the cgroup {path}", error) from error
        still = set(processes(path))
        for pid, fd in opened:
            if pid in still:
                _signal(fd, pid)
    finally:
        for _, fd in opened:
            os.close(fd)


def _signal(fd: int, pid: int) -> None:
    import signal  # 7 ms, for the enum module: not for those who only make cgroups

    try:
        signal.pidfd_send_signal(fd, signal.SIGKILL)
    except ProcessLookupError:
        pass
    except OSError as error:
        raise knobs.refused(f"cannot kill process {pid}", error) from error


def wait_events(path: str, key: str, value: int, timeout: float) -> bool:
    """Wait until ``key`` of a v2 ``cgroup.events`` is ``value``; a vanished cgroup counts as there.

    The kernel wakes pollers of the file for POLLPRI at each change since their last read (cgroup-v2.rst).
    """
    deadline = time.monotonic() + timeout
    try:
        fd = os.open(f"{path}/cgroup.events", os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in _GONE:
            return True
        raise
    try:
        poller = select.poll()
        poller.register(fd, select.POLLPRI)
        while f"{key} {value}" not in os.pread(fd, 4096, 0).decode("ascii").splitlines():
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            poller.poll(left * 1000)
    except OSError as error:
        if error.errno in _GONE:
            return True
        raise
    finally:
        os.close(fd)
    return True


def wait_until(condition: Callable[[], bool], timeout: float) -> bool:
    """Wait for what the kernel gives no event for (v1): ask again after pauses of 0.5 to 20 ms."""
    return any(condition() for _ in _pauses(time.monotonic() + timeout))


def _pauses(deadline: float) -> Iterator[None]:
    yield
    pause = _SHORTEST_SLEEP
    while time.monotonic() < deadline:
        time.sleep(pause)
        pause = min(pause * 2, _LONGEST_SLEEP)
        yield


def remove_tree(path: str) -> None:
    """Remove a cgroup and all below it; one that is gone is fine.

    Raises:
        OSError: EBUSY while processes are in it; others as rmdir(2) says.
    """
    for directory in directories(path):
        try:
            os.rmdir(directory)
        except FileNotFoundError:
            pass


def remove_all(paths: Iterable[str], timeout: float) -> None:
    """Remove whole cgroup trees, waiting for processes that are exiting.

    An exiting process leaves its cgroup a moment after its parent could reap it, and v1 has no event for
    that: the removal is tried again after short pauses, until ``timeout``.

    Raises:
        KernelRefused: naming the cgroup and its processes.
    """
    deadline = time.monotonic() + timeout
    for path in paths:
        last: OSError | None = None
        for _ in _pauses(deadline):
            try:
                remove_tree(path)
                last = None
                break
            except OSError as error:
                last = error
                if error.errno not in (errno.EBUSY, errno.ENOTEMPTY):
                    break
        if last is not None:
            attempt = f"cannot remove the cgroup {path} (processes: {_listed(processes(path)) or 'none'})"
            raise knobs.refused(attempt, last, "kill the processes first") from last


def remove_parents(paths: Iterable[str]) -> None:
    """Remove directories that were made on the way to a cgroup, unless others use them by now."""
    for path in paths:
        try:
            os.rmdir(path)
        except OSError:
            pass


def check_restored(path: object) -> str:
    """Check that a path from a state file can be a cgroup of ours.

    Raises:
        ConfigError: it is not absolute and clean, or it is the top of a hierarchy.
    """
    if not isinstance(path, str) or not path.startswith("/") or os.path.normpath(path) != path:
        raise ConfigError(f"{path!r} is not the path of a cgroup")
    parent = os.path.dirname(path)
    if os.path.isdir(parent) and not os.path.exists(f"{parent}/cgroup.procs"):
        raise ConfigError(f"{path!r} is not below a cgroup hierarchy")
    return path


def _listed(pids: list[int], most: int = 8) -> str:
    return ", ".join(map(str, pids[:most])) + (", ..." if len(pids) > most else "")


def build(attempt: Callable[[Made], T]) -> T:
    """Run a set-up, unwind it when it fails, and start again when a directory vanished under it.

    The shared parent may be pruned by another process between our mkdir(2) of it and the next below it.
    """
    for left in reversed(range(_BUILD_ATTEMPTS)):
        made = Made()
        try:
            return attempt(made)
        except KernelRefused as error:
            made.unwind()
            if error.errno not in _GONE or not left:
                raise
        except BaseException:
            made.unwind()
            raise
    raise AssertionError("unreachable")


def new_child(made: Made, parent: str, name: str) -> str:
    """Make the cgroup ``name`` below ``parent``, which must be new.

    Raises:
        ConfigError: the name is not one path component.
        KernelRefused: it exists, or cannot be made.
    """
    path = f"{parent}/{component(name, 'a cgroup')}"
    if not made.mkdir(path):
        raise KernelRefused(f"cannot make the cgroup {path}: it exists", errno=errno.EEXIST)
    return path


def require_own(path: str, made: list[str]) -> None:
    """Check that a cgroup was made by us, before all that lives in it is killed.

    Raises:
        Unsupported: it was there before.
    """
    if path not in made:
        raise Unsupported(
            f"cannot kill the cgroup {path}: it was there before the container, and may hold other processes",
            hint="kill the container's first process, or give the container a cgroupsPath of its own",
        )


def remove_made(paths: Iterable[str], made: list[str], timeout: float) -> None:
    """Remove the ``paths`` that were made by us, then the parents made on the way, but for the shared one.

    Raises:
        KernelRefused: processes are left in one of ``paths``.
    """
    own = [path for path in dict.fromkeys(paths) if path in made]
    remove_all(own, timeout)
    remove_parents(path for path in reversed(made) if path not in own and os.path.basename(path) != BASE)


def descend(made: Made, mount: str, relative: str, *, cpuset: bool) -> None:
    """Make the directories of one v1 hierarchy; a new cpuset is empty, and takes no process until filled.

    Raises:
        KernelRefused: one cannot be made or filled.
    """
    directory = mount
    for part in relative.split("/"):
        parent, directory = directory, f"{directory}/{part}"
        made.mkdir(directory)
        for name in ("cpuset.cpus", "cpuset.mems") if cpuset else ():
            try:
                if not knobs.read(f"{directory}/{name}"):
                    knobs.put(f"{directory}/{name}", knobs.read(f"{parent}/{name}"))
            except OSError as error:
                raise knobs.refused(f"cannot copy {name} from {parent} to {directory}", error) from error
