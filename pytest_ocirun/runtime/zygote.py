"""The zygote: a single-threaded fork server, one per client process, no daemon.

It reads plans and fds from its control socket, spawns, and reports each process's end on that process's own reply
socket. It never blocks on one child. When the client goes, however it goes, the control socket ends: then everything that still
runs is killed and what the containers owned is removed.

Requests, each one SOCK_SEQPACKET message with fds:

    {"op": "spawn", "slots": [names of the fds, "plan" and "reply" among them], "owns": {...} or null}
    {"op": "forget", "id": ...}     the client has deleted the container; nothing of it is ours any more
"""

from __future__ import annotations

import gc
import json
import os
import select
import signal
import sys

from pytest_ocirun.linux import fds, prctl, sched
from pytest_ocirun.runtime import holder, remains, stage
from pytest_ocirun.runtime.spawn import spawn

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Zygote:
    """The server's state: who lives, and what is to be removed if the client dies.

    Args:
        control: the socket to the client.
    """

    def __init__(self, control: fds.Socket) -> None:
        self._control = control
        self._epoll = select.epoll()
        self._epoll.register(control.fileno(), select.EPOLLIN)
        self._processes: dict[int, tuple[int, int]] = {}  # pidfd -> (pid, reply)
        self._owned: dict[str, dict[str, Any]] = {}
        self._holder = holder.open_program()

    def serve(self) -> None:
        """Answer until the client is gone, then clean up."""
        while True:
            for fd, _events in self._epoll.poll():
                if fd != self._control.fileno():
                    self._reap(fd)
                elif not self._request():
                    self._end()
                    return

    def _request(self) -> bool:
        try:
            data, received = fds.receive(self._control)
        except ConnectionResetError:
            return False
        if not data:
            return False
        request = json.loads(data)
        if request["op"] == "forget":
            self._owned.pop(request["id"], None)
        else:
            self._spawn(request, dict(zip(request["slots"], received, strict=True)))
        return True

    def _spawn(self, request: dict[str, Any], slots: dict[str, int]) -> None:
        plan_fd = slots.pop("plan")
        plan = json.loads(fds.read_all(plan_fd))
        os.close(plan_fd)
        reply = slots["reply"]
        if request["owns"]:
            self._owned[request["owns"]["id"]] = request["owns"]
        if plan["holder"]:
            slots["holder"] = os.dup(self._holder)
        made = spawn(plan, slots)
        if made is None:
            os.close(reply)
            return
        pid, pidfd = made
        self._processes[pidfd] = (pid, reply)
        self._epoll.register(pidfd, select.EPOLLIN)

    def _reap(self, pidfd: int) -> None:
        pid, reply = self._processes[pidfd]
        status = sched.wait_status(pid, block=False)
        if status is None:
            return
        del self._processes[pidfd]
        self._epoll.unregister(pidfd)
        os.close(pidfd)
        sock = fds.socket_of(reply)
        try:
            fds.send(sock, json.dumps({"event": "exit", "status": status}).encode())
        except OSError:
            pass  # the client let go of this process
        finally:
            sock.close()

    def _end(self) -> None:
        for pidfd in self._processes:
            sched.pidfd_send_signal(pidfd, sched.SIGKILL)
        while self._processes:
            for fd, _events in self._epoll.poll():
                if fd in self._processes:
                    self._reap(fd)
                else:
                    self._epoll.unregister(fd)
        for owned in self._owned.values():
            remains.remove(owned)


def main() -> None:
    """Run as ``python -I -S -c ... CONTROL_FD ROOT [staged]``: take the stage first, then serve."""
    control_fd, root = int(sys.argv[1]), sys.argv[2]
    control = fds.socket_of(control_fd)
    try:
        if len(sys.argv) < 4:
            os.set_inheritable(control_fd, True)
            stage.enter(__name__, sys.argv[1], root, "staged")
        os.set_inheritable(control_fd, False)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE):
            signal.signal(number, signal.SIG_IGN if number == signal.SIGPIPE else signal.SIG_DFL)
        stage.take_place(root)
        prctl.set_name("ocirun-zygote")
        server = Zygote(control)
        gc.disable()
        gc.freeze()
        fds.send(control, b'{"event": "started"}')
    except BrokenPipeError:
        sys.exit(0)  # the client went before we were ready; nothing has been made
    except Exception as error:  # noqa: BLE001 - whatever it is, the client shows it
        hint = getattr(error, "hint", None)
        message = {"event": "error", "text": getattr(error, "message", str(error)), "hint": hint}
        fds.send(control, json.dumps(message).encode())
        sys.exit(1)
    server.serve()
