"""File descriptors: ranges, and passing them over unix sockets. Sources: close_range(2), unix(7).

``_socket`` is used directly: the ``socket`` module around it costs more to import than all of this package.
"""

from __future__ import annotations

import _socket
import os
import select
import struct

MAX_FDS = 253  # SCM_MAX_FD
MAX_MESSAGE = 65536


Socket = _socket.socket


def seqpacket_pair() -> tuple[Socket, Socket]:
    """Two connected SOCK_SEQPACKET unix sockets, close-on-exec: messages keep their bounds, and an end is seen."""
    return _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET | _socket.SOCK_CLOEXEC)


def socket_of(fd: int) -> Socket:
    """A socket object that owns the already open ``fd``."""
    return _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET, 0, fd)


def accept(fd: int) -> int:
    """Accept one connection on the listening socket ``fd``; close-on-exec."""
    listener = socket_of(fd)
    try:
        accepted: int = listener._accept()[0]  # type: ignore[attr-defined]  # noqa: SLF001 - the socket module's own way
        return accepted
    finally:
        listener.detach()


def send(sock: Socket, data: bytes, fds: list[int] | None = None) -> None:
    """Send one message with ``fds`` attached; at most ``MAX_FDS`` of them."""
    if not fds:
        sock.send(data, _socket.MSG_NOSIGNAL)
        return
    rights = struct.pack(f"{len(fds)}i", *fds)
    sock.sendmsg([data], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, rights)], _socket.MSG_NOSIGNAL)


def receive(sock: Socket) -> tuple[bytes, list[int]]:
    """One message and the fds that came with it, close-on-exec. Empty data is the other side's end."""
    space = _socket.CMSG_SPACE(MAX_FDS * 4)
    data, ancillary, _flags, _address = sock.recvmsg(MAX_MESSAGE, space, _socket.MSG_CMSG_CLOEXEC)
    fds: list[int] = []
    for level, kind, rights in ancillary:
        if level == _socket.SOL_SOCKET and kind == _socket.SCM_RIGHTS:
            fds.extend(struct.unpack(f"{len(rights) // 4}i", rights[: len(rights) // 4 * 4]))
    return data, fds


def readable(fd: int, timeout: float | None = 0) -> bool:
    """Whether ``fd`` can be read or has ended, within ``timeout`` seconds, or None for ever.

    By poll(2): select(2) stops at fd 1023.
    """
    waiter = select.poll()
    waiter.register(fd, select.POLLIN)
    return bool(waiter.poll(None if timeout is None else timeout * 1000))


def memfd(name: str, content: bytes) -> int:
    """A close-on-exec memory file with ``content``, at offset 0."""
    fd = os.memfd_create(name, os.MFD_CLOEXEC)
    view = memoryview(content)
    while view:
        view = view[os.write(fd, view) :]
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


def read_all(fd: int) -> bytes:
    """Everything from the fd's offset to its end."""
    parts = []
    while part := os.read(fd, max(os.fstat(fd).st_size, 4096) + 1):
        parts.append(part)
    return b"".join(parts)
