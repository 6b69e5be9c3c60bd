"""Feeding and draining one exec's pipes until its process ends, under a deadline and a cap.

The end is the end of the main process: what it wrote before is in the pipes and is read; what processes that it left
behind write later is theirs.
"""

from __future__ import annotations

import os
import selectors
import time
from typing import TYPE_CHECKING

from pytest_ocirun.errors import OcirunError

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_ocirun.runtime.child import Child

__tracebackhide__ = True  # in a failed test's traceback the test's own lines are what matters

_CHUNK = 1 << 16


class Exchange:
    """The conversation with one process.

    Args:
        child: the process.
        stdin: write end of its stdin with what is to be written, or None.
        outputs: read ends of its stdout and stderr.
        cap: most bytes to take from each.
        kill: ends its whole process tree.
    """

    def __init__(
        self,
        child: Child,
        stdin: tuple[int, bytes] | None,
        outputs: tuple[int, int],
        *,
        cap: int,
        kill: Callable[[], None],
    ) -> None:
        self._child = child
        self._outputs = outputs
        self._buffers = {fd: bytearray() for fd in outputs}
        self._cap = cap
        self._kill = kill
        self._selector = selectors.DefaultSelector()
        self._selector.register(child, selectors.EVENT_READ, "end")
        for fd in outputs:
            os.set_blocking(fd, False)
            self._selector.register(fd, selectors.EVENT_READ, "out")
        self._input = memoryview(b"")
        self._stdin = -1
        if stdin is not None:
            self._stdin, self._input = stdin[0], memoryview(stdin[1])
            os.set_blocking(self._stdin, False)
            self._selector.register(self._stdin, selectors.EVENT_WRITE, "in")

    def run(self, deadline: float | None) -> tuple[int, bool]:
        """Exchange until the process ends.

        Args:
            deadline: on the monotonic clock.

        Returns:
            (wait status, whether the deadline ended it).

        Raises:
            OcirunError: it wrote more than the cap; its tree was ended.
            KernelRefused: the program could not be executed.
        """
        timed_out = False
        try:
            while True:
                left = None if deadline is None or timed_out else max(0.0, deadline - time.monotonic())
                events = self._selector.select(left)
                ended = any(key.data == "end" for key, _mask in events)
                if left is not None and not ended and time.monotonic() >= (deadline or 0):
                    timed_out = True
                    self._kill()
                for key, _mask in events:
                    self._handle(key)
                status = self._child.poll()
                if status is not None:
                    self._drain()
                    return status, timed_out
        finally:
            self._selector.close()
            self._end_input()

    def output(self, fd: int) -> bytes:
        """What has come from ``fd``."""
        return bytes(self._buffers[fd])

    def _handle(self, key: selectors.SelectorKey) -> None:
        if key.data == "out":
            self._read(key.fd)
        elif key.data == "in":
            self._write()

    def _read(self, fd: int) -> bool:
        try:
            data = os.read(fd, _CHUNK)
        except BlockingIOError:
            return False
        if not data:
            self._selector.unregister(fd)
            return False
        buffer = self._buffers[fd]
        if len(buffer) + len(data) > self._cap:
            self._kill()
            raise OcirunError(
                f"take the output of the process: it wrote more than {self._cap} bytes and was killed",
                hint="Let it write to a file in the container.",
            )
        buffer += data
        return True

    def _write(self) -> None:
        try:
            self._input = self._input[os.write(self._stdin, self._input[:_CHUNK]) :]
        except BlockingIOError:
            return
        except BrokenPipeError:
            self._input = memoryview(b"")
        if not self._input:
            self._selector.unregister(self._stdin)
            self._end_input()

    def _end_input(self) -> None:
        if self._stdin >= 0:
            os.close(self._stdin)
            self._stdin = -1

    def _drain(self) -> None:
        for fd in self._outputs:
            if fd in self._selector.get_map():
                while self._read(fd):
                    pass
