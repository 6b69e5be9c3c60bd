"""Programs that decide which devices a cgroup may use: BPF_PROG_TYPE_CGROUP_DEVICE. Source: bpf(2), linux/bpf.h.

``union bpf_attr`` is laid out by ``struct``, since each command reads a few fields of its own. The kernel wants
CAP_BPF and CAP_NET_ADMIN, or CAP_SYS_ADMIN, in the initial user namespace. Must not know what a program says.
"""

from __future__ import annotations

import ctypes
import struct

from pytest_ocirun.linux import _libc

_PROG_LOAD = 5
_PROG_ATTACH = 8
_PROG_DETACH = 9
_PROG_GET_FD_BY_ID = 13
_OBJ_GET_INFO_BY_FD = 15
_PROG_QUERY = 16

_TYPE_CGROUP_DEVICE = 15
_ATTACH_CGROUP_DEVICE = 6
_ALLOW_MULTI = 2
_REPLACE = 4

_INSTRUCTION = 8
_MOST_ATTACHED = 64  # BPF_CGROUP_MAX_PROGS
_NAME_OFFSET, _NAME_LENGTH = 64, 16  # in struct bpf_prog_info

_bpf = _libc.SystemCall("bpf", ctypes.c_int, ctypes.c_void_p, ctypes.c_uint)


def load(code: bytes, name: str) -> int:
    """Load a device program; a close-on-exec fd that stands for it (BPF_PROG_LOAD).

    Args:
        code: its ``struct bpf_insn`` instructions.
        name: at most 15 letters, digits, dots and underscores.

    Raises:
        OSError: the kernel's verifier or its permission checks refused it.
    """
    program = ctypes.create_string_buffer(code, len(code))
    licence = ctypes.create_string_buffer(b"Apache-2.0")
    return _call(
        _PROG_LOAD,
        "=IIQQIIQII16s",
        *(_TYPE_CGROUP_DEVICE, len(code) // _INSTRUCTION),
        *(ctypes.addressof(program), ctypes.addressof(licence)),
        *(0, 0, 0, 0, 0, name.encode()),
    )


def attach(cgroup: int, program: int, *, instead_of: int | None = None) -> None:
    """Make a cgroup v2 directory, and all below it, obey a program (BPF_PROG_ATTACH).

    Args:
        cgroup: a fd of the directory.
        program: a fd of the program; the cgroup keeps it from now on.
        instead_of: a fd of the attached program that it replaces in the same instant (Linux 5.6).
    """
    flags = _ALLOW_MULTI if instead_of is None else _ALLOW_MULTI | _REPLACE
    _call(_PROG_ATTACH, "=5I", cgroup, program, _ATTACH_CGROUP_DEVICE, flags, instead_of or 0)


def detach(cgroup: int, program: int) -> None:
    """Undo ``attach`` (BPF_PROG_DETACH)."""
    _call(_PROG_DETACH, "=5I", cgroup, program, _ATTACH_CGROUP_DEVICE, 0, 0)


def attached(cgroup: int) -> list[int]:
    """The ids of the programs attached to a cgroup itself, not to those above it (BPF_PROG_QUERY)."""
    ids = (ctypes.c_uint32 * _MOST_ATTACHED)()
    attributes = struct.pack("=4IQI", cgroup, _ATTACH_CGROUP_DEVICE, 0, 0, ctypes.addressof(ids), _MOST_ATTACHED)
    buffer = ctypes.create_string_buffer(attributes, len(attributes))
    _bpf(_PROG_QUERY, buffer, len(attributes))
    (count,) = struct.unpack_from("=I", buffer, 24)
    return list(ids[:count])


def open_program(number: int) -> int:
    """A close-on-exec fd of the program with that id (BPF_PROG_GET_FD_BY_ID)."""
    return _call(_PROG_GET_FD_BY_ID, "=III", number, 0, 0)


def name(program: int) -> str:
    """The name that a program was loaded with (BPF_OBJ_GET_INFO_BY_FD)."""
    info = ctypes.create_string_buffer(_NAME_OFFSET + _NAME_LENGTH)
    _call(_OBJ_GET_INFO_BY_FD, "=IIQ", program, len(info), ctypes.addressof(info))
    return info.raw[_NAME_OFFSET:].partition(b"\0")[0].decode("ascii", "replace")


def _call(command: int, layout: str, *values: object) -> int:
    attributes = struct.pack(layout, *values)
    buffer = ctypes.create_string_buffer(attributes, len(attributes))
    return _bpf(command, buffer, len(attributes))
