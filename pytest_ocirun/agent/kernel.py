"""The one kernel call that the agent needs and the standard library lacks. Knows nothing of what it is for."""

from __future__ import annotations

import ctypes
import os

PR_SET_DUMPABLE = 4


def set_not_dumpable() -> None:
    """Keep every other process of the container from tracing this one, or opening its memory and descriptors.

    Raises:
        OSError: prctl(2), PR_SET_DUMPABLE, was refused.
    """
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    if prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), "prctl(PR_SET_DUMPABLE)")
