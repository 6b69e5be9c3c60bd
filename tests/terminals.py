"""Somebody at a terminal, for tests of what is run in one. Knows nothing of pytest_ocirun."""

import fcntl
import os
import pty
import select
import struct
import subprocess
import termios
import time
from pathlib import Path


class User:
    """Somebody at a terminal of 24 lines by 80 who runs a command in it.

    Args:
        argv: the command.
        cwd: where, if not here.
        stdout: where its output goes, if not to the terminal.
        env: its environment, if not this one.
    """

    def __init__(
        self, argv: list[str], cwd: Path | None = None, *, stdout: int | None = None, env: dict[str, str] | None = None
    ) -> None:
        self.master, self.slave = pty.openpty()
        self.resize(24, 80)
        self.before = termios.tcgetattr(self.slave)
        self.process = subprocess.Popen(
            argv,
            stdin=self.slave,
            stdout=self.slave if stdout is None else stdout,
            stderr=self.slave,
            cwd=cwd,
            env=env,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509 - there are no threads
        )
        self.seen = ""
        self.searched = 0

    def resize(self, rows: int, columns: int) -> None:
        """Change the window's size, as a terminal emulator does."""
        fcntl.ioctl(self.slave, termios.TIOCSWINSZ, struct.pack("4H", rows, columns, 0, 0))

    def type(self, text: str) -> None:
        """Press keys."""
        os.write(self.master, text.encode())

    def expect(self, text: str, seconds: float = 10) -> None:
        """Read until ``text`` is on the screen, behind what was expected before."""
        deadline = time.monotonic() + seconds
        while (found := self.seen.find(text, self.searched)) < 0:
            left = deadline - time.monotonic()
            ready = left > 0 and select.select([self.master], [], [], left)[0]
            assert ready, f"{text!r} is not in {self.seen!r}"
            self.seen += os.read(self.master, 4096).decode()
        self.searched = found + len(text)

    def end(self, seconds: float = 10) -> int:
        """Wait until the command has ended; its exit status."""
        deadline = time.monotonic() + seconds
        while self.process.poll() is None and time.monotonic() < deadline:
            if select.select([self.master], [], [], 0.02)[0]:
                self.seen += os.read(self.master, 4096).decode()
        return self.process.wait(0)

    def leave(self) -> None:
        """Close the terminal, and kill the command if it still runs."""
        self.process.kill()
        self.process.wait()
        os.close(self.master)
        os.close(self.slave)
