"""Hooks: running the programs that a config names for points of a container's life, one after the other.

Responsible for: the state on stdin, exactly the given environment, the time limit, and saying which hook failed and
what it said. Used by whoever has to run them: the client for those of the runtime's namespaces, the container's own
process for those of the container's. Must not know: which point of the life it is (``hook_points``), or containers.
Source: runtime-spec config.md, "POSIX-platform Hooks".
"""

from __future__ import annotations

import os
import select
import time

from pytest_ocirun.errors import HookFailed
from pytest_ocirun.linux import fds
from pytest_ocirun.oci import json_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable
    from typing import Any

    Hook = dict[str, Any]
    State = dict[str, Any]

_MOST_OUTPUT = 1000
_CHUNK = 65536
_SIGKILL = 9


def preload() -> None:
    """Import what ``run`` needs: inside a container nothing can be imported any more."""
    import subprocess  # noqa: F401


def run(
    kind: str,
    hooks: list[Hook],
    state: State,
    *,
    first: int = 0,
    cwd: str | None = None,
    stop: int | None = None,
    before_execution: Callable[[], object] | None = None,
) -> None:
    """Run the hooks of one point in the order of the config, until one fails.

    Args:
        kind: the name of their list in the config.
        hooks: as the config has them.
        state: the container's state, their standard input.
        first: where in their list the first of them stands.
        cwd: where they start; where the caller is if not given.
        stop: a fd; when it is readable or at its end, the hook that runs is killed.
        before_execution: called in each new process right before its program replaces it.

    Raises:
        HookFailed: the message begins with the hook's path in the config.
    """
    text = json_text.dumps(state).encode()
    for index, hook in enumerate(hooks, first):
        problem = _run_one(hook, text, cwd, stop, before_execution)
        if problem:
            raise HookFailed(f"$.hooks.{kind}[{index}]: {hook['path']}: {problem}")


def _run_one(
    hook: Hook, text: bytes, cwd: str | None, stop: int | None, before_execution: Callable[[], object] | None
) -> str:
    """Why a hook failed; empty if it did not."""
    from subprocess import Popen, SubprocessError

    state = fds.memfd("state", text)
    output, inside = os.pipe2(os.O_CLOEXEC)
    try:
        process = Popen(
            hook.get("args") or [hook["path"]],
            executable=hook["path"],
            env=dict(item.split("=", 1) for item in hook.get("env") or []),
            stdin=state,
            stdout=inside,
            stderr=inside,
            cwd=cwd,
            start_new_session=True,
            preexec_fn=before_execution,  # noqa: PLW1509 - given only inside a container, in a process without threads
            close_fds=before_execution is None,  # with a filter loaded by then, nothing but execve is sure to work
        )
    except OSError as error:
        os.close(output)
        return error.strerror or str(error)
    except SubprocessError as error:
        os.close(output)
        return str(error)
    finally:
        os.close(state)
        os.close(inside)
    try:
        return _attend(process, hook.get("timeout"), output, stop)
    finally:
        os.close(output)


def _attend(process: subprocess.Popen[bytes], timeout: int | None, output: int, stop: int | None) -> str:
    """Wait for a hook's end and read what it says, as long as it may take."""
    pidfd = os.pidfd_open(process.pid)
    said = bytearray()
    try:
        reason = _wait(pidfd, output, stop, None if timeout is None else time.monotonic() + timeout, said)
        if reason == "timeout":
            return f"killed after {timeout} s, its timeout{_told(said)}"
        if reason == "stop":
            return "killed, since who asked for it is gone"
        _read(output, said, once=False)
        code = process.wait()
        if code == 0:
            return ""
        return f"{f'exit status {code}' if code > 0 else f'killed by signal {-code}'}{_told(said)}"
    finally:
        if process.returncode is None:
            _kill(process)
        os.close(pidfd)


def _wait(pidfd: int, output: int, stop: int | None, deadline: float | None, said: bytearray) -> str:
    """Wait for whatever comes first: the hook's end, the deadline or the stop; which one."""
    poller = select.poll()
    for fd in (pidfd, output, stop):
        if fd is not None:
            poller.register(fd, select.POLLIN)
    os.set_blocking(output, False)
    while True:
        left = None if deadline is None else deadline - time.monotonic()
        if left is not None and left <= 0:
            return "timeout"
        for fd, _events in poller.poll(None if left is None else left * 1000 + 1):
            if fd == pidfd:
                return "end"
            if fd == stop:
                return "stop"
            if not _read(output, said, once=True):
                poller.unregister(output)


def _read(output: int, said: bytearray, *, once: bool) -> bool:
    """Take what a hook said, and keep the end of it; False when nobody can say more."""
    while True:
        try:
            part = os.read(output, _CHUNK)
        except BlockingIOError:
            return True
        said += part
        del said[:-_MOST_OUTPUT]
        if not part or once:
            return bool(part)


def _kill(process: subprocess.Popen[bytes]) -> None:
    """The hook and what it has started, unless that has left the session's first process group."""
    try:
        os.killpg(process.pid, _SIGKILL)
    except ProcessLookupError:
        pass
    process.kill()
    process.wait()


def _told(said: bytearray) -> str:
    text = said.decode(errors="backslashreplace").strip()
    return f": {text}" if text else ""
