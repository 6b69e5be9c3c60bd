"""The runner: a program that makes the system calls of one message, the last of which is execve(2).

It is what a spare is: a Python process costs an execve a millisecond for its memory alone, this one has two pages. It
takes one message from the socket at fd 3 into its memory, at ``MESSAGE``: the address of the calls for a failure, then
calls of eight words: number, flags, six arguments. A call that fails leads to those for a failure, unless bit 0 of its
flags is set; a call that succeeds skips as many of the following ones as the other bits say. A message that is empty
ends it well, and one that cannot be taken kills it by an illegal instruction. ``calls`` writes such messages.

Its first act is to make itself non-dumpable, which it is from the start where it may not read its own file.
Sources: elf(5), recvmsg(2), syscall(2).
"""

from __future__ import annotations

import struct

from pytest_ocirun.runtime import elf

SOCKET = 3
MESSAGE = elf.DATA + 0x1000
MOST = 0x30000
"""Bytes that a message may have."""

_IOV, _CONTROL = 0x40, 0x80
_CODES = {
    "x86_64": bytes.fromhex(
        "bf04000000 31f6 b89d000000 0f05"  # prctl(PR_SET_DUMPABLE, 0)
        "bf03000000 be00005000 ba00000040 b82f000000 0f05"  # recvmsg(3, DATA, MSG_CMSG_CLOEXEC)
        "4885c0 7858 744d bb08105000"  # js illegal; jz quit; rbx = MESSAGE + 8
        "488b03 488b7b10 488b7318 488b5320 4c8b5328 4c8b4330 4c8b4b38 0f05"  # loop: load; syscall
        "488b4b08 4883c340 483d00f0ffff 770c"  # rcx = flags; rbx += 64; ja failed, if above -4096
        "48d1e9 48c1e106 4801cb ebc7"  # rbx += (rcx >> 1) * 64; jmp loop
        "f6c101 75c2 bb00105000 488b1b ebb8"  # failed: jnz loop, if bit 0; rbx = [MESSAGE]; jmp loop
        "31ff b8e7000000 0f05"  # quit: exit_group(0)
        "0f0b"  # illegal: ud2
    ),
    "aarch64": struct.pack(
        "<34I",
        *(0xD2800080, 0xD2800001, 0xD28014E8, 0xD4000001),  # prctl(PR_SET_DUMPABLE, 0)
        *(0xD2800060, 0xD2A00A01, 0xD2A80002, 0xD2801A88, 0xD4000001),  # recvmsg(3, DATA, MSG_CMSG_CLOEXEC)
        *(0xF100001F, 0x540002EB, 0x54000260),  # cmp x0, 0; b.lt illegal; b.eq quit
        *(0xD2820113, 0xF2A00A13),  # x19 = MESSAGE + 8
        *(0xA9405268, 0xA9410660, 0xA9420E62, 0xA9431664, 0xD4000001),  # loop: load x8, x20, x0 to x5; svc
        *(0x91010273, 0xB13FFC1F, 0x54000082),  # x19 += 64; cmn x0, 4095; b.cs failed
        *(0xD341FE94, 0x8B141A73, 0x17FFFFF6),  # x19 += (x20 >> 1) * 64; b loop
        *(0x3707FEB4, 0xD2820013, 0xF2A00A13, 0xF9400273, 0x17FFFFF1),  # failed: tbnz w20, 0, loop; x19 = [MESSAGE]; b
        *(0xD2800000, 0xD2800BC8, 0xD4000001),  # quit: exit_group(0)
        0x00000000,  # illegal: udf
    ),
}


def program(machine: str) -> bytes:
    """The runner as an ELF file for ``machine``, a name as uname(2) gives it.

    Raises:
        OSError: ENOEXEC, for a machine that it is not written for.
    """
    control = MESSAGE - elf.DATA - _CONTROL
    header = struct.pack("<QIIQQQQii", 0, 0, 0, elf.DATA + _IOV, 1, elf.DATA + _CONTROL, control, 0, 0)
    data = header.ljust(_IOV, b"\0") + struct.pack("<QQ", MESSAGE, MOST)
    return elf.image(machine, _CODES, data, MESSAGE - elf.DATA + MOST)
