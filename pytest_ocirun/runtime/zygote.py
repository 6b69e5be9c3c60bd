"""The zygote: a single-threaded fork server, one per client process, no daemon.

It reads plans and fds from its control socket, spawns, and reports each process's end on that process's own reply
socket. It never blocks on one child. When the client goes, however it goes, the control socket ends: then everything
that still runs is killed and what the containers owned is removed.

Requests, each one SOCK_SEQPACKET message with fds:

    {"op": "spawn", "slots": [names of the fds, "plan" and "reply" among them], "owns": {...} or null}
    {"op": "make", ...}             see ``workshop``
    {"op": "remove", "id": ...}     end the container, remove what it owns, and say "removed" on its init's reply socket
    {"op": "forget", "id": ...}     the client has removed the container; nothing of it is ours any more
"""

from __future__ import annotations

import gc
import os
import select
import sys

from pytest_ocirun.errors import OcirunError
from pytest_ocirun.linux import fds, prctl, sched, signals
from pytest_ocirun.oci import json_text
from pytest_ocirun.runtime import elf, holder, remains, runner, stage
from pytest_ocirun.runtime.freezer import holds_killed
from pytest_ocirun.runtime.spawn import failure, spawn

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pytest_ocirun.runtime.spawn import Plan
    from pytest_ocirun.runtime.workshop import Workshop


class _Process:
    """A process that we made.

    Args:
        pid: its pid; 0 once it has been reaped.
        pidfd: stands for it until then.
        reply: the socket on which its end is told.
        owns: what a container's init owns (``id`` and what ``remains`` needs); None for a process that joined one.
    """

    __slots__ = ("leaving", "owns", "pid", "pidfd", "reply")

    def __init__(self, pid: int, pidfd: int, reply: int, owns: dict[str, Any] | None) -> None:
        self.pid = pid
        self.pidfd = pidfd
        self.reply = reply
        self.owns = owns
        self.leaving = False


class Zygote:
    """The server's state: who lives, and what is to be removed if the client dies.

    Args:
        control: the socket to the client.
        root: the state root.
    """

    def __init__(self, control: fds.Socket, root: str) -> None:
        self._control = control
        self._root = root
        self._workshop: Workshop | None = None
        self._epoll = select.epoll()
        self._epoll.register(control.fileno(), select.EPOLLIN)
        self._processes: dict[int, _Process] = {}  # by pidfd
        self._inits: dict[str, _Process] = {}  # by container id
        machine = os.uname().machine
        self._programs = {
            "holder": elf.open_for_execution("holder", holder.program(machine), 0o555),
            "runner": elf.open_for_execution("runner", runner.program(machine), 0o111),
        }

    def serve(self) -> None:
        """Answer until the client is gone, then clean up; also when something that nobody thought of went wrong."""
        try:
            while self._answer():
                pass
        finally:
            self._end()

    def _answer(self) -> bool:
        for fd, _events in self._epoll.poll():
            if fd in self._processes:
                self._reap(self._processes[fd])
            elif fd != self._control.fileno():
                self._advance(fd)
            elif not self._request():
                return False
        return True

    def _request(self) -> bool:
        try:
            data, received = fds.receive(self._control)
        except ConnectionResetError:
            return False
        if not data:
            return False
        request = json_text.loads(data)
        if request["op"] == "spawn":
            slots = dict(zip(request["slots"], received, strict=True))
            plan_fd = slots.pop("plan")
            plan = json_text.loads(fds.read_all(plan_fd))
            os.close(plan_fd)
            self._spawn(plan, slots, request["owns"])
        elif request["op"] == "make":
            self._make(request, dict(zip(request["slots"], received, strict=True)))
        elif request["id"] in self._inits:
            init = self._inits[request["id"]]
            if request["op"] == "forget":
                self._forget(init)
            else:
                self._leave(init)
        return True

    def _make(self, request: dict[str, Any], slots: dict[str, int]) -> None:
        if self._workshop is None:
            from pytest_ocirun.runtime.workshop import Workshop

            self._workshop = Workshop(self._root, self._spawn, self._forget_id)
        fd = self._workshop.begin(request, slots)
        if fd is not None:
            self._epoll.register(fd, select.EPOLLIN)

    def _advance(self, fd: int) -> None:
        if self._workshop is not None and self._workshop.holds(fd):
            self._epoll.unregister(fd)
            if not self._workshop.advance(fd):
                self._epoll.register(fd, select.EPOLLIN)

    def _spawn(self, plan: Plan, slots: dict[str, int], owns: dict[str, Any] | None) -> None:
        reply = slots["reply"]
        if plan["program"]:
            slots[plan["program"]] = os.dup(self._programs[plan["program"]])
        made = spawn(plan, slots)
        if made is None:
            os.close(reply)
            return
        process = _Process(*made, reply, owns)
        self._processes[process.pidfd] = process
        self._epoll.register(process.pidfd, select.EPOLLIN)
        if owns is not None:
            self._inits[owns["id"]] = process

    def _reap(self, process: _Process) -> None:
        status = sched.wait_status(process.pidfd, block=False)
        if status is None:
            return
        del self._processes[process.pidfd]
        self._epoll.unregister(process.pidfd)
        os.close(process.pidfd)
        process.pid = 0
        _tell(process, {"event": "exit", "status": status})
        if process.owns is None:
            os.close(process.reply)
        elif process.leaving:
            self._remove(process)

    def _leave(self, init: _Process) -> None:
        init.leaving = True
        if init.pid:
            sched.pidfd_send_signal(init.pidfd, sched.SIGKILL)  # the rest follows when it is reaped
            paths = init.owns["cgroups"] if init.owns else None
            if paths and holds_killed(paths):
                _let_die(paths)
        else:
            self._remove(init)

    def _remove(self, init: _Process) -> None:
        try:
            if init.owns is not None:
                remains.remove(init.owns)
            answer = {"event": "removed"}
        except (OSError, OcirunError) as error:
            answer = failure("remove the container", error)
        _tell(init, answer)
        self._forget(init)

    def _forget_id(self, container_id: str) -> None:
        if container_id in self._inits:
            self._forget(self._inits[container_id])

    def _forget(self, init: _Process) -> None:
        if init.owns is not None:
            del self._inits[init.owns["id"]]
            init.owns = None
        if not init.pid:
            os.close(init.reply)

    def _end(self) -> None:
        self._epoll.unregister(self._control.fileno())
        for init in list(self._inits.values()):
            self._leave(init)
        for pidfd in self._processes:
            sched.pidfd_send_signal(pidfd, sched.SIGKILL)
        while self._processes:
            for fd, _events in self._epoll.poll():
                if fd in self._processes:
                    self._reap(self._processes[fd])
                else:
                    self._epoll.unregister(fd)  # of a container that was being made, and is ended like the others


def _let_die(paths: dict[str, Any]) -> None:
    from pytest_ocirun.runtime import pausing

    pausing.let_die(paths)


def _tell(process: _Process, message: dict[str, Any]) -> None:
    sock = fds.socket_of(process.reply)
    try:
        fds.send(sock, json_text.dumps(message).encode())
    except OSError:
        pass  # the client let go of this process
    finally:
        sock.detach()


def main() -> None:
    """Run as ``python -I -S -c ... CONTROL_FD ROOT [staged]``: take the stage first, then serve."""
    control_fd, root = int(sys.argv[1]), sys.argv[2]
    control = fds.socket_of(control_fd)
    try:
        if len(sys.argv) < 4:
            os.set_inheritable(control_fd, True)
            stage.enter(__name__, sys.argv[1], root, "staged")
        os.set_inheritable(control_fd, False)
        for number in (signals.SIGINT, signals.SIGTERM, signals.SIGHUP):
            signals.handle(number, signals.SIG_DFL)
        signals.handle(signals.SIGPIPE, signals.SIG_IGN)
        stage.take_place(root)
        prctl.set_name("ocirun-zygote")
        server = Zygote(control, root)
        gc.disable()
        gc.freeze()
        fds.send(control, b'{"event": "started"}')
    except BrokenPipeError:
        sys.exit(0)  # the client went before we were ready; nothing has been made
    except Exception as error:  # noqa: BLE001 - whatever it is, the client shows it
        hint = getattr(error, "hint", None)
        message = {"event": "error", "text": getattr(error, "message", str(error)), "hint": hint}
        fds.send(control, json_text.dumps(message).encode())
        sys.exit(1)
    server.serve()
