"""Loading a compiled seccomp filter. Source: seccomp(2)."""

from __future__ import annotations

import ctypes

from pytest_ocirun.linux import _libc

_SECCOMP_SET_MODE_FILTER = 1
_INSTRUCTION = 8


class _SockFprog(ctypes.Structure):
    _fields_ = [("len", ctypes.c_ushort), ("filter", ctypes.c_void_p)]


_seccomp = _libc.SystemCall("seccomp", ctypes.c_uint, ctypes.c_uint, ctypes.POINTER(_SockFprog))


class Filter:
    """A classic BPF program, laid out before it is needed so that ``load`` is one system call.

    Args:
        program: ``struct sock_filter`` instructions of 8 bytes each, as libseccomp exports them.
        flags: SECCOMP_FILTER_FLAG_*.
    """

    __slots__ = ("_buffer", "_fprog", "flags", "program")

    def __init__(self, program: bytes, flags: int = 0) -> None:
        self._buffer = ctypes.create_string_buffer(program, len(program))
        self._fprog = _SockFprog(len(program) // _INSTRUCTION, ctypes.addressof(self._buffer))
        self.program = program
        self.flags = flags

    def load(self) -> int:
        """Filter the calling thread and all it makes; needs no_new_privs or CAP_SYS_ADMIN.

        Returns:
            The fd of the listener with SECCOMP_FILTER_FLAG_NEW_LISTENER, else 0.
        """
        return _seccomp(_SECCOMP_SET_MODE_FILTER, self.flags, ctypes.byref(self._fprog))
