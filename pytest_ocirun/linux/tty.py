"""Pseudo-terminals: peers by fd, controlling terminal, size. Sources: ioctl_tty(2), pts(4)."""

from __future__ import annotations

import fcntl
import os
import struct

_TIOCSCTTY = 0x540E
_TIOCGWINSZ = 0x5413
_TIOCSWINSZ = 0x5414
_TIOCSPTLCK = 0x40045431
_TIOCGPTPEER = 0x5441
_TIOCGPTN = 0x80045430


def open_pair(ptmx: int) -> tuple[int, int]:
    """Unlock the master that ``ptmx`` is open on, and open its peer by fd, never by path (Linux 4.13).

    Returns:
        (master, slave), both close-on-exec.
    """
    fcntl.ioctl(ptmx, _TIOCSPTLCK, struct.pack("i", 0))
    slave = fcntl.ioctl(ptmx, _TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    return ptmx, slave


def number(ptmx: int) -> int:
    """The number of the terminal below devpts."""
    return int(struct.unpack("i", fcntl.ioctl(ptmx, _TIOCGPTN, b"\0" * 4))[0])


def make_controlling(slave: int) -> None:
    """Make ``slave`` the controlling terminal of the calling session leader."""
    fcntl.ioctl(slave, _TIOCSCTTY, 0)


def get_size(fd: int) -> tuple[int, int]:
    """(rows, columns) of a terminal."""
    rows, columns, _x, _y = struct.unpack("4H", fcntl.ioctl(fd, _TIOCGWINSZ, b"\0" * 8))
    return rows, columns


def set_size(fd: int, rows: int, columns: int) -> None:
    """Set rows and columns of a terminal; the foreground group gets SIGWINCH."""
    fcntl.ioctl(fd, _TIOCSWINSZ, struct.pack("4H", rows, columns, 0, 0))
