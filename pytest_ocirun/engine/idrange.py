"""Ranges of host ids for containers' user namespaces, shared by all processes of the machine.

Each container of root gets 65,536 host ids of its own while it lives, so that two containers share no uid: not for
signals, not for per-user limits, not for keyrings. A range is claimed by locking one byte of a file, so the kernel
frees it when its holder dies. The ids lie above those that systemd gives to users and containers and below 2^31.
Source: fcntl_locking(2) "Open file description locks".
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import threading

from pytest_ocirun.errors import OcirunError

FIRST = 0x70000000
SIZE = 65536
COUNT = 4000

_F_OFD_SETLK = 37
_FLOCK = "hh4xqqi4x"
_FILE = "@ids"


class Ranges:
    """This process's claims.

    The first range is nobody's own: stores whose file system cannot be idmapped hold files shifted by it.

    Args:
        root: the state root.
    """

    def __init__(self, root: str) -> None:
        self._fd = os.open(f"{root}/{_FILE}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        self._free: list[int] = []
        self._next = 1
        self._lock = threading.Lock()

    def claim(self) -> int:
        """The first host id of a range that no other container has.

        Raises:
            OcirunError: all are taken.
        """
        with self._lock:
            if self._free:
                return self._free.pop()
            while self._next < COUNT:
                number, self._next = self._next, self._next + 1
                if self._take(number):
                    return FIRST + number * SIZE
        raise OcirunError(f"claim host ids for a container: all {COUNT - 1} ranges are in use")

    def give_back(self, first: int) -> None:
        """The container is gone; the claim is kept for this process's next one."""
        with self._lock:
            self._free.append(first)

    def close(self) -> None:
        """Give every claim up."""
        os.close(self._fd)

    def _take(self, number: int) -> bool:
        try:
            fcntl.fcntl(self._fd, _F_OFD_SETLK, struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, number, 1, 0))
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EACCES):
                return False
            raise
        return True
