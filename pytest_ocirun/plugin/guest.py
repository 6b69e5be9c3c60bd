"""One guest: a container with an agent as pid 1, its end of the wire, and why it died.

Knows messages and deaths, nothing of nodes or reports. ``Launcher`` is the one place that makes requests of the engine.
"""

from __future__ import annotations

import os
import selectors
import signal
import socket
import time
from collections import deque
from typing import TYPE_CHECKING, Any

from pytest_ocirun.agent import wire
from pytest_ocirun.errors import OcirunError, ProtocolError
from pytest_ocirun.plugin import schema, values
from pytest_ocirun.plugin.text import escape

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_ocirun.engine.container import Container

_CHUNK = 1 << 16
_LOG_TAIL = 1 << 16
_SEND_SECONDS = 30.0
_LAST_WORDS_SECONDS = 5.0


class GuestDied(Exception):
    """The guest is gone; ``cause`` says how, ``log`` is the end of what it wrote."""

    def __init__(self, cause: str, log: str) -> None:
        super().__init__(cause)
        self.cause = cause
        self.log = log


class Guest:
    """The host's side of one container.

    Args:
        container: created and started; this object owns it from now on.
        sock: the host's end of the wire.
        log: the reading end of what the guest writes to standard error.
        selector: where both are registered while the guest lives.
        output: the most bytes that it may write per test.
        limits: what to call the limits of memory and processes in a cause of death.
    """

    def __init__(
        self,
        container: Container,
        sock: socket.socket,
        log: int,
        selector: selectors.BaseSelector,
        output: int,
        limits: dict[str, str],
    ) -> None:
        self.cause: str | None = None
        self.over = False
        self._container = container
        self._sock = sock
        self._log = log
        self._selector = selector
        self._output = output
        self._limits = limits
        self._written = 0
        self._tail = b""
        self._decoder = wire.Decoder()
        self._inbox: deque[dict[str, Any]] = deque()
        self._held = 0
        self._ended: dict[str, Any] | None = None
        self._oom_seen = 0
        self._pids_seen = 0
        sock.settimeout(_SEND_SECONDS)
        os.set_blocking(log, False)
        selector.register(sock, selectors.EVENT_READ, self._on_socket)
        selector.register(log, selectors.EVENT_READ, self._on_log)

    # talking

    def send(self, message: dict[str, Any]) -> None:
        """Send one message.

        Raises:
            GuestDied: it is gone, or does not read.
        """
        try:
            self._sock.sendall(wire.encode(wire.HOST, message))
        except TimeoutError:
            self._die("it does not read what it is told")
            raise self.death() from None
        except OSError:
            self._bury()
            raise self.death() from None

    def receive(self, deadline: float, what: str) -> dict[str, Any]:
        """Return the next message, serving every other guest meanwhile.

        Args:
            deadline: on the monotonic clock; then the guest is killed.
            what: names the time limit in the cause of death.

        Raises:
            GuestDied: it died, was killed, or broke the protocol.
        """
        while True:
            if self._inbox:
                return self._inbox.popleft()
            if self.over:
                raise self.death()
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                self._die(what)
                continue
            for key, _ in self._selector.select(remaining):
                key.data()

    def begin_test(self) -> None:
        """Start counting a new test's output."""
        self._written = 0

    def breach(self, error: ProtocolError | str) -> GuestDied:
        """Kill the guest for breaking the protocol; return the death to raise."""
        self._die(f"it broke the protocol: {escape(str(error))}")
        return self.death()

    def death(self) -> GuestDied:
        """Return how the guest died."""
        return GuestDied(self.cause or "it ended before its work was done", self.log())

    def log(self) -> str:
        """Return the end of what the guest wrote to standard error."""
        return escape(self._tail.decode("utf-8", "backslashreplace"))

    def pressure(self) -> list[str]:
        """Return which limits were hit since the last call, though the guest lives on."""
        try:
            counters = self._container.counters()
        except (OcirunError, OSError):
            return []
        hit = []
        if counters.oom_kills > self._oom_seen:
            hit.append(f"the kernel killed a process of this container: out of memory (limit {self._limits['memory']})")
        if counters.pids_limit_hits > self._pids_seen:
            hit.append(f"the container reached its limit of {self._limits['pids']} processes and threads")
        self._oom_seen, self._pids_seen = counters.oom_kills, counters.pids_limit_hits
        return hit

    def close(self) -> None:
        """End the container and release everything; a second call does nothing."""
        self.over = True
        for file in (self._sock, self._log):
            try:
                self._selector.unregister(file)
            except (KeyError, ValueError):
                continue
        self._sock.close()
        if self._log >= 0:
            os.close(self._log)
            self._log = -1
        self._container.delete()

    # listening

    def _on_socket(self) -> None:
        try:
            data = self._sock.recv(_CHUNK)
        except (BlockingIOError, TimeoutError):
            return
        except OSError:
            data = b""
        if not data:
            self._bury()
            return
        try:
            self._decoder.feed(data)
            for origin, body in self._decoder.frames():
                self._accept(origin, wire.decode(body), len(body))
        except (wire.WireError, ProtocolError) as error:
            self.breach(str(error))

    def _accept(self, origin: int, message: dict[str, Any], size: int) -> None:
        if self._ended is not None:
            raise ProtocolError("a message after the last one")
        if origin == wire.SUPERVISOR:
            self._ended = schema.from_supervisor(message)
        elif origin == wire.WORKER:
            self._held += size
            self._inbox.append(schema.from_worker(message))
            if len(self._inbox) > 100_000 or self._held > 16 * wire.MAX_FRAME:
                raise ProtocolError("more messages than anyone asked for")
        else:
            raise ProtocolError("a message of unknown origin")

    def _on_log(self) -> None:
        try:
            data = os.read(self._log, _CHUNK)
        except BlockingIOError:
            return
        if not data:
            self._selector.unregister(self._log)
            return
        self._written += len(data)
        self._tail = (self._tail + data)[-_LOG_TAIL:]
        if self._written > self._output and not self.over:
            self._die(f"too much output (limit {self._limits['output']})")

    # dying

    def _die(self, cause: str) -> None:
        if self.over:
            return
        self.cause = cause
        self._stop_listening()
        self._container.kill()

    def _bury(self) -> None:
        """The wire is closed: find out why, from the kernel's counters first and the guest's own words last."""
        if self.over:
            return
        self._stop_listening()
        hit = self.pressure()
        self._container.kill()
        oom = next((text for text in hit if "out of memory" in text), None)
        if oom is not None:
            self.cause = f"out of memory (limit {self._limits['memory']})"
        else:
            self.cause = self._own_words()
            if hit:
                self.cause += "; " + "; ".join(hit)

    def _own_words(self) -> str:
        if self._ended is None:
            try:
                end = self._container.wait(_LAST_WORDS_SECONDS)
            except (OcirunError, OSError, TimeoutError):
                end = None
            if end is None:
                return "its agent closed the connection"
            return "its agent " + _how(end.code, end.signal)
        if self._ended["breach"]:
            return f"it broke the protocol: {self._ended['breach']}"
        return "it " + _how(self._ended["exit"], self._ended["signal"])

    def _stop_listening(self) -> None:
        self.over = True
        try:
            self._selector.unregister(self._sock)
        except (KeyError, ValueError):
            return
        self._drain_log()

    def _drain_log(self) -> None:
        """Take its last words out of the pipe; at most as many as a pipe holds."""
        for _ in range(16):
            try:
                data = os.read(self._log, _CHUNK)
            except OSError:
                return
            self._tail = (self._tail + data)[-_LOG_TAIL:]
            if not data:
                return


def _how(code: int | None, number: int | None) -> str:
    if number is None:
        return f"exited with status {code}"
    try:
        return f"was killed by signal {number} ({signal.Signals(number).name})"
    except ValueError:
        return f"was killed by signal {number}"


class Launcher:
    """Starts guests, all alike.

    Args:
        launch: takes an engine request and returns a started container.
        request: makes the request for the given descriptors.
        limits: memory, pids and output, as numbers.
    """

    def __init__(
        self, launch: Callable[[Any], Container], request: Callable[[dict[int, int]], Any], limits: dict[str, int]
    ) -> None:
        self.selector = selectors.DefaultSelector()
        self._launch = launch
        self._request = request
        self._output = limits["output"]
        self._limits = {
            "memory": values.human(limits["memory"]),
            "pids": str(limits["pids"]),
            "output": values.human(limits["output"]),
        }

    def start(self) -> Guest:
        """Start one guest; it boots while we go on.

        Raises:
            OcirunError: the engine could not.
        """
        ours, theirs = socket.socketpair()
        reader, writer = os.pipe()
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        try:
            container = self._launch(self._request({0: null, 1: writer, 2: writer, 3: theirs.fileno()}))
        except BaseException:
            ours.close()
            os.close(reader)
            raise
        finally:
            theirs.close()
            os.close(writer)
            os.close(null)
        return Guest(container, ours, reader, self.selector, self._output, self._limits)
