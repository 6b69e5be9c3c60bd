"""Static programs of a few instructions, as ELF files. Source: elf(5)."""

from __future__ import annotations

import errno
import os
import struct

TEXT = 0x400000
DATA = 0x500000
_PAGE = 0x1000
_NUMBERS = {"x86_64": 62, "aarch64": 183}


def image(machine: str, codes: dict[str, bytes], data: bytes = b"", *, memory: int = 0, start: int = 0) -> bytes:
    """An ELF file: the code at ``TEXT``, read-only; ``data`` at ``DATA``, writable, zeroes behind it.

    Args:
        machine: a name as uname(2) gives it.
        codes: the instructions for each machine that there are any for.
        data: what the writable memory begins with; nothing for none.
        memory: bytes of writable memory in all, if more than ``data`` has.
        start: the offset of the first instruction.

    Raises:
        OSError: ENOEXEC, for a machine that ``codes`` lacks.
    """
    if machine not in codes:
        raise OSError(errno.ENOEXEC, f"not written for {machine}")
    segments = 2 if data else 1
    headers = 64 + 56 * segments
    size = headers + len(codes[machine])
    ident = b"\x7fELF" + bytes([2, 1, 1]) + bytes(9)
    entry = TEXT + headers + start
    parts = [
        struct.pack("<16sHHIQQQIHHHHHH", ident, 2, _NUMBERS[machine], 1, entry, 64, 0, 0, 64, 56, segments, 0, 0, 0),
        struct.pack("<IIQQQQQQ", 1, 5, 0, TEXT, TEXT, size, size, _PAGE),
    ]
    if data:
        parts.append(struct.pack("<IIQQQQQQ", 1, 6, _PAGE, DATA, DATA, len(data), max(memory, len(data)), _PAGE))
    parts.append(codes[machine])
    return b"".join(parts).ljust(_PAGE, b"\0") + data if data else b"".join(parts)


def open_for_execution(name: str, content: bytes, mode: int) -> int:
    """Write a program into the working directory, which nobody else sees, and open it for execution alone.

    The file is unlinked and its mount ends with the spawner, so nothing inside a container can reach it for writing.

    Args:
        name: of the file, while there is one.
        content: the program.
        mode: its permissions. A program that its process may not read makes that process non-dumpable.
    """
    fd = os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, mode)
    try:
        os.write(fd, content)
    finally:
        os.close(fd)
    opened = os.open(name, os.O_PATH | os.O_CLOEXEC)
    os.unlink(name)
    return opened
