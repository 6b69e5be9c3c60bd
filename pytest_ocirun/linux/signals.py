"""Signals, as plain numbers. Source: signal(7).

``_signal`` is used directly: the ``signal`` module around it turns the numbers into enums, and importing
``enum`` costs more than all of this package.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # typeshed knows only the module around it

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    Handler = Callable[[int, Any], Any] | int | None

SIG_DFL: int = _signal.SIG_DFL
SIG_IGN: int = _signal.SIG_IGN
NUMBERS: dict[str, int] = {
    name: value for name, value in vars(_signal).items() if name.startswith("SIG") and name[3] != "_"
}
"""Every name that this machine has, such as ``SIGTERM``, ``SIGRTMIN``; some numbers have two."""

SIGCHLD = NUMBERS["SIGCHLD"]
SIGHUP = NUMBERS["SIGHUP"]
SIGINT = NUMBERS["SIGINT"]
SIGKILL = NUMBERS["SIGKILL"]
SIGPIPE = NUMBERS["SIGPIPE"]
SIGQUIT = NUMBERS["SIGQUIT"]
SIGSTOP = NUMBERS["SIGSTOP"]
SIGTERM = NUMBERS["SIGTERM"]
SIGWINCH = NUMBERS["SIGWINCH"]

_signal_of: Callable[[int, Handler], Handler] = _signal.signal
_getsignal: Callable[[int], Handler] = _signal.getsignal
_set_wakeup_fd: Callable[..., int] = _signal.set_wakeup_fd
_valid: Callable[[], Iterable[int]] = _signal.valid_signals
_sigmask: Callable[[int, Iterable[int]], Iterable[int]] = _signal.pthread_sigmask


def valid() -> set[int]:
    """Every number that is a signal here."""
    return set(_valid())


def handler_of(number: int) -> Handler:
    """What happens on a signal: ``SIG_DFL``, ``SIG_IGN``, a function, or None when it was not set by Python."""
    return _getsignal(number)


def handle(number: int, handler: Handler) -> Handler:
    """Set what happens on a signal; what was set before."""
    return _signal_of(number, handler)


def set_wakeup_fd(fd: int) -> int:
    """Have each signal's number written to ``fd`` as one byte (a full pipe loses it), or with -1 not; the fd before."""
    return _set_wakeup_fd(fd, warn_on_full_buffer=False) if fd >= 0 else _set_wakeup_fd(-1)


def block(numbers: Iterable[int]) -> set[int]:
    """Hold signals back until they are unblocked; what was blocked before."""
    return set(_sigmask(_signal.SIG_BLOCK, numbers))


def unblock(numbers: Iterable[int]) -> set[int]:
    """Let signals come, at once those that were held back; what was blocked before."""
    return set(_sigmask(_signal.SIG_UNBLOCK, numbers))


def set_mask(numbers: Iterable[int]) -> None:
    """Block just these signals."""
    _sigmask(_signal.SIG_SETMASK, numbers)


def reset() -> None:
    """Give every signal its default action and block none: ignored ones and the mask pass through execve."""
    for number in valid() - {SIGKILL, SIGSTOP}:
        if handler_of(number) != SIG_DFL:
            handle(number, SIG_DFL)
    set_mask(())
