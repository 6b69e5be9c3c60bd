"""The execution domain of a process. Source: personality(2)."""

from __future__ import annotations

import ctypes

from pytest_ocirun.linux import _libc

PER_LINUX = 0x0000
PER_LINUX32 = 0x0008

_personality = _libc.function("personality", ctypes.c_ulong)


def personality(value: int) -> None:
    """Set the domain of the calling process; see personality(2)."""
    _libc.check(_personality(value), "personality")
