"""The holder: pid 1 of a container that only waits for execs.

A static program of one loop around ppoll(2), about 150 bytes, written here instruction by instruction: it needs
nothing of the image, costs a few pages, and there is nothing in it to attack. It is exec'ed with SIGCHLD ignored,
which makes the kernel reap the orphans that reparent to it; as pid 1 it has no handlers, so only SIGKILL from outside
ends it.
Sources: elf(5), ppoll(2), pid_namespaces(7).
"""

from __future__ import annotations

import struct

from pytest_ocirun.runtime import elf

# x86-64: xor edi,edi; xor esi,esi; xor edx,edx; xor r10d,r10d; mov eax,271; syscall; jmp -0x12
_X86_64 = bytes.fromhex("31ff31f631d24531d2b80f0100000f05ebee")
# aarch64: mov x0..x3, xzr; mov x8,#73; svc #0; b -0x14
_AARCH64 = struct.pack("<7I", 0xAA1F03E0, 0xAA1F03E1, 0xAA1F03E2, 0xAA1F03E3, 0xD2800928, 0xD4000001, 0x17FFFFFA)
_CODES = {"x86_64": _X86_64, "aarch64": _AARCH64}


def program(machine: str) -> bytes:
    """The holder as an ELF file for ``machine``, a name as uname(2) gives it.

    Raises:
        OSError: ENOEXEC, for a machine that it is not written for.
    """
    return elf.image(machine, _CODES)
