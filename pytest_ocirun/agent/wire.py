"""The wire between the host's pytest and a guest: framing, size caps, and the names of the messages.

Both sides import this file, so it is standard library only and reads on Python 3.8. It knows how bytes become
one message and back; what a message may contain is checked by the host (``plugin.schema``), never here.

A frame is one origin byte, four bytes of length (big-endian), then that many bytes of JSON in ASCII::

    host -> supervisor -> worker                worker -> supervisor -> host
      collect   collect these arguments           ready      pytest is imported
      run       run item i, probably j follows    collected  the nodes found
      teardown  tear down; j really follows       report     one phase of the running item
      finish    end the session                   subtest    one subtest of the running item
                                                  warning    one recorded warning
    supervisor -> host                            done       the running item is over
      ended     how the worker ended              stopped    the item tried to stop the whole run
                                                  broken     the worker cannot do its work, and why

The supervisor relays the worker's frames unread, and stamps them with the worker's origin: the worker cannot speak
in the supervisor's name. Never pickle, never evaluate, never import by a name that came over this wire.
"""

from __future__ import annotations

import json
import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from typing import Any, Iterator

HOST = 72
SUPERVISOR = 83
WORKER = 87

HEADER = struct.Struct("!BI")
MAX_FRAME = 32 * 1024 * 1024


class WireError(Exception):
    """The other side broke the framing, or went away in the middle of a frame."""


def encode(origin: int, message: dict[str, Any]) -> bytes:
    """Return the frame for *message*.

    Raises:
        WireError: the message is larger than a frame may be.
    """
    body = json.dumps(message, ensure_ascii=True, allow_nan=False, separators=(",", ":")).encode("ascii")
    if len(body) > MAX_FRAME:
        raise WireError(f"a message of {len(body)} bytes does not fit into a frame of {MAX_FRAME}")
    return HEADER.pack(origin, len(body)) + body


def decode(body: bytes) -> dict[str, Any]:
    """Return the message in a frame's body.

    Raises:
        WireError: it is no JSON object, or one with numbers that JSON does not have.
    """
    try:
        message = json.loads(body.decode("ascii"), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise WireError(f"a message that is no JSON ({error})") from error
    if not isinstance(message, dict):
        raise WireError("a message that is no JSON object")
    return message


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


class Decoder:
    """Bytes in, whole frames out; holds at most one frame and one read."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> None:
        """Add what one read returned."""
        self._buffer += data

    def frames(self) -> Iterator[tuple[int, bytes]]:
        """Yield origin and body of every whole frame that has arrived.

        Raises:
            WireError: a frame announces more bytes than a frame may have.
        """
        while len(self._buffer) >= HEADER.size:
            origin, length = HEADER.unpack_from(self._buffer)
            if length > MAX_FRAME:
                raise WireError(f"a frame of {length} bytes where {MAX_FRAME} is the most")
            end = HEADER.size + length
            if len(self._buffer) < end:
                return
            body = bytes(self._buffer[HEADER.size : end])
            del self._buffer[:end]
            yield origin, body

    @property
    def pending(self) -> int:
        """How many bytes of an unfinished frame are held."""
        return len(self._buffer)


class Channel:
    """One blocking end of the wire, for a worker that does one thing at a time."""

    def __init__(self, sock: socket.socket, origin: int) -> None:
        self._sock = sock
        self._origin = origin

    def send(self, message: dict[str, Any]) -> None:
        """Send one message, whole."""
        self._sock.sendall(encode(self._origin, message))

    def receive(self) -> dict[str, Any] | None:
        """Return the next message, or None when the other side has gone."""
        header = self._exactly(HEADER.size)
        if header is None:
            return None
        _, length = HEADER.unpack(header)
        if length > MAX_FRAME:
            raise WireError(f"a frame of {length} bytes where {MAX_FRAME} is the most")
        body = self._exactly(length)
        return None if body is None else decode(body)

    def _exactly(self, size: int) -> bytes | None:
        data = bytearray()
        while len(data) < size:
            part = self._sock.recv(size - len(data))
            if not part:
                return None
            data += part
        return bytes(data)
