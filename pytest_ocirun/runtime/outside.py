"""A process that stays outside the stage, to run hooks in the namespaces of whoever called the runtime.

Hooks of the runtime's namespaces (``prestart``, ``createRuntime``, ``poststart``, ``poststop``) must not run where
containers are made: on the stage mounts are private, and without root another user is named. So before a process
enters the stage for a config that has hooks it leaves a fork of itself behind, which runs them when asked over a
socket, and ends with that socket; a hook that runs then is killed. Must not know: containers, or which hooks there are.

Messages::

    stage   -> outside   run + a file in memory: {"kind", "hooks", "state", "first", "cwd"}
    stage   -> outside   stop                                   nobody waits for the hook that runs any more
    outside -> stage     {"problem": what hooks.run said, or null}      to each run, also when it is stopped
"""

from __future__ import annotations

import os

from pytest_ocirun.errors import HookFailed, ProtocolError
from pytest_ocirun.linux import fd_ranges, fds, signals
from pytest_ocirun.oci import json_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn


def leave_behind() -> int:
    """Fork the process that stays; a fd, which passes through execve, of the socket to it."""
    ours, theirs = fds.seqpacket_pair()
    if os.fork() == 0:
        _serve(theirs)
    theirs.close()
    os.set_inheritable(ours.fileno(), True)
    return ours.detach()


def runner(fd: int, before_waiting: Callable[[int], None] | None = None) -> Callable[..., None]:
    """What runs hooks as ``hooks.run`` does, but outside.

    Args:
        fd: as ``leave_behind`` gave it.
        before_waiting: called with it before each wait; it may wait itself, and raise.
    """
    os.set_inheritable(fd, False)
    sock = fds.socket_of(fd)
    stopped = 0

    def run(
        kind: str, hooks: list[dict[str, Any]], state: dict[str, Any], *, first: int = 0, cwd: str | None = None
    ) -> None:
        nonlocal stopped
        while stopped:
            fds.receive(sock)  # what became of a hook that nobody waited for
            stopped -= 1
        request = {"kind": kind, "hooks": hooks, "state": state, "first": first, "cwd": cwd}
        memory = fds.memfd("hooks", json_text.dumps(request).encode())
        try:
            fds.send(sock, b"run", [memory])
            if before_waiting is not None:
                before_waiting(sock.fileno())
            answer, _none = fds.receive(sock)
        except BaseException:
            _stop(sock)
            stopped += 1
            raise
        finally:
            os.close(memory)
        if not answer:
            raise ProtocolError(f"run the {kind} hooks: the process that was to run them has ended")
        problem = json_text.loads(answer)["problem"]
        if problem is not None:
            raise HookFailed(problem)

    return run


def _stop(sock: fds.Socket) -> None:
    try:
        fds.send(sock, b"stop")
    except OSError:
        pass  # who runs hooks is gone, and so is the hook


def _serve(control: fds.Socket) -> NoReturn:
    """Run hooks until the socket ends; nothing of the caller's is kept open."""
    try:
        os.setsid()
        os.chdir("/")
        signals.reset()
        null = os.open(os.devnull, os.O_RDWR)
        for number in range(3):
            os.dup2(null, number)
        fd_ranges.close_all_but({control.fileno()})
        while _answer(control):
            pass
    finally:
        os._exit(0)


def _answer(control: fds.Socket) -> bool:
    from pytest_ocirun.runtime import hooks

    request, received = fds.receive(control)
    if request != b"run":
        return bool(request)
    asked = json_text.loads(fds.read_all(received[0]))
    os.close(received[0])
    problem = None
    try:
        hooks.run(
            asked["kind"], asked["hooks"], asked["state"], first=asked["first"], cwd=asked["cwd"], stop=control.fileno()
        )
    except HookFailed as failed:
        problem = failed.message
    fds.send(control, json_text.dumps({"problem": problem}).encode())
    return True
