"""The client's view of one spawned process: its reply socket, its pidfd and its end.

Messages on the reply socket, in any order until the last::

    spawner -> client   {"event": "spawned", "pid": N, "start_time": N} + pidfd
    child   -> client   {"event": "console"} + pty master       terminal: true
    child   -> client   {"event": "mounted"}                    prestart or createRuntime hooks: may they run now?
    client  -> child    go                                      they have run
    client  -> child    keep                                    a container that waits for its start is written down
    child   -> client   {"event": "filtering"} + shared page    a filter is about to be loaded; see listener
    child   -> client   {"event": "ready"}                      a container waits for its start
    zygote  -> client   {"event": "removed"}                    what a container's init owned is gone
    either  -> client   {"event": "error", "step", "errno", "text", ...}
    zygote  -> client   {"event": "exit", "status": N}          a local spawner reaps instead, and the socket just ends
"""

from __future__ import annotations

import errno
import os

from pytest_ocirun.errors import HookFailed, KernelRefused, OcirunError, ProtocolError, WrongStatus
from pytest_ocirun.linux import fds, pidfd
from pytest_ocirun.oci import json_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Self

__tracebackhide__ = True  # in a failed test's traceback the test's own lines are what matters

_HINTS = {
    "find_executable": "Is the program in the image, and the PATH in the environment right?",
    "rlimit": "Ask for a lower limit, or run ocirun with CAP_SYS_RESOURCE.",
    "raise_limit": "Ask for a lower limit, or run ocirun with CAP_SYS_RESOURCE.",
    "schedule": "It takes CAP_SYS_NICE; real time also linux.resources.cpu.realtimeRuntime, where that is grouped.",
    "affinity": "At least one of the CPUs must be in the container's cpuset.",
    "memory_policy": "The kernel must know the mode, and a node must be in the container's cpuset.",
    "set_label": "The security module must have the label's policy loaded.",
    "become_root": "A user namespace can only be entered as one of its own ids: 0 must be mapped.",
}


class NotRun(KernelRefused):
    """A spare met an error before its program ran. Not for users: whoever asked for the program asks again."""


class Child:
    """A process that a spawner made for us.

    Args:
        reply: our end of its reply socket.
        local: the spawner is this very process, so we reap.
        before_waiting: called with the reply socket's fd before each wait for a message; it may wait itself, and raise.
    """

    def __init__(
        self, reply: fds.Socket, *, local: bool = False, before_waiting: Callable[[int], None] | None = None
    ) -> None:
        self._reply = reply
        self._local = local
        self._before_waiting = before_waiting
        self.pid = 0
        self.start_time = 0
        self.pidfd = -1
        self.console: int | None = None
        self.on_mounted: Callable[[], None] | None = None
        self.on_filtering: Callable[[int], None] | None = None
        self._mounted = False
        self._listener = -1
        self._ready = False
        self._ended = False
        self._removed = False
        self._status: int | None = None
        self._error: OcirunError | None = None

    @classmethod
    def adopt(cls, message: dict[str, Any], received: list[int]) -> Self:
        """The child that another process has ``handed_over``."""
        pidfd, reply = received
        child = cls(fds.socket_of(reply))
        child.pid, child.start_time, child.pidfd = message["pid"], message["start_time"], pidfd
        child._ready = True
        return child

    def handed_over(self) -> tuple[dict[str, Any], list[int]]:
        """What another process needs to ``adopt`` it, as a message and its fds; ``close`` it after they are sent."""
        return {"pid": self.pid, "start_time": self.start_time}, [self.pidfd, self._reply.fileno()]

    def wait_ready(self) -> None:
        """Wait until the container is created; ``on_mounted`` is called when its mounts are there and it waits for us.

        Raises:
            KernelRefused: a step failed; the message names it.
            HookFailed: a hook of the container's namespaces failed.
            ProtocolError: the process was killed before it said anything.
        """
        while not (self._ready and self.pid):
            if self._mounted and self.pid and self.on_mounted is not None:
                self._mounted = False
                self.on_mounted()
                self._answer(b"go")
            self._hand_over()
            if not self._receive():
                self._raise_dead()
        if self._error is not None:
            self._raise_dead()

    def is_ready(self) -> bool:
        """Whether ``wait_ready`` would not wait, be it for good news or bad."""
        while not (self._ready and self.pid) and fds.readable(self._reply.fileno()):
            if not self._receive():
                return True
        return self._ready and bool(self.pid)

    def wait_spawned(self) -> None:
        """Wait until the process exists.

        Raises:
            KernelRefused: it could not be made.
            ProtocolError: the spawner is gone.
        """
        while not self.pid:
            if not self._receive():
                self._raise_dead()

    def wait_started(self, pipe: int) -> None:
        """Wait until execve has closed the write end of ``pipe``, or a step failed.

        Raises:
            KernelRefused: the step.
        """
        os.read(pipe, 1)
        while self._error is None and fds.readable(self._reply.fileno()) and self._receive():
            pass
        if self._error is not None:
            self._raise_dead()

    def wait_executed(self) -> None:
        """Wait until execve has closed the child's end (only of a local spawner), or a step failed.

        Raises:
            KernelRefused: the step.
        """
        while self._receive():
            pass
        if self._error is not None:
            self._raise_dead()

    def send(self, data: bytes, passed: list[int]) -> None:
        """Send one message with fds to a process that waits for it.

        Raises:
            OSError: it has ended.
        """
        if fds.readable(self._reply.fileno()):
            raise ProcessLookupError(errno.ESRCH, "the process has ended")
        fds.send(self._reply, data, passed)

    def wait_console(self) -> None:
        """Wait for the master of the process's terminal, or for what kept it from being made; with a terminal only."""
        while self.console is None and self._receive():
            pass

    def reply_fd(self) -> int:
        """A fd that is readable when there is something to ``wait_executed`` for."""
        return self._reply.fileno()

    def fileno(self) -> int:
        """A fd that is readable when there is news, at the latest when the process has ended."""
        return self.pidfd if self._local else self._reply.fileno()

    def poll(self) -> int | None:
        """The wait status, or None while the process runs; does not block.

        Raises:
            KernelRefused: a step failed after the process had been made, so the program never ran.
            WrongStatus: the container that it was to join had ended.
        """
        while self._status is None and fds.readable(self.fileno()):
            self._advance()
        return self._end()

    def wait(self) -> int:
        """Wait for the end; the wait status as ``os.waitpid`` gives it.

        Raises:
            KernelRefused: as ``poll``.
        """
        while self._status is None:
            self._advance()
        status = self._end()
        if status is None:
            raise ProtocolError(f"wait for process {self.pid}: no status")
        return status

    def wait_ended(self) -> None:
        """Wait until it runs no more, by its pidfd: also when its spawner is gone and nobody tells."""
        if self.pidfd >= 0:
            fds.readable(self.pidfd, None)

    def kill(self) -> None:
        """SIGKILL, if it still runs."""
        if self.pidfd >= 0:
            pidfd.pidfd_send_signal(self.pidfd, pidfd.SIGKILL)

    def removed(self) -> bool:
        """Whether the zygote has removed what this init owned, as it was asked to; does not block.

        Raises:
            KernelRefused: it could not.
        """
        while not self._removed and fds.readable(self._reply.fileno()):
            self._receive_removal()
        return self._removed

    def wait_removed(self) -> None:
        """Wait until the zygote has removed what this init owned.

        Raises:
            KernelRefused: it could not.
        """
        while not self._removed:
            self._receive_removal()

    def _receive_removal(self) -> None:
        data, _none = fds.receive(self._reply)
        if not data:
            self._raise_dead()
        message = json_text.loads(data)
        if message["event"] == "error":
            raise refused(message)
        self._take(message, [])

    def end(self) -> None:
        """Kill it if it was made at all, wait until it has ended, and let go of it."""
        try:
            self.wait_spawned()
            self.kill()
            self.wait()
        except (KernelRefused, HookFailed, WrongStatus, ProtocolError):
            pass  # it was never made, or never became its program; either way it is gone
        finally:
            self.close()

    def close(self) -> None:
        """Let go of it; it goes on if it runs."""
        self._reply.close()
        for fd in (self.pidfd, self.console):
            if fd is not None and fd >= 0:
                os.close(fd)
        self.pidfd, self.console = -1, None

    def keep(self) -> None:
        """Tell a container that waits for its start that it is known, so that it stays when we end."""
        self._answer(b"keep")

    def _answer(self, word: bytes) -> None:
        try:
            fds.send(self._reply, word)
        except OSError:
            pass  # it has ended; what is received next says so

    def _advance(self) -> None:
        if self._local:
            while not self._ended and fds.readable(self._reply.fileno()) and self._receive():
                pass
            self._status = pidfd.wait_status(self.pidfd)
            while not self._ended and self._receive():
                pass
        elif not self._receive():
            self._raise_dead()

    def _end(self) -> int | None:
        if self._status is not None and self._error is not None:
            raise self._error
        return self._status

    def _receive(self) -> bool:
        """Take one message; False when there is none to come."""
        if self._ended:
            return False
        if self._before_waiting is not None:
            self._before_waiting(self._reply.fileno())
        try:
            data, received = fds.receive(self._reply)
        except ConnectionResetError:  # it was killed before it had read what we told it
            data, received = b"", []
        if not data:
            self._ended = True
            return False
        self._take(read_message(data), received)
        self._hand_over()
        return True

    def _hand_over(self) -> None:
        """Have a process that loads a filter wait no longer for somebody to take the filter's listener."""
        if self._listener >= 0 and self.pid and self.on_filtering is not None:
            memory, self._listener = self._listener, -1
            try:
                self.on_filtering(memory)
            except BaseException:
                self.kill()  # it would look at the page for long
                raise
            finally:
                os.close(memory)

    def _take(self, message: dict[str, Any], received: list[int]) -> None:
        event = message["event"]
        if event == "spawned":
            self.pid, self.start_time, self.pidfd = message["pid"], message["start_time"], received[0]
        elif event == "console":
            self.console = received[0]
        elif event == "mounted":
            self._mounted = True
        elif event == "filtering":
            self._listener = received[0]
        elif event == "ready":
            self._ready = True
        elif event == "removed":
            self._removed = True
        elif event == "exit":
            self._status = message["status"]
            self._ended = True
        elif event in ("error", "unfit"):
            self._error = refused(message)
            if not self.pid and message["step"] is None:
                self._ended = True
        else:
            raise ProtocolError(f"the spawner sent an unknown event {event!r}")

    def _raise_dead(self) -> None:
        if self._error is not None:
            raise self._error
        if self._status is None and not self._local:  # a zygote tells every end; only its own is silent
            who = f"process {self.pid}" if self.pid else "the process"
            raise ProtocolError(
                f"wait for {who}: the zygote that made it has ended, and all that it made with it",
                hint="Was it killed, perhaps for lack of memory?",
            )
        raise ProtocolError(
            "the process was killed while it was being set up",
            hint="Was its memory or pids limit too small to start anything?",
        )


def read_message(data: bytes) -> dict[str, Any]:
    """A message of the spawner or of its child; behind that of the usher stands the errno of its execve, as a byte."""
    if data.endswith(b"}"):
        plain: dict[str, Any] = json_text.loads(data)
        return plain
    number = data[-1]
    return {**json_text.loads(data[:-1]), "errno": number, "text": os.strerror(number)}


def refused(message: dict[str, Any]) -> OcirunError:
    """The error that a message of the child or the spawner stands for."""
    if message["event"] == "unfit":
        return NotRun("run a program by a spare: an ordinary exec tells why not", errno=0)
    if message["operation"] == "run_hooks":
        return HookFailed(message["text"])
    if message["operation"] == "join_init" and message["errno"] == errno.ESRCH:
        return WrongStatus("exec in a container: it ended meanwhile")
    what = message["step"] or "make the process"
    path = f" ({message['path']})" if message["path"] else ""
    hint = _HINTS.get(message["operation"] or "")
    return KernelRefused(f"{what}: {message['text']}{path}", errno=message["errno"], hint=hint)
