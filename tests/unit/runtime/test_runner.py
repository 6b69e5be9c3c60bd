"""The runner: a program of a few bytes, run by itself with messages written by hand and by ``calls``."""

import errno
import os
import platform
import shutil
import signal
import socket
import struct
import subprocess
from pathlib import Path

import pytest

from pytest_ocirun.linux import _libc
from pytest_ocirun.runtime import elf, runner
from pytest_ocirun.runtime.calls import UNFIT, Calls, written
from pytest_ocirun.runtime.runner import Unfit

MACHINES = ["x86_64", "aarch64"]
EMULATORS = {"aarch64": "qemu-aarch64-static"}


def run(machine: str, directory: Path, message: bytes | None, *, script: bytes | None = None) -> tuple[int, bytes]:
    """The exit status of a runner that gets a message (None: the end), and what it answers."""
    program = directory / f"runner-{machine}"
    program.write_bytes(runner.program(machine, script))
    program.chmod(0o755)
    command = [str(program)]
    if machine != platform.machine():
        emulator = shutil.which(EMULATORS.get(machine, ""))
        if emulator is None:
            pytest.skip(f"needs {EMULATORS.get(machine)} (Debian: qemu-user-static)")
        command = [emulator, *command]
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours:
        with theirs:
            actions = [(os.POSIX_SPAWN_DUP2, theirs.fileno(), runner.SOCKET)]
            pid = os.posix_spawn(command[0], command, {}, file_actions=actions)
        if message is None:
            ours.shutdown(socket.SHUT_WR)
        else:
            ours.send(message)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        return status, ours.recv(1000)


def exits(calls: Calls, machine: str, status: int, **how: int) -> None:
    """Add an exit."""
    add(calls, machine, "exit_group", status, **how)


def add(calls: Calls, machine: str, name: str, *args: int, **how: int) -> None:
    """Add a call with the number of another machine."""
    calls.call(name, *args, may_fail=bool(how.get("may_fail")), skip=how.get("skip", 0), expect=how.get("expect", -1))
    number = _libc.NUMBERS[name][MACHINES.index(machine)]
    calls._calls[-1] = struct.pack("<Q", number) + calls._calls[-1][8:]


def message(calls: Calls, machine: str) -> bytes:
    """The script, with another machine's numbers in the calls for a failure: these tell UNFIT and the errno."""
    told = calls.data(struct.pack("<4Q", calls.data(UNFIT), len(UNFIT), runner.ERRNO, 1))
    made = bytearray(calls.finish([("writev", runner.SOCKET, told, 2, 0)]))
    for index, name in enumerate(("writev", "exit_group")):
        place = 8 + (len(calls._calls) - 2 + index) * 72
        made[place : place + 8] = struct.pack("<Q", _libc.NUMBERS[name][MACHINES.index(machine)])
    return bytes(made)


def empty() -> Calls:
    """Nothing yet."""
    return Calls(["stdio0", "stdio1", "stdio2"], b"", 0, 40)


@pytest.mark.parametrize("machine", MACHINES)
def test_program_has_two_segments(machine: str) -> None:
    """One to execute and one to write, none for both; the message fits behind what recvmsg(2) wants."""
    program = runner.program(machine)
    segments = [struct.unpack_from("<IIQQQQQQ", program, 64 + 56 * index) for index in range(2)]

    assert [each[1] for each in segments] == [5, 6]
    assert segments[1][3] == elf.DATA
    assert segments[1][6] == runner.SCRIPT + runner.MOST - elf.DATA
    assert segments[1][2] + segments[1][5] == len(program)


@pytest.mark.parametrize("machine", MACHINES)
def test_calls_are_made_in_order(machine: str, tmp_path: Path) -> None:
    """A call that succeeds is followed by the next, and the last one's argument is the exit status."""
    calls = empty()
    add(calls, machine, "umask", 0o22)
    exits(calls, machine, 7)
    exits(calls, machine, 8)

    assert run(machine, tmp_path, message(calls, machine)) == (7, b"")


@pytest.mark.parametrize("machine", MACHINES)
def test_a_success_may_skip(machine: str, tmp_path: Path) -> None:
    """As many calls as it says."""
    calls = empty()
    add(calls, machine, "umask", 0o22, skip=2)
    exits(calls, machine, 1)
    exits(calls, machine, 2)
    exits(calls, machine, 3)

    assert run(machine, tmp_path, message(calls, machine)) == (3, b"")


@pytest.mark.parametrize("machine", MACHINES)
def test_a_failure_may_be_borne(machine: str, tmp_path: Path) -> None:
    """Then nothing is skipped."""
    calls = empty()
    add(calls, machine, "fchdir", 999, may_fail=True, skip=1)
    exits(calls, machine, 4)
    exits(calls, machine, 5)

    assert run(machine, tmp_path, message(calls, machine)) == (4, b"")


@pytest.mark.parametrize("machine", MACHINES)
def test_a_failure_is_told(machine: str, tmp_path: Path) -> None:
    """And ends it, with nothing after it done."""
    calls = empty()
    add(calls, machine, "fchdir", 999)
    exits(calls, machine, 0)

    assert run(machine, tmp_path, message(calls, machine)) == (127, UNFIT + bytes([errno.EBADF]))


@pytest.mark.parametrize("machine", MACHINES)
def test_a_result_may_be_wanted(machine: str, tmp_path: Path) -> None:
    """Another one is a failure."""
    calls = empty()
    add(calls, machine, "umask", 0o22)
    add(calls, machine, "umask", 0o27, expect=0o22)
    add(calls, machine, "umask", 0o27, expect=0o22, may_fail=True)
    add(calls, machine, "umask", 0o22, expect=0o22)
    exits(calls, machine, 0)
    status, told = run(machine, tmp_path, message(calls, machine))

    assert status == 127
    assert told.startswith(UNFIT)


@pytest.mark.parametrize("machine", MACHINES)
def test_a_script_may_be_part_of_it(machine: str, tmp_path: Path) -> None:
    """Then it takes no message."""
    calls = empty()
    add(calls, machine, "umask", 0o22)
    exits(calls, machine, 9)

    assert run(machine, tmp_path, None, script=message(calls, machine)) == (9, b"")


@pytest.mark.parametrize("machine", MACHINES)
def test_the_end_ends_it(machine: str, tmp_path: Path) -> None:
    """Nobody has a program for it."""
    assert run(machine, tmp_path, None) == (0, b"")


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize(
    "path, status, told",
    [("/bin/sh", 5, b""), ("/no/such/program", 127, UNFIT + bytes([errno.ENOENT]))],
    ids=["runs", "refused"],
)
def test_the_last_call_becomes_a_program(machine: str, tmp_path: Path, path: str, status: int, told: bytes) -> None:
    """With its arguments and its environment; the errno of one that does not become it is told."""
    calls = empty()
    argv, envp = calls.texts(["sh", "-c", "exit $ANSWER"]), calls.texts(["ANSWER=5"])
    add(calls, machine, "execve", calls.text(path), argv, envp)

    assert run(machine, tmp_path, message(calls, machine)) == (status, told)


def test_no_socket_kills_it(tmp_path: Path) -> None:
    """It cannot be taken for a program that ended well."""
    program = tmp_path / "runner"
    program.write_bytes(runner.program(platform.machine()))
    program.chmod(0o755)
    with subprocess.Popen([program]) as process:
        assert process.wait(10) == -signal.SIGILL


def test_unknown_machine() -> None:
    """An error of execve's kind."""
    with pytest.raises(OSError, match="not written for vax"):
        runner.program("vax")


@pytest.mark.parametrize(
    "step",
    [
        ["open_console", 0, 0, 0],
        ["chdir", "/", True],
        ["chdir", "/a\0b", False],
        ["user", 0xFFFFFFFF, 0, []],
        ["user", 0, -1, []],
        ["arrange_fds", {"0": "stdio0", "1": "stdio1", "2": "stdio2", "3": "fd3"}],
        ["execute", ["x" * runner.MOST], []],
    ],
    ids=lambda step: str(step)[:30],
)
def test_what_a_spare_is_unfit_for(step: list[object]) -> None:
    """What system calls alone cannot do, what would mean something else, and what is too large."""
    with pytest.raises(Unfit):
        written([step], empty())
