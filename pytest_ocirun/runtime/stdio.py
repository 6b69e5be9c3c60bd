"""The file descriptors that a process gets. Must not know where they come from."""

from __future__ import annotations


class Stdio:
    """The fds that a process gets: three for stdio, or none with a terminal, and others by number.

    Args:
        stdin: becomes fd 0.
        stdout: becomes fd 1.
        stderr: becomes fd 2.
        extra: target number (from 3 on) to one of our fds.
    """

    __slots__ = ("extra", "stderr", "stdin", "stdout")

    def __init__(self, stdin: int, stdout: int, stderr: int, extra: dict[int, int] | None = None) -> None:
        self.stdin = stdin
        self.stdout = stdout
        self.stderr = stderr
        self.extra = extra or {}

    def slots(self) -> dict[str, int]:
        """The fds by the slot names of ``runtime.plan``."""
        named = {"stdio0": self.stdin, "stdio1": self.stdout, "stdio2": self.stderr}
        return named | {f"fd{number}": fd for number, fd in self.extra.items()}
