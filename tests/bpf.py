"""A classic BPF machine with what system call filters use of it: says what a filter answers to a call.

Source: the kernel's Documentation/networking/filter.rst and seccomp(2), "struct seccomp_data".
"""

import struct
from collections.abc import Callable

X86_64 = 0xC000003E
AARCH64 = 0xC00000B7
I386 = 0x40000003

KILL_PROCESS = 0x80000000
ERRNO = 0x00050000
ALLOW = 0x7FFF0000

_LOAD, _AND, _JUMP, _RETURN = 0x20, 0x54, 0x05, 0x06
_JUMPS: dict[int, Callable[[int, int], bool]] = {
    0x15: lambda a, k: a == k,
    0x25: lambda a, k: a > k,
    0x35: lambda a, k: a >= k,
    0x45: lambda a, k: bool(a & k),
}


def run(code: bytes, number: int, args: tuple[int, ...] = (), arch: int = X86_64) -> int:
    """Return the filter's answer, a SECCOMP_RET_* with its data.

    Raises:
        ValueError: the program is malformed: an unknown instruction, or no end.
    """
    numbers = [value & 0xFFFFFFFFFFFFFFFF for value in (*args, *[0] * (6 - len(args)))]
    data = struct.pack("=IIQ6Q", number & 0xFFFFFFFF, arch, 0, *numbers)
    program: list[tuple[int, int, int, int]] = list(struct.iter_unpack("=HBBI", code))
    accumulator: int = 0
    place = 0
    while place < len(program):
        operation, yes, no, value = program[place]
        place += 1
        if operation == _LOAD:
            (accumulator,) = struct.unpack_from("=I", data, value)
        elif operation == _AND:
            accumulator &= value
        elif operation == _JUMP:
            place += value
        elif operation in _JUMPS:
            place += yes if _JUMPS[operation](accumulator, value) else no
        elif operation == _RETURN:
            return value
        else:
            msg = f"instruction {place - 1}: operation {operation:#x} is unknown"
            raise ValueError(msg)
    msg = "the program has no end"
    raise ValueError(msg)
