"""The user's terminal: finding it, raw mode, its size.

Responsible for: giving it back as it was. Must not know: containers.
"""

from __future__ import annotations

import os

from pytest_ocirun.errors import Unsupported
from pytest_ocirun.linux import tty

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from pytest_ocirun.runtime.child import Child


class Terminal:
    """The terminal of whoever runs us, in raw mode while the context is entered.

    Args:
        fd: is open on it.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd

    @classmethod
    def find(cls) -> Terminal:
        """The terminal that stderr, stdout or stdin is; the controlling one if all are redirected.

        Raises:
            Unsupported: there is none.
        """
        for fd in (2, 1, 0):
            if os.isatty(fd):
                return cls(fd)
        try:
            return cls(os.open("/dev/tty", os.O_RDWR | os.O_CLOEXEC))
        except OSError as error:
            raise Unsupported(
                f"give the process a terminal: we have none ourselves, and /dev/tty: {error.strerror}",
                hint="Run it from a terminal, or with --detach and --console-socket, or set process.terminal to false.",
            ) from error

    def __enter__(self) -> Self:
        import termios

        self._before = termios.tcgetattr(self._fd)
        raw = termios.tcgetattr(self._fd)
        # cfmakeraw(3) but for the output side: the container's end sends bare newlines, see _plain_newlines.
        raw[0] &= ~(
            termios.IGNBRK
            | termios.BRKINT
            | termios.PARMRK
            | termios.ISTRIP
            | termios.INLCR
            | termios.IGNCR
            | termios.ICRNL
            | termios.IXON
        )
        raw[2] = raw[2] & ~(termios.CSIZE | termios.PARENB) | termios.CS8
        raw[3] &= ~(termios.ECHO | termios.ECHONL | termios.ICANON | termios.ISIG | termios.IEXTEN)
        raw[6][termios.VMIN], raw[6][termios.VTIME] = 1, 0
        termios.tcsetattr(self._fd, termios.TCSADRAIN, raw)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        import termios

        try:
            termios.tcsetattr(self._fd, termios.TCSADRAIN, self._before)
        except termios.error:
            pass  # it was hung up

    def prepare(self, child: Child) -> None:
        """Make the child's terminal ready before its program writes to it."""
        if child.console is not None:
            _plain_newlines(child.console)
        self.pass_size(child)

    def pass_size(self, child: Child) -> None:
        """Give the child's terminal the same size, if this one has one."""
        try:
            rows, columns = tty.get_size(self._fd)
            if rows and columns and child.console is not None:
                tty.set_size(child.console, rows, columns)
        except OSError:
            pass  # one of the two was hung up


def _plain_newlines(console: int) -> None:
    """Have a pty send newlines as they are: the user's terminal adds the carriage returns, and a file gets none."""
    import termios

    attributes = termios.tcgetattr(console)
    attributes[1] &= ~termios.ONLCR
    termios.tcsetattr(console, termios.TCSANOW, attributes)
