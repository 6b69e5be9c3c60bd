"""Signals: their names as people write them, and passing them on to a process that we wait for.

Responsible for: both. Must not know: who the process is.
"""

from __future__ import annotations

import os
import select

from pytest_ocirun.cli.options import Usage, decimal
from pytest_ocirun.cli.report import Interrupted
from pytest_ocirun.linux import signals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Any, NoReturn, Self

ENDING = (signals.SIGHUP, signals.SIGINT, signals.SIGQUIT, signals.SIGTERM)
_MOST = 64
_CANNOT = ("SIGKILL", "SIGSTOP")
_ABOUT_US = ("SIGCHLD", "SIGPIPE", "SIGURG", "SIGSEGV", "SIGBUS", "SIGFPE", "SIGILL", "SIGTRAP", "SIGSYS")
_STOPPING = ("SIGTSTP", "SIGTTIN", "SIGTTOU")  # stop us, as the user's shell expects
_OURS = {signals.NUMBERS[name] for name in (*_CANNOT, *_ABOUT_US, *_STOPPING)}


def number_of(text: str) -> int:
    """The number of a signal.

    Args:
        text: a number, or a name such as ``TERM``, ``SIGTERM``, ``sigterm`` or ``RTMIN+3``.

    Raises:
        Usage: there is no such signal.
    """
    if text[:1].isdigit():
        return decimal(text, _MOST, "signal")
    name = text.upper().removeprefix("SIG")
    for base, sign, direction in (("RTMIN", "+", 1), ("RTMAX", "-", -1)):
        if name.startswith(f"{base}{sign}"):
            real_time = signals.NUMBERS["SIGRTMAX"] - signals.NUMBERS["SIGRTMIN"]
            return signals.NUMBERS[f"SIG{base}"] + direction * decimal(name[6:], real_time, f"signal {text}")
    try:
        return signals.NUMBERS[f"SIG{name}"]
    except KeyError:
        raise Usage(f'unknown signal "{text}"', hint="Give a number, or a name such as TERM or RTMIN+3.") from None


class Deferred:
    """Hold back what asks us to end, so that nothing is left half done; ``wait`` lets it through.

    Use as a context manager.
    """

    def __enter__(self) -> Self:
        self._mask = signals.block(ENDING)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        signals.set_mask(self._mask)


def wait(fd: int) -> None:
    """Wait until ``fd`` is readable; only while waiting may a signal come that is held back.

    Raises:
        Interrupted: one came (``cli.staged`` has it raised).
    """
    mask = signals.unblock(ENDING)
    try:
        poller = select.poll()
        poller.register(fd, select.POLLIN)
        poller.poll()
    finally:
        signals.set_mask(mask)


def keep_children() -> None:
    """Where our caller had SIGCHLD ignored, the kernel would reap what we make before we could ask how it ended."""
    if signals.handler_of(signals.SIGCHLD) == signals.SIG_IGN:
        signals.handle(signals.SIGCHLD, signals.SIG_DFL)


def ignore_ending() -> None:
    """Too late: what was asked for is done."""
    for number in ENDING:
        signals.handle(number, signals.SIG_IGN)


def end_by_unwinding() -> None:
    """From now on what asks us to end raises ``Interrupted``, unless our caller had it ignored."""
    for number in ENDING:
        if signals.handler_of(number) != signals.SIG_IGN:
            signals.handle(number, _interrupt)


def _interrupt(number: int, _frame: object) -> NoReturn:
    """Unwind; a second signal must not interrupt the clean-up of the first."""
    ignore_ending()
    raise Interrupted(number)


class Caught:
    """Every signal that somebody may want to send to the process behind us, by a fd that can be polled.

    Use as a context manager.
    """

    def __enter__(self) -> Self:
        self._read, self._write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._before: dict[int, Any] = {}
        self._wakeup = signals.set_wakeup_fd(self._write)
        for number in signals.valid() - _OURS:
            if signals.handler_of(number) not in (signals.SIG_IGN, None):
                self._before[number] = signals.handle(number, _note)
        self._mask = signals.unblock(ENDING)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        signals.set_mask(self._mask)
        for number, handler in self._before.items():
            signals.handle(number, handler)
        signals.set_wakeup_fd(self._wakeup)
        os.close(self._read)
        os.close(self._write)

    def fileno(self) -> int:
        """Readable when a signal has come."""
        return self._read

    def interruption(self) -> int | None:
        """The first signal that has come and asks us to end, if any; for when there is nobody yet to pass it to."""
        return next((number for number in self.take() if number in ENDING), None)

    def take(self) -> bytes:
        """The numbers of the signals that have come, one byte each."""
        try:
            return os.read(self._read, 4096)
        except BlockingIOError:
            return b""


def _note(_number: int, _frame: object) -> None:
    """The wakeup fd has it."""
