"""Results, counts and ends."""

import signal

import pytest

from pytest_ocirun.engine.result import ExecResult, Exit


def result(**more: object) -> ExecResult:
    """A result of a program that ended well."""
    wanted: dict[str, object] = {
        "args": ("x",), "exit_code": 0, "signal": None, "stdout_bytes": b"", "stderr_bytes": b"",
        "duration": 1.25, "timed_out": False, "oom_killed": False,
    }  # fmt: skip
    return ExecResult(**(wanted | more))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "status, end", [(0, Exit(0, None)), (3 << 8, Exit(3, None)), (9, Exit(None, 9)), (11 | 0x80, Exit(None, 11))]
)
def test_end_from_a_wait_status(status: int, end: Exit) -> None:
    """Exit status or signal, with a core dump or without."""
    assert Exit.from_status(status) == end


@pytest.mark.parametrize(
    "more, said, ok",
    [
        ({}, "exited with 0", True),
        ({"exit_code": 2}, "exited with 2", False),
        ({"exit_code": None, "signal": 15}, "was ended by signal 15", False),
        ({"exit_code": None, "signal": 9, "oom_killed": True}, "was killed for lack of memory", False),
        ({"exit_code": 1, "oom_killed": True}, "exited with 1, out of memory", False),
        ({"exit_code": None, "signal": signal.SIGKILL, "timed_out": True}, "timed out after 1.2 s", False),
        ({"exit_code": 0, "timed_out": True}, "timed out after 1.2 s", False),
    ],
)
def test_each_end_has_a_name(more: dict[str, object], said: str, ok: bool) -> None:
    """The first cause is named: the clock's before the kernel's before the program's own."""
    made = result(**more)

    assert (made.describe(), made.ok) == (said, ok)


def test_text_of_bytes_that_are_none() -> None:
    """Shown as escapes, never an error."""
    assert result(stdout_bytes=b"\xc3\xa4\xff").stdout == "ä\\xff"
