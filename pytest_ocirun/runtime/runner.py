"""The runner: a program that makes the system calls of a script, the last of which is execve(2).

It stands between our Python and a program wherever the one should not, or need not, execute the other (``usher``,
``spare``). A script is the address of the calls for a failure, then calls of nine words: number, flags, six arguments,
and the result that it must have, or a negative number for any success. A call that fails leads to those for a failure,
with its errno left as a byte at ``ERRNO``, unless bit 0 of its flags is set; a call that succeeds skips as many of the
following ones as the other bits say.

A script is part of the program, or it comes as one message from the socket at fd 3: then the first act is to become
non-dumpable (which the process is from the start where it may not read its own file), an empty message ends it well,
and one that cannot be taken kills it by an illegal instruction.
Sources: elf(5), recvmsg(2), syscall(2).
"""

from __future__ import annotations

import struct

from pytest_ocirun.linux import _libc
from pytest_ocirun.runtime import elf

SOCKET = 3
ERRNO = elf.DATA + 0x78
SCRIPT = elf.DATA + 0x1000
MOST = 0x30000
"""Bytes that a script may have which comes as a message."""

_IOV, _CONTROL = 0x40, 0x80
_CALLS = 160
_CALL = struct.Struct("<QQ6Qq")
_DATA = 8 + _CALLS * _CALL.size
_WORD = (1 << 64) - 1
_ANY = -1
_SET_MODE_FILTER = 1

FAILED = 127
"""The exit status after a failure."""

_CODES = {
    "x86_64": bytes.fromhex(
        "bf04000000 31f6 b89d000000 0f05"  # prctl(PR_SET_DUMPABLE, 0)
        "bf03000000 be00005000 ba00000040 b82f000000 0f05"  # recvmsg(3, DATA, MSG_CMSG_CLOEXEC)
        "4885c0 786f 7464"  # js illegal; jz quit
        "bb08105000"  # written: rbx = SCRIPT + 8
        "488b03 488b7b10 488b7318 488b5320 4c8b5328 4c8b4330 4c8b4b38 0f05"  # loop: load; syscall
        "488b4b08 488b5340 4883c348"  # rcx = flags; rdx = result; rbx += 72
        "483d00f0ffff 7716 4885d2 7805 4839d0 750c"  # ja failed, above -4096; js good; jne failed
        "48d1e9 486bc948 4801cb ebb9"  # good: rbx += (rcx >> 1) * 72; jmp loop
        "f6c101 75b4 f7d8 88042578005000"  # failed: jnz loop, by bit 0; [ERRNO] = -al
        "bb00105000 488b1b eba1"  # rbx = [SCRIPT]; jmp loop
        "31ff b8e7000000 0f05"  # quit: exit_group(0)
        "0f0b"  # illegal: ud2
    ),
    "aarch64": struct.pack(
        "<43I",
        *(0xD2800080, 0xD2800001, 0xD28014E8, 0xD4000001),  # prctl(PR_SET_DUMPABLE, 0)
        *(0xD2800060, 0xD2A00A01, 0xD2A80002, 0xD2801A88, 0xD4000001),  # recvmsg(3, DATA, MSG_CMSG_CLOEXEC)
        *(0xF100001F, 0x5400040B, 0x54000380),  # cmp x0, 0; b.lt illegal; b.eq quit
        *(0xD2820113, 0xF2A00A13),  # written: x19 = SCRIPT + 8
        *(0xA9405268, 0xA9410660, 0xA9420E62, 0xA9431664, 0xF9402275, 0xD4000001),  # loop: load x8, x20, x0-5, x21; svc
        *(0x91012273, 0xB13FFC1F, 0x54000102),  # x19 += 72; cmn x0, 4095; b.cs failed
        *(0xB7F80075, 0xEB15001F, 0x540000A1),  # tbnz x21, 63, good; cmp x0, x21; b.ne failed
        *(0xD341FE94, 0xD2800916, 0x9B164E93, 0x17FFFFF1),  # good: x19 += (x20 >> 1) * 72; b loop
        *(0x3707FE14, 0x4B0003E0, 0xD2800F15, 0xF2A00A15, 0x390002A0),  # failed: tbnz w20, 0, loop; [ERRNO] = -w0
        *(0xD2820013, 0xF2A00A13, 0xF9400273, 0x17FFFFE8),  # x19 = [SCRIPT]; b loop
        *(0xD2800000, 0xD2800BC8, 0xD4000001),  # quit: exit_group(0)
        0x00000000,  # illegal: udf
    ),
}
_WRITTEN = {"x86_64": 0x2B, "aarch64": 0x30}
MACHINES = tuple(_CODES)


class Unfit(Exception):
    """This has no form as a script."""


class Script:
    """A script, being written.

    Args:
        most: bytes that it may have, if there is a bound.
    """

    def __init__(self, most: int | None = None) -> None:
        self._most = most
        self._calls: list[bytes] = []
        self._data = bytearray()

    def call(self, name: str, *args: int, may_fail: bool = False, skip: int = 0, expect: int = _ANY) -> None:
        """Add a system call.

        Args:
            name: the call.
            args: its arguments.
            may_fail: whether the script goes on when it fails.
            skip: how many of the following calls are left out when it succeeds.
            expect: the result that it must have; any success if negative.
        """
        words = [each & _WORD for each in args] + [0] * (6 - len(args))
        self._calls.append(_CALL.pack(_libc.number(name), skip << 1 | may_fail, *words, expect))

    def data(self, content: bytes) -> int:
        """Put something into the script; its address."""
        self._data += bytes(-len(self._data) % 8)
        address = SCRIPT + _DATA + len(self._data)
        self._data += content
        return address

    def text(self, content: str) -> int:
        """The address of a string.

        Raises:
            Unfit: it has a zero byte.
        """
        encoded = content.encode("utf-8", "surrogateescape")
        if b"\0" in encoded:
            raise Unfit(f"a zero byte in {content[:40]!r}")
        return self.data(encoded + b"\0")

    def texts(self, contents: list[str]) -> int:
        """The address of an array of strings, as execve(2) takes it."""
        addresses = [self.text(each) for each in contents]
        return self.data(struct.pack(f"<{len(addresses) + 1}Q", *addresses, 0))

    def load_filter(self, code: bytes, flags: int) -> None:
        """Add the loading of a compiled system call filter, by seccomp(2)."""
        program = struct.pack("<H6xQ", len(code) // 8, self.data(code))
        self.call("seccomp", _SET_MODE_FILTER, flags, self.data(program))

    def finish(self, refusal: list[tuple[str, int, int, int, int]]) -> bytes:
        """The whole.

        Args:
            refusal: the calls for a failure, with four arguments each; the process ends after them.

        Raises:
            Unfit: it is too large.
        """
        failure = SCRIPT + 8 + len(self._calls) * _CALL.size
        for name, *args in refusal:
            self.call(name, *args, may_fail=True)
        self.call("exit_group", FAILED, may_fail=True)
        if len(self._calls) > _CALLS or (self._most and _DATA + len(self._data) > self._most):
            raise Unfit("too large")
        return (struct.pack("<Q", failure) + b"".join(self._calls)).ljust(_DATA, b"\0") + self._data


def program(machine: str, script: bytes | None = None) -> bytes:
    """The runner as an ELF file.

    Args:
        machine: a name as uname(2) gives it.
        script: what it does; without one it takes a message.

    Raises:
        OSError: ENOEXEC, for a machine that it is not written for.
    """
    if script is not None:
        return elf.image(machine, _CODES, bytes(SCRIPT - elf.DATA) + script, start=_WRITTEN.get(machine, 0))
    control = SCRIPT - elf.DATA - _CONTROL
    header = struct.pack("<QIIQQQQii", 0, 0, 0, elf.DATA + _IOV, 1, elf.DATA + _CONTROL, control, 0, 0)
    data = header.ljust(_IOV, b"\0") + struct.pack("<QQ", SCRIPT, MOST)
    return elf.image(machine, _CODES, data, memory=SCRIPT - elf.DATA + MOST)
