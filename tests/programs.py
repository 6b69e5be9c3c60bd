"""Programs of a few instructions for tests: static ELF files that make system calls and exit with an errno.

Only for x86-64, and for its 32-bit calls. Sources: elf(5), syscall(2).
"""

import struct
from pathlib import Path

_BASE = 0x400000
_HEADERS = 64 + 56
_REGISTERS = (b"\x48\xbf", b"\x48\xbe", b"\x48\xba", b"\x49\xba", b"\x49\xb8", b"\x49\xb9")
_CALL = bytes.fromhex("0f05")
_EXIT = bytes.fromhex("4885c0 7802 31c0 f7d8 89c7 b8e7000000 0f05")
"""0 if the last call went well, else its errno, as the exit status: exit_group(2)."""


def write_call(path: Path, number: int, *arguments: int | bytes) -> None:
    """Write a program that makes one call.

    Args:
        path: of the program.
        number: of the call.
        arguments: numbers, or bytes to point to, which are writable.
    """
    write_calls(path, (number, *arguments))


def write_calls(path: Path, *calls: tuple[int | bytes, ...]) -> None:
    """Write a program that makes calls, each (number, argument, ...); it exits by how the last one went."""
    size = sum(10 * len(call) + len(_CALL) for call in calls) + len(_EXIT)
    code = data = b""
    for number, *arguments in calls:
        assert isinstance(number, int)
        code += b"\x48\xb8" + struct.pack("<Q", number)
        for register, argument in zip(_REGISTERS, arguments, strict=False):
            value = argument if isinstance(argument, int) else _BASE + _HEADERS + size + len(data)
            data += b"" if isinstance(argument, int) else argument + bytes(-len(argument) % 16)
            code += register + struct.pack("<Q", value & 0xFFFFFFFFFFFFFFFF)
        code += _CALL
    content = code + _EXIT + data
    whole = _HEADERS + len(content)
    ident = b"\x7fELF" + bytes([2, 1, 1]) + bytes(9)
    header = struct.pack("<16sHHIQQQIHHHHHH", ident, 2, 62, 1, _BASE + _HEADERS, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    segment = struct.pack("<IIQQQQQQ", 1, 7, 0, _BASE, _BASE, whole, whole, 0x1000)
    path.write_bytes(header + segment + content)
    path.chmod(0o755)
