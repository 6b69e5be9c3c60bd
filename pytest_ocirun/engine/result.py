"""What comes back from a container: the result of an exec, the end of an init, the kernel's counts."""

from __future__ import annotations

import os
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Exit:
    """How a process ended: one of the two is set."""

    code: int | None
    signal: int | None

    @classmethod
    def from_status(cls, status: int) -> Exit:
        """From a wait status as ``os.waitpid`` gives it."""
        if os.WIFSIGNALED(status):
            return cls(None, os.WTERMSIG(status))
        return cls(os.WEXITSTATUS(status), None)


@dataclass(frozen=True, slots=True)
class Counters:
    """What the kernel counted for a container since it was made.

    Attributes:
        oom_kills: processes killed for lack of memory.
        pids_limit_hits: forks refused by the limit on processes.
        memory_peak: most bytes in use at one time, or None where the kernel does not say.
    """

    oom_kills: int
    pids_limit_hits: int
    memory_peak: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecResult:
    """The result of one exec.

    Attributes:
        args: what was run.
        exit_code: the exit status; None when a signal ended it.
        signal: the number of the signal that ended it, else None.
        stdout_bytes: what it wrote to its standard output.
        stderr_bytes: what it wrote to its standard error.
        duration: seconds from the request to the end.
        timed_out: whether the timeout ended it, and its whole process tree with it.
        oom_killed: whether the kernel killed a process of the container for lack of memory meanwhile.
    """

    args: tuple[str, ...]
    exit_code: int | None
    signal: int | None
    stdout_bytes: bytes
    stderr_bytes: bytes
    duration: float
    timed_out: bool
    oom_killed: bool

    @property
    def stdout(self) -> str:
        """Standard output as text; bytes that are no UTF-8 show as escapes."""
        return self.stdout_bytes.decode("utf-8", "backslashreplace")

    @property
    def stderr(self) -> str:
        """Standard error as text; bytes that are no UTF-8 show as escapes."""
        return self.stderr_bytes.decode("utf-8", "backslashreplace")

    @property
    def ok(self) -> bool:
        """Whether it ended by itself with status 0."""
        return self.exit_code == 0 and not self.timed_out

    def describe(self) -> str:
        """How it ended, in a few words."""
        if self.timed_out:
            return f"timed out after {self.duration:.1f} s"
        if self.oom_killed:
            return "was killed for lack of memory" if self.signal else f"exited with {self.exit_code}, out of memory"
        return f"was ended by signal {self.signal}" if self.signal else f"exited with {self.exit_code}"
