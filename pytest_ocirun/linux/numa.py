"""Which memory nodes a process takes its memory from. Source: set_mempolicy(2)."""

from __future__ import annotations

import ctypes

from pytest_ocirun.linux import _libc

MPOL_DEFAULT = 0
MPOL_PREFERRED = 1
MPOL_BIND = 2
MPOL_INTERLEAVE = 3
MPOL_LOCAL = 4
MPOL_PREFERRED_MANY = 5
MPOL_WEIGHTED_INTERLEAVE = 6

MPOL_F_NUMA_BALANCING = 1 << 13
MPOL_F_RELATIVE_NODES = 1 << 14
MPOL_F_STATIC_NODES = 1 << 15

MOST_NODES = 1024
"""Larger than any kernel's MAX_NUMNODES."""

_WORD = ctypes.sizeof(ctypes.c_ulong) * 8
_Mask = ctypes.c_ulong * (MOST_NODES // _WORD)
_set_mempolicy = _libc.SystemCall("set_mempolicy", ctypes.c_int, ctypes.POINTER(_Mask), ctypes.c_ulong)


def set_mempolicy(mode: int, nodes: list[int]) -> None:
    """Set the memory policy of the calling thread and what it makes; see set_mempolicy(2).

    Args:
        mode: one MPOL_*, with MPOL_F_* added.
        nodes: numbers below ``MOST_NODES``; none is an empty mask.
    """
    if not nodes:
        _set_mempolicy(mode, None, 0)
        return
    mask = _Mask()
    for node in nodes:
        mask[node // _WORD] |= 1 << node % _WORD
    # The kernel reads one bit less than it is told.
    _set_mempolicy(mode, ctypes.byref(mask), MOST_NODES + 1)
