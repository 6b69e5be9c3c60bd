"""The spawner's side of making a process: prepare, clone, map, join, let go.

A plan is a plain JSON object:

    prepare     steps replayed here, before the clone
    join        [[slot, CLONE_NEW* flags], ...]: namespaces to be in before the clone; then an intermediate does it,
                whose last act is clone3(CLONE_PARENT), so that the new process is the spawner's child all the same
    pid_of      slot of a pidfd whose pid namespace the new process is born in, or null. The spawner itself points its
                pid_for_children there for the time of the clone: that saves the intermediate
    clone       CLONE_NEW* flags of the new process
    idmaps      [uid rows, gid rows] of a new user namespace, or null
    time_offsets [[clock, seconds, nanoseconds]] of a new time namespace, or null; an intermediate makes that too
    affinity    CPUs that the new process is born on, or null
    cgroups     {"procs": [cgroup.procs files], "v2": directory or null}
    oom_score   oom_score_adj, or null
    outside     steps replayed here on the new process, when it has joined its cgroup
    waits_itself  present if a step of ``enter`` awaits the spawner's word; else it comes before them all
    enter       steps replayed by the new process; the last one ends in execve

The conversation with the client, on the plan's own reply socket, is drawn in docs/architecture.md.
"""

from __future__ import annotations

import errno
import os

from pytest_ocirun.linux import fd_ranges, fds, mount, proc, sched, signals
from pytest_ocirun.oci import json_text
from pytest_ocirun.runtime import devices, place, prepare, process, rootfs  # noqa: F401 - some register the operations
from pytest_ocirun.runtime.idmap import write_maps
from pytest_ocirun.runtime.steps import Context, StepFailed, describe, load, replay

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Plan = dict[str, Any]

FAILED = 127
_MOST_TEXT = 2000


def spawn(plan: Plan, slots: dict[str, int]) -> tuple[int, int] | None:
    """Make the process that ``plan`` describes. Closes every fd of ``slots`` but ``reply``.

    Args:
        plan: as the module's docstring says.
        slots: fds that the plan's steps name; ``reply`` is the child's and the spawner's way to the client.

    Returns:
        (pid, pidfd) of the new process, or None when nothing was made; the client has been told which step failed.
    """
    context = Context(dict(slots))
    try:
        load(plan["prepare"])
        load(plan["enter"])
        load(plan["outside"])
        replay(plan["prepare"], context)
        pid, pidfd, go = _clone(plan, context)
    except StepFailed as failed:
        send_error(slots["reply"], failed.step, failed.error)
        _undo_prepare()
        return None
    except OSError as error:
        send_error(slots["reply"], None, error)
        return None
    finally:
        for fd in {*context.fds.values(), *context.mounts.values()} - {slots["reply"]}:
            os.close(fd)
    try:
        start_time = _let_go(plan, pid, go)
    except (OSError, StepFailed) as error:
        if not (plan.get("waits_itself") and isinstance(error, ProcessLookupError)):  # else it has told by itself
            send_error(slots["reply"], *((error.step, error.error) if isinstance(error, StepFailed) else (None, error)))
        sched.pidfd_send_signal(pidfd, sched.SIGKILL)
        sched.wait_status(pidfd)
        os.close(pidfd)
        return None
    finally:
        os.close(go)
    reply = fds.socket_of(slots["reply"])
    try:
        fds.send(reply, json_text.dumps({"event": "spawned", "pid": pid, "start_time": start_time}).encode(), [pidfd])
    except OSError:
        sched.pidfd_send_signal(pidfd, sched.SIGKILL)  # the client is gone, and nobody else knows of it
    finally:
        reply.detach()
    return pid, pidfd


def _clone(plan: Plan, context: Context) -> tuple[int, int, int]:
    if not plan["affinity"]:
        return _clone_here(plan, context)
    own = os.sched_getaffinity(0)
    os.sched_setaffinity(0, plan["affinity"])
    try:
        return _clone_here(plan, context)
    finally:
        os.sched_setaffinity(0, own)


def _clone_here(plan: Plan, context: Context) -> tuple[int, int, int]:
    wait, go = os.pipe2(os.O_CLOEXEC)
    cgroup = None
    try:
        if plan["cgroups"]["v2"]:
            cgroup = os.open(plan["cgroups"]["v2"], os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        if plan["join"] or plan["time_offsets"]:
            pid, pidfd = _clone_joined(plan, context, wait, cgroup)
        elif plan["pid_of"]:
            pid, pidfd = _clone_into_pid_namespace(plan, context, wait, cgroup)
        else:
            pid, pidfd = sched.clone3(plan["clone"], cgroup=cgroup)
            if pid == 0:
                _child(plan, context, wait)
    except OSError:
        os.close(go)
        raise
    finally:
        os.close(wait)
        if cgroup is not None:
            os.close(cgroup)
    return pid, pidfd, go


def _clone_into_pid_namespace(plan: Plan, context: Context, wait: int, cgroup: int | None) -> tuple[int, int]:
    own = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
    try:
        try:
            sched.setns(own, sched.CLONE_NEWPID)
        except PermissionError:
            # Without root there is no way back to the host's pid namespace, so somebody else goes.
            return _clone_joined({**plan, "join": [[plan["pid_of"], sched.CLONE_NEWPID]]}, context, wait, cgroup)
        sched.setns(context.fds[plan["pid_of"]], sched.CLONE_NEWPID)
        try:
            pid, pidfd = sched.clone3(plan["clone"], cgroup=cgroup)
            if pid == 0:
                _child(plan, context, wait)
        finally:
            sched.setns(own, sched.CLONE_NEWPID)
    finally:
        os.close(own)
    return pid, pidfd


def _clone_joined(plan: Plan, context: Context, wait: int, cgroup: int | None) -> tuple[int, int]:
    """Clone from an intermediate that has joined the namespaces; the child's parent is this process all the same."""
    answer_read, answer_write = os.pipe2(os.O_CLOEXEC)
    try:
        middle, middle_fd = sched.clone3(0, cgroup=cgroup)
        if middle == 0:
            _join_and_clone(plan, context, wait, answer_write)
        os.close(answer_write)
        answer_write = -1
        answer = fds.read_all(answer_read)
        sched.wait_status(middle_fd)
        os.close(middle_fd)
    finally:
        os.close(answer_read)
        if answer_write >= 0:
            os.close(answer_write)
    pid, number, text = json_text.loads(answer or '[0, 32, "the process that joins the namespaces was killed"]')
    if not pid:
        raise OSError(number, text)
    return pid, sched.pidfd_open(pid)


def _join_and_clone(plan: Plan, context: Context, wait: int, answer: int) -> None:
    try:
        if plan["time_offsets"]:
            _new_time_namespace(plan["time_offsets"])
        _join([(context.fds[slot], flags) for slot, flags in plan["join"]])
        pid, _pidfd = sched.clone3(plan["clone"] | sched.CLONE_PARENT, exit_signal=0)
        if pid == 0:
            _child(plan, context, wait)
        os.write(answer, json_text.dumps([pid, 0, ""]).encode())
    except OSError as error:
        os.write(answer, json_text.dumps([0, error.errno, error.strerror]).encode())
    finally:
        os._exit(0)


def _new_time_namespace(offsets: list[list[Any]]) -> None:
    """Make the time namespace of this process's next children; its clocks can be set until the first one is born."""
    sched.unshare(sched.CLONE_NEWTIME)
    try:
        place.write("/proc/self/timens_offsets", "".join(f"{clock} {secs} {nano}\n" for clock, secs, nano in offsets))
    except OSError as error:
        raise OSError(error.errno, f"set the clocks of the time namespace: {error.strerror}") from error


def _join(namespaces: list[tuple[int, int]]) -> None:
    for fd, flags in namespaces:
        try:
            sched.setns(fd, flags)
        except OSError as error:
            kind = next(kind for kind, flag in sched.NAMESPACES.items() if flag == flags)
            raise OSError(error.errno, f"join the {kind} namespace: {error.strerror}") from error


def _let_go(plan: Plan, pid: int, go: int) -> int:
    """Do to the new process what only its parent can do, then let it run; its start time.

    The time is read while the process waits: once it runs it may end, and be reaped, at any moment.
    """
    if plan["idmaps"]:
        write_maps(pid, plan["idmaps"])
    if plan["oom_score"] is not None:
        place.write(f"/proc/{pid}/oom_score_adj", str(plan["oom_score"]))
    place.join(pid, plan["cgroups"]["procs"], born_in=plan["cgroups"]["v2"])
    if plan["outside"]:
        context = Context({})
        context.pid = pid
        replay(plan["outside"], context)
    found = proc.stat(pid)
    os.write(go, b"g")
    return found[1] if found else 0


def _child(plan: Plan, context: Context, wait: int) -> None:
    """Wait for the spawner's word, replay the enter steps; never return."""
    try:
        signals.set_wakeup_fd(-1)  # the spawner's; its number will come to mean another file
        fd_ranges.close_all_but({wait, *context.fds.values(), *context.mounts.values()})
        if plan.get("waits_itself"):
            context.fds["go"] = wait
        elif os.read(wait, 1) == b"g":
            os.close(wait)
        else:
            os._exit(FAILED)
        replay(plan["enter"], context)
    except StepFailed as failed:
        send_error(context.fds.get("starter", context.fds["reply"]), failed.step, failed.error)
    except BaseException as error:  # noqa: BLE001 - a child that returned would run the spawner's code
        cause = OSError(errno.EINVAL, f"{type(error).__name__}: {error}")
        send_error(context.fds["reply"], None, cause)
    finally:
        os._exit(FAILED)


def send_error(fd: int, step: list[Any] | None, error: OSError) -> None:
    """Tell the client which step met which error; the client may be gone, which is nobody's problem."""
    message = failure(describe(step) if step else None, error) | {"operation": step[0] if step else None}
    sock = fds.socket_of(fd)
    try:
        fds.send(sock, json_text.dumps(message).encode())
    except OSError:
        pass
    finally:
        sock.detach()


def failure(attempt: str | None, error: Exception) -> dict[str, Any]:
    """The message that says what failed and why."""
    path = getattr(error, "filename", None)
    return {
        "event": "error",
        "step": None if attempt is None else _shortened(attempt),
        "operation": None,
        "errno": getattr(error, "errno", None) or 0,
        "text": _shortened(getattr(error, "strerror", None) or str(error)),
        "path": None if path is None else _shortened(str(path)),
    }


def _shortened(text: str) -> str:
    """A text that leaves room for others in one message, whatever a config put into it."""
    return text if len(text) <= _MOST_TEXT else f"{text[:_MOST_TEXT]}... ({len(text)} characters)"


def _undo_prepare() -> None:
    """An upper tmpfs that a failed prepare left attached goes."""
    try:
        mount.umount2(prepare.UPPER, mount.MNT_DETACH)
    except OSError:
        pass
