"""The files of a cgroup directory: reading, writing, and what the kernel's refusal means.

Responsible for: one open, one read or write, errors that name the file and the value. Must not know: which
files there are.
"""

from __future__ import annotations

import errno
import os

from pytest_ocirun.errors import KernelRefused

_CHUNK = 65536


def read(path: str) -> str:
    """Give the text of a file without its last newline.

    Raises:
        OSError: as open(2) and read(2) say.
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        chunks = []
        while chunk := os.read(fd, _CHUNK):
            chunks.append(chunk)
    finally:
        os.close(fd)
    return b"".join(chunks).decode("ascii", "surrogateescape").rstrip("\n")


def read_or_none(path: str) -> str | None:
    """Give the text of a file, or None if this kernel or this cgroup does not have it (any more)."""
    try:
        return read(path)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENODEV, errno.EOPNOTSUPP):
            return None
        raise


def number(path: str) -> int | None:
    """Give the number in a file; -1 for ``max``, None if there is no such file."""
    text = read_or_none(path)
    if text is None:
        return None
    return -1 if text == "max" else int(text)


def field(path: str, name: str) -> int | None:
    """Give the number behind ``name`` in a file of ``name number`` lines, or None."""
    for line in (read_or_none(path) or "").splitlines():
        key, _, value = line.partition(" ")
        if key == name:
            return int(value)
    return None


def put(path: str, value: str) -> None:
    """Write a value by one write(2), as the kernel wants it.

    Raises:
        OSError: as open(2) and write(2) say.
    """
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        os.write(fd, value.encode("ascii"))
    finally:
        os.close(fd)


def refused(attempt: str, error: OSError, hint: str | None = None) -> KernelRefused:
    """Make the error that says what was attempted and what the kernel answered; chain it with ``from``."""
    code = error.errno or errno.EIO
    return KernelRefused(f"{attempt}: {os.strerror(code)}", errno=code, hint=hint)
