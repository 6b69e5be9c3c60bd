"""An agent for system call filters with SCMP_ACT_NOTIFY. Sources: seccomp_unotify(2), runtime-spec config-linux.md."""

import errno
import fcntl
import json
import os
import select
import socket
import struct
import threading
from pathlib import Path
from typing import Any, Self


class Agent:
    """Listens for listeners, and answers every call that they bring with one errno, or lets it go on (0).

    Args:
        path: of its socket.
        answer: the errno.
    """

    _RECV, _SEND, _CONTINUE = 0xC0502100, 0xC0182101, 1

    def __init__(self, path: Path, answer: int = errno.ENOSPC) -> None:
        self._answer = answer
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(str(path))
        self._socket.listen()
        self.states: list[dict[str, Any]] = []
        self.seen: list[int] = []
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join(10)
        self._socket.close()

    def _serve(self) -> None:
        listeners = []
        while True:
            try:
                connection, _address = self._socket.accept()
            except OSError:
                break
            with connection:
                data, fds, _flags, _from = socket.recv_fds(connection, 65536, 4)
                while part := connection.recv(65536):
                    data += part
            self.states.append(json.loads(data))
            assert len(fds) == 1
            listeners.append(threading.Thread(target=self._decide, args=fds, daemon=True))
            listeners[-1].start()
        for listener in listeners:
            listener.join(10)

    def _decide(self, fd: int) -> None:
        while _has_call(fd):
            call = bytearray(80)
            try:
                fcntl.ioctl(fd, self._RECV, call)
                number = struct.unpack_from("<i", call, 16)[0]
                self.seen.append(number)
                more = (-self._answer, 0) if self._answer else (0, self._CONTINUE)
                fcntl.ioctl(fd, self._SEND, struct.pack("<QqiI", *struct.unpack_from("<Q", call), 0, *more))
            except OSError as error:
                if error.errno != errno.ENOENT:  # who made the call was killed meanwhile
                    raise
        os.close(fd)


def _has_call(fd: int) -> bool:
    """Wait for a call by poll(2): older kernels do not wake the ioctl for it when all who could call have died."""
    poller = select.poll()
    poller.register(fd, select.POLLIN)
    return bool(dict(poller.poll())[fd] & select.POLLIN)
