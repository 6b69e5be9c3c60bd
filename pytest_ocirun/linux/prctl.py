"""Attributes of the calling process. Source: prctl(2)."""

from __future__ import annotations

import ctypes
import errno

from pytest_ocirun.linux import _libc

_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_PR_SET_KEEPCAPS = 8
_PR_SET_NAME = 15
_PR_CAPBSET_DROP = 24
_PR_SET_CHILD_SUBREAPER = 36
_PR_SET_NO_NEW_PRIVS = 38
_CAP_LAST_POSSIBLE = 63
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_RAISE = 2
_PR_CAP_AMBIENT_CLEAR_ALL = 4

_word = ctypes.c_ulong
_prctl = _libc.function("prctl", ctypes.c_int, _word, _word, _word, _word)


def _call(option: int, first: int = 0, second: int = 0) -> int:
    result = _prctl(option, first, second, 0, 0)
    return result if result >= 0 else _libc.check(result, f"prctl({option})")


def set_pdeathsig(number: int) -> None:
    """Get signal ``number`` when the thread that made this process ends. Cleared by credential changes."""
    _call(_PR_SET_PDEATHSIG, number)


def set_dumpable(value: int) -> None:
    """0 keeps other processes of the user out of /proc/PID of this one, until the next execve."""
    _call(_PR_SET_DUMPABLE, value)


def set_keepcaps(value: int) -> None:
    """1 keeps the permitted set across a change of all uids from 0."""
    _call(_PR_SET_KEEPCAPS, value)


def set_name(name: str) -> None:
    """The process's comm, at most 15 bytes."""
    buffer = ctypes.create_string_buffer(name.encode()[:15])
    _call(_PR_SET_NAME, ctypes.addressof(buffer))


def set_child_subreaper(value: int) -> None:
    """1 makes orphaned descendants children of this process."""
    _call(_PR_SET_CHILD_SUBREAPER, value)


def set_no_new_privs() -> None:
    """Let no execve give more privileges than before; cannot be undone."""
    _call(_PR_SET_NO_NEW_PRIVS, 1)


def capbset_keep(mask: int) -> None:
    """Drop every capability that ``mask`` lacks from the bounding set, up to the last that the kernel knows.

    One loop of bare calls, since it is the longest of a container's start.
    """
    for number in range(_CAP_LAST_POSSIBLE + 1):
        if not mask >> number & 1 and _prctl(_PR_CAPBSET_DROP, number, 0, 0, 0) < 0:
            if ctypes.get_errno() == errno.EINVAL:
                return
            _libc.check(-1, "prctl(PR_CAPBSET_DROP)")


def cap_ambient_clear() -> None:
    """Empty the ambient set."""
    _call(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)


def cap_ambient_raise(number: int) -> None:
    """Add a permitted and inheritable capability to the ambient set."""
    _call(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, number)
