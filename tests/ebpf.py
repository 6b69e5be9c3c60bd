"""An extended BPF machine with what device programs use of it: says what a program answers to a request.

Source: the kernel's Documentation/bpf/standardization/instruction-set.rst and linux/bpf.h, "struct bpf_cgroup_dev_ctx".
"""

import struct

_LOAD_WORD = 0x61
_ALU, _ALU64, _JUMP, _JUMP32 = 0x04, 0x07, 0x05, 0x06
_WIDTHS = {_ALU: 0xFFFFFFFF, _ALU64: 0xFFFFFFFFFFFFFFFF}
_FROM_REGISTER = 0x08


def run(code: bytes, kind: int, access: int, major: int, minor: int) -> int:
    """Return register 0 at the program's end.

    Args:
        code: the instructions.
        kind: BPF_DEVCG_DEV_*.
        access: BPF_DEVCG_ACC_* bits.
        major: of the device.
        minor: of the device.

    Raises:
        ValueError: the program is malformed: an unknown instruction, or no end.
    """
    context = struct.pack("=III", access << 16 | kind, major, minor)
    program: list[tuple[int, int, int, int]] = list(struct.iter_unpack("=BBhi", code))
    registers: dict[int, int] = {}
    place = 0
    while 0 <= place < len(program):
        operation, names, offset, value = program[place]
        target, source = names & 15, names >> 4
        place += 1
        if operation == 0x95:
            return registers[0]
        if operation == _LOAD_WORD and source == 1:
            (registers[target],) = struct.unpack_from("=I", context, offset)
        elif operation & 7 in _WIDTHS:
            other = registers[source] if operation & _FROM_REGISTER else value
            registers[target] = _compute(operation & 0xF0, registers.get(target, 0), other) & _WIDTHS[operation & 7]
        elif operation & 7 == _JUMP and _jumps(operation & 0xF0, registers.get(target, 0), value):
            place += offset
    msg = "the program has no end"
    raise ValueError(msg)


def _compute(operation: int, left: int, right: int) -> int:
    match operation:
        case 0x50:
            return left & right
        case 0x70:
            return left >> right
        case 0xB0:
            return right
        case _:
            msg = f"arithmetic operation {operation:#x} is unknown"
            raise ValueError(msg)


def _jumps(operation: int, left: int, right: int) -> bool:
    match operation:
        case 0x00:
            return True
        case 0x40:
            return bool(left & right)
        case 0x50:
            return left != right
        case _:
            msg = f"jump {operation:#x} is unknown"
            raise ValueError(msg)
