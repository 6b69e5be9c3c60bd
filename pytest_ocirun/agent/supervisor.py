"""Pid 1 of a guest: relays bounded frames between the host and one worker, reaps, and says how the worker ended.

It never imports pytest, never reads a message, and never runs code of the suspect tree: a worker process does, in a
session of its own, without the host's socket. When the worker ends, what it left running ends with it.
"""

from __future__ import annotations

import os
import select
import signal

from pytest_ocirun.agent import wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from typing import Callable

_CHUNK = 65536
_HIGH_WATER = 4 * 1024 * 1024
_DRAIN_SECONDS = 5.0


class Pipe:
    """One direction of the relay: checks framing, stamps the origin, holds back when the receiver is slow."""

    def __init__(self, source: socket.socket, target: socket.socket, origin: int) -> None:
        self.source = source
        self.target = target
        self.open = True
        self._origin = origin
        self._decoder = wire.Decoder()
        self._queue = bytearray()

    @property
    def wants_read(self) -> bool:
        """Whether there is room for more."""
        return self.open and len(self._queue) < _HIGH_WATER

    @property
    def wants_write(self) -> bool:
        """Whether anything waits to be passed on."""
        return bool(self._queue)

    def read(self) -> None:
        """Take what has arrived; an end of file closes this direction."""
        try:
            data = self.source.recv(_CHUNK)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.open = False
            return
        self._decoder.feed(data)
        for _, body in self._decoder.frames():
            self._queue += wire.HEADER.pack(self._origin, len(body)) + body

    def write(self) -> None:
        """Pass on as much as the receiver takes now; one that has gone takes everything."""
        try:
            sent = self.target.send(self._queue)
        except BlockingIOError:
            return
        except OSError:
            sent = len(self._queue)
            self.open = False
        del self._queue[:sent]

    def push(self, frame: bytes) -> None:
        """Queue a frame of the supervisor's own."""
        self._queue += frame


class Supervisor:
    """The poll loop over host, worker and dead children."""

    def __init__(self, host: socket.socket, worker: socket.socket, pid: int) -> None:
        self._host = host
        self._pid = pid
        self._status: int | None = None
        self._breach: str | None = None
        self._up = Pipe(worker, host, wire.WORKER)
        self._down = Pipe(host, worker, wire.HOST)
        self._wakeup, wakeup_writer = os.pipe()
        for descriptor in (self._wakeup, wakeup_writer):
            os.set_blocking(descriptor, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(wakeup_writer, warn_on_full_buffer=False)
        host.setblocking(False)
        worker.setblocking(False)

    def run(self) -> None:
        """Relay until the worker has ended or the host has gone; then report, drain, and end what is left."""
        self._reap()
        while self._status is None and self._down.open and self._breach is None:
            self._turn(None)
        if self._status is None:
            os.kill(self._pid, signal.SIGKILL)
            self._status = os.waitpid(self._pid, 0)[1]
        self._end_leftovers()
        while self._breach is None and self._up.wants_read and self._turn(0.0):
            pass
        self._up.push(wire.encode(wire.SUPERVISOR, self._ended()))
        while self._up.wants_write and self._turn(_DRAIN_SECONDS):
            pass

    def _turn(self, timeout: float | None) -> bool:
        """Wait once and serve what is ready; False when nothing was."""
        actions: dict[int, Callable[[int], None]] = {self._wakeup: self._on_child}
        poll = select.poll()
        poll.register(self._wakeup, select.POLLIN)
        masks: dict[int, int] = {}
        for pipe in (self._up, self._down):
            if pipe.wants_read:
                masks[pipe.source.fileno()] = masks.get(pipe.source.fileno(), 0) | select.POLLIN
            if pipe.wants_write:
                masks[pipe.target.fileno()] = masks.get(pipe.target.fileno(), 0) | select.POLLOUT
        for descriptor, mask in masks.items():
            poll.register(descriptor, mask)
            actions[descriptor] = self._on_socket
        ready = poll.poll(None if timeout is None else timeout * 1000)
        for descriptor, _ in ready:
            actions[descriptor](descriptor)
        return any(descriptor != self._wakeup for descriptor, _ in ready)

    def _on_socket(self, descriptor: int) -> None:
        for pipe in (self._up, self._down):
            try:
                if pipe.source.fileno() == descriptor and pipe.wants_read:
                    pipe.read()
            except wire.WireError as error:
                self._breach = str(error)
            if pipe.target.fileno() == descriptor and pipe.wants_write:
                pipe.write()

    def _on_child(self, descriptor: int) -> None:
        try:
            while os.read(descriptor, 512):
                pass
        except BlockingIOError:
            pass
        self._reap()

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid == self._pid:
                self._status = status

    def _end_leftovers(self) -> None:
        """As pid 1 of a pid namespace -1 is everyone in it but us; anywhere else only the worker's own group."""
        try:
            if os.getpid() == 1:
                os.kill(-1, signal.SIGKILL)
            else:
                os.killpg(self._pid, signal.SIGKILL)
        except OSError:
            pass

    def _ended(self) -> dict[str, object]:
        status = self._status or 0
        signalled = os.WIFSIGNALED(status)
        return {
            "type": "ended",
            "exit": None if signalled else os.WEXITSTATUS(status),
            "signal": os.WTERMSIG(status) if signalled else None,
            "breach": self._breach,
        }
