"""The holder: a program of a few bytes, checked byte by byte and run."""

import os
import platform
import signal
import struct
import subprocess
import time
from pathlib import Path

import pytest

from pytest_ocirun.runtime import holder

CODE = {
    # xor edi,edi; xor esi,esi; xor edx,edx; xor r10d,r10d; mov eax,271 (ppoll); syscall; jmp back
    "x86_64": "31ff 31f6 31d2 4531d2 b80f010000 0f05 ebee",
    # mov x0,xzr; mov x1,xzr; mov x2,xzr; mov x3,xzr; mov x8,#73 (ppoll); svc #0; b back
    "aarch64": "e0031faa e1031faa e2031faa e3031faa 280980d2 010000d4 faffff17",
}


@pytest.mark.parametrize("machine, number", [("x86_64", 62), ("aarch64", 183)])
def test_program_is_a_minimal_elf(machine: str, number: int) -> None:
    """One segment, readable and executable, never writable, that ends with the code."""
    program = holder.program(machine)
    kind, found, version, entry = struct.unpack_from("<HHIQ", program, 16)
    segment = struct.unpack_from("<IIQQQQQQ", program, 64)

    assert program[:7] == b"\x7fELF\x02\x01\x01"
    assert (kind, found, version) == (2, number, 1)
    assert segment == (1, 5, 0, 0x400000, 0x400000, len(program), len(program), 0x1000)
    assert program[entry - 0x400000 :] == bytes.fromhex(CODE[machine])


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_the_jump_leads_to_the_first_instruction(machine: str) -> None:
    """After a signal it waits again."""
    code = bytes.fromhex(CODE[machine])
    if machine == "x86_64":
        back = struct.unpack("<b", code[-1:])[0]
        target = len(code) + back
    else:
        word = struct.unpack("<I", code[-4:])[0]
        target = len(code) - 4 + 4 * ((word & 0x3FFFFFF) - (1 << 26))

    assert target == 0


def test_unknown_machine() -> None:
    """An error of execve's kind."""
    with pytest.raises(OSError, match="not written for vax"):
        holder.program("vax")


@pytest.mark.skipif(platform.machine() not in CODE, reason="this kernel lacks a machine that it is written for")
def test_it_waits_and_does_nothing_else(tmp_path: Path) -> None:
    """It runs, uses no time and almost no memory, survives a handled stop, and ends by a signal."""
    path = tmp_path / "holder"
    path.write_bytes(holder.program(platform.machine()))
    path.chmod(0o755)
    with subprocess.Popen([path]) as process:
        time.sleep(0.1)
        process.send_signal(signal.SIGSTOP)
        process.send_signal(signal.SIGCONT)
        time.sleep(0.05)
        running = process.poll()
        stat = Path(f"/proc/{process.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        threads = len(os.listdir(f"/proc/{process.pid}/task"))
        process.send_signal(signal.SIGTERM)

    assert running is None
    assert stat[0] == "S"
    assert int(stat[11]) + int(stat[12]) <= 1  # ticks of user and system time
    assert threads == 1
    assert process.returncode == -signal.SIGTERM
