"""What /proc says of a process. Source: proc(5)."""

from __future__ import annotations

_STARTTIME = 19  # field 22, counted after the closing parenthesis of comm


def stat(pid: int) -> tuple[str, int] | None:
    """The state letter of a process and its start time in clock ticks since boot; None when there is none.

    Pid and start time together name a process for good: pids are used again, start times are not.
    """
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:  # noqa: PTH123 - pathlib is dear to import
            fields = file.read().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return fields[0].decode(), int(fields[_STARTTIME])


def is_alive(pid: int, start_time: int) -> bool:
    """Whether the process of that pid and start time runs; a zombie does not."""
    found = stat(pid)
    return found is not None and found[1] == start_time and found[0] not in "ZX"
