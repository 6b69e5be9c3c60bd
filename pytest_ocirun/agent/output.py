"""Bounds what one phase of a test leaves in pytest's capture files. Knows nothing of reports.

While a phase is captured, descriptors 1 and 2 are pytest's temporary files. A test that wrote half its disk full would
have pytest read that into memory, twice; so the middle is cut out of the file first.
"""

from __future__ import annotations

import os
import stat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def bound(manager: Any, limit: int) -> None:
    """Have pytest's capture manager cut its files whenever a captured phase ends, before it reads them.

    An instance's method is replaced rather than a hook wrapped: a wrapper would show in every native traceback.

    Args:
        manager: the plugin "capturemanager", or None.
        limit: bytes for each of the two streams.
    """
    if manager is not None:
        suspend = manager.suspend_global_capture

        def suspend_bounded(in_: bool = False) -> None:  # noqa: FBT001, FBT002 - as the method it replaces
            cut(limit)
            suspend(in_=in_)

        manager.suspend_global_capture = suspend_bounded


def cut(limit: int) -> None:
    """Shorten both capture files to about *limit* bytes: the beginning, a note, the end."""
    for descriptor in (1, 2):
        try:
            status = os.fstat(descriptor)
            if stat.S_ISREG(status.st_mode) and status.st_size > limit:
                _cut(descriptor, status.st_size, limit)
        except OSError:
            continue


def _cut(descriptor: int, size: int, limit: int) -> None:
    half = limit // 2
    end = os.pread(descriptor, half, size - half)
    note = f"\n[ocirun: {size - 2 * half} bytes cut, the limit is {limit}]\n".encode("ascii")
    os.ftruncate(descriptor, half)
    os.lseek(descriptor, half, os.SEEK_SET)
    os.write(descriptor, note + end)
