"""The usher as a program: it makes the calls of its table, and tells which errno kept it from going on.

On aarch64, or with ``qemu-aarch64-static``, the other architecture's code runs as well.
"""

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from pytest_ocirun.runtime.usher import _ANY, _CODES, _Image, adapt
from tests.requires import SBIN_PATH

_HELLO, _MESSAGE = b"hello\n", b"{told}"


def _command(machine: str, program: str) -> list[str]:
    if machine == os.uname().machine:
        return [program]
    emulator = shutil.which(f"qemu-{machine}-static", path=SBIN_PATH)
    if emulator is None:
        pytest.skip(f"this kernel lacks {machine}")
    return [emulator, program]


def _program(machine: str, execve: str, expected: int) -> bytes:
    image = _Image(machine)
    hello, message = image.add(_HELLO), image.add(_MESSAGE + b"\0")
    arguments, environment = image.add_strings([b"echo", b"done"]), image.add_strings([])
    rows: list[tuple[Any, ...]] = [
        ("write", 1, hello, len(_HELLO), expected),
        ("close", 99, _ANY),
        ("execve", image.add(execve.encode() + b"\0"), arguments, environment, 0),
    ]
    refusal = [("write", 1, message, len(_MESSAGE) + 1, _ANY), ("exit_group", 3, _ANY)]
    return image.finish(image.add_rows(rows), message + len(_MESSAGE), image.add_rows(refusal))


@pytest.mark.parametrize("machine", _CODES)
@pytest.mark.parametrize(
    "execve, expected, code, output",
    [
        ("/bin/echo", len(_HELLO), 0, _HELLO + b"done\n"),
        ("/no/such/program", len(_HELLO), 3, _HELLO + _MESSAGE + b"\2"),
        ("/bin/echo", 1, 3, _HELLO + _MESSAGE),
    ],
    ids=["runs", "refused", "another result"],
)
def test_the_calls_are_made(tmp_path: Path, machine: str, execve: str, expected: int, code: int, output: bytes) -> None:
    """In order; the first that has another result than it must have leads to those for a failure."""
    program = tmp_path / "usher"
    program.write_bytes(_program(machine, execve, expected))
    program.chmod(0o755)
    done = subprocess.run(_command(machine, str(program)), capture_output=True, check=False, env={})

    assert done.returncode == code
    assert done.stdout.startswith(output)
    assert done.stderr == b""


@pytest.mark.parametrize("extra", [["run_hooks"], ["set_label"]])
def test_a_step_that_it_cannot_do_is_not_left_out(extra: list[Any]) -> None:
    """Whoever adds one behind ``ready`` hears of it at once, instead of losing it without root's knowledge."""
    plan = {"enter": [["pivot"], ["ready"], ["wait_start"], extra, ["arrange_fds", {}], ["execute", ["a"], []]]}

    with pytest.raises(AssertionError, match="cannot do"):
        adapt(plan)
