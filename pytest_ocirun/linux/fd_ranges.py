"""Closing and marking ranges of file descriptors. Source: close_range(2)."""

from __future__ import annotations

import ctypes
import os

from pytest_ocirun.linux import _libc

CLOSE_RANGE_CLOEXEC = 4
_FD_MAX = (1 << 32) - 1

_close_range = _libc.SystemCall("close_range", ctypes.c_uint, ctypes.c_uint, ctypes.c_uint)


def close_range(first: int, last: int = _FD_MAX, flags: int = 0) -> None:
    """Close, or with CLOSE_RANGE_CLOEXEC mark, every fd from ``first`` to ``last``. Linux 5.9 (5.11 for the flag)."""
    _close_range(first, last, flags)


def close_on_exec(last: int) -> None:
    """Have every fd closed at execve.

    Args:
        last: the highest one: a filter that knows nothing of close_range refuses it, and each is set by itself.
    """
    try:
        close_range(0, flags=CLOSE_RANGE_CLOEXEC)
    except OSError:
        for fd in range(last + 1):
            try:
                os.set_inheritable(fd, False)
            except OSError:
                pass  # there is none of that number


def close_all_but(keep: set[int]) -> None:
    """Close every fd from 3 on that ``keep`` lacks."""
    first = 3
    for fd in sorted(each for each in keep if each >= first):
        if fd > first:
            close_range(first, fd - 1)
        first = fd + 1
    close_range(first)
