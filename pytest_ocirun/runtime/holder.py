"""The holder: pid 1 of a container that only waits for execs.

A static program of one loop around ppoll(2), about 150 bytes, written here instruction by instruction: it needs
nothing of the image, costs a few pages, and there is nothing in it to attack. It is exec'ed with SIGCHLD ignored,
which makes the kernel reap the orphans that reparent to it; as pid 1 it has no handlers, so only SIGKILL from outside
ends it.
Sources: elf(5), ppoll(2), pid_namespaces(7).
"""

from __future__ import annotations

import errno
import os
import struct

_BASE = 0x400000
_HEADERS = 64 + 56
# x86-64: xor edi,edi; xor esi,esi; xor edx,edx; xor r10d,r10d; mov eax,271; syscall; jmp -0x12
_X86_64 = bytes.fromhex("31ff31f631d24531d2b80f0100000f05ebee")
# aarch64: mov x0..x3, xzr; mov x8,#73; svc #0; b -0x14
_AARCH64 = struct.pack("<7I", 0xAA1F03E0, 0xAA1F03E1, 0xAA1F03E2, 0xAA1F03E3, 0xD2800928, 0xD4000001, 0x17FFFFFA)
_MACHINES = {"x86_64": (62, _X86_64), "aarch64": (183, _AARCH64)}


def program(machine: str) -> bytes:
    """The holder as an ELF file for ``machine``, a name as uname(2) gives it.

    Raises:
        OSError: ENOEXEC, for a machine that it is not written for.
    """
    if machine not in _MACHINES:
        raise OSError(errno.ENOEXEC, f"the holder is not written for {machine}")
    number, code = _MACHINES[machine]
    size = _HEADERS + len(code)
    ident = b"\x7fELF" + bytes([2, 1, 1]) + bytes(9)
    header = struct.pack("<16sHHIQQQIHHHHHH", ident, 2, number, 1, _BASE + _HEADERS, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0, _BASE, _BASE, size, size, 0x1000)
    return header + segment + code


def open_program() -> int:
    """Write the holder into the working directory, which nobody else sees, and open it for execution.

    The file is unlinked and its mount ends with the spawner, so nothing inside a container can reach it for writing.
    """
    name = "holder"
    fd = os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o555)
    try:
        os.write(fd, program(os.uname().machine))
    finally:
        os.close(fd)
    opened = os.open(name, os.O_RDONLY | os.O_CLOEXEC)
    os.unlink(name)
    return opened
