"""As much of D-Bus as it takes to have systemd start a unit and to hear how that ended.

Responsible for the wire: one connection to systemd's own socket, where nobody stands between. Must not know what a
cgroup is. Sources: the D-Bus specification ("Type system", "Marshaling", "Message protocol", "Authentication"),
org.freedesktop.systemd1(5).
"""

from __future__ import annotations

import os
import struct

from pytest_ocirun.errors import OcirunError, ProtocolError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Self

    from pytest_ocirun.linux.fds import Socket

_CALL, _RETURN, _ERROR, _SIGNAL = 1, 2, 3, 4
_PATH, _INTERFACE, _MEMBER, _ERROR_NAME, _REPLY_SERIAL, _DESTINATION, _SIGNATURE = 1, 2, 3, 4, 5, 6, 8
_MOST = 1 << 20
_SECONDS = 30.0
_OBJECT, _SERVICE = "/org/freedesktop/systemd1", "org.freedesktop.systemd1"


class BusError(OcirunError):
    """The other side answered with an error.

    Args:
        name: the error's name on the bus.
        text: what it says.
    """

    def __init__(self, name: str, text: str) -> None:
        super().__init__(f"{text} ({name})")
        self.name = name


class Writer:
    """Values as a message carries them: little-endian, each aligned to its size."""

    def __init__(self) -> None:
        self.data = bytearray()

    def align(self, size: int) -> None:
        """Fill up to a multiple of ``size``."""
        self.data += bytes(-len(self.data) % size)

    def number(self, value: int, size: int = 4) -> None:
        """An unsigned number of ``size`` bytes."""
        self.align(size)
        self.data += value.to_bytes(size, "little")

    def text(self, value: str) -> None:
        """A string, or the path of an object."""
        encoded = value.encode()
        self.number(len(encoded))
        self.data += encoded + b"\0"

    def signature(self, value: str) -> None:
        """A signature."""
        self.data += bytes([len(value)]) + value.encode() + b"\0"

    def variant(self, signature: str, value: Any) -> None:
        """A value of type ``s``, ``o``, ``b``, ``u``, ``t``, ``g`` or ``au``, behind its signature."""
        self.signature(signature)
        if signature in ("s", "o"):
            self.text(value)
        elif signature == "g":
            self.signature(value)
        elif signature == "au":
            self.number(4 * len(value))
            for each in value:
                self.number(each)
        else:
            self.number(int(value), 8 if signature == "t" else 4)

    def pairs(self, pairs: list[tuple[str, str, Any]]) -> None:
        """``a(sv)``: names, each with the signature and the value of its variant."""
        self.number(0)
        place = len(self.data) - 4
        self.align(8)
        start = len(self.data)
        for name, signature, value in pairs:
            self.align(8)
            self.text(name)
            self.variant(signature, value)
        self.data[place : place + 4] = (len(self.data) - start).to_bytes(4, "little")


class Reader:
    """The same the other way.

    Args:
        data: from a place that is aligned to 8.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.at = 0

    def align(self, size: int) -> None:
        """Go to a multiple of ``size``."""
        self.at += -self.at % size

    def number(self) -> int:
        """A number of four bytes."""
        self.align(4)
        (value,) = struct.unpack_from("<I", self._data, self.at)
        self.at += 4
        return int(value)

    def text(self) -> str:
        """A string, or the path of an object."""
        return self._words(self.number())

    def signature(self) -> str:
        """A signature."""
        self.at += 1
        return self._words(self._data[self.at - 1])

    def _words(self, length: int) -> str:
        text = self._data[self.at : self.at + length].decode()
        self.at += length + 1
        return text

    def field(self) -> tuple[int, Any]:
        """A field of a message's header."""
        self.align(8)
        code = self._data[self.at]
        self.at += 1
        kind = self.signature()
        read = {"s": self.text, "o": self.text, "g": self.signature, "u": self.number}.get(kind)
        if read is None:
            raise ProtocolError(f"read a message from systemd: a header field of type {kind!r}")
        return code, read()


class Bus:
    """A connection to systemd. Use as a context manager.

    Args:
        path: of its private socket.

    Raises:
        OcirunError: it cannot be reached, or does not let us in.
    """

    def __init__(self, path: str) -> None:
        import _socket

        self._serial = 0
        self._rest = b""
        self._socket: Socket = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
        try:
            self._socket.settimeout(_SECONDS)
            self._socket.connect(path)
            uid = str(os.geteuid()).encode().hex()
            self._socket.sendall(f"\0AUTH EXTERNAL {uid}\r\n".encode())
            while b"\r\n" not in self._rest:
                self._receive()
            answer, _, self._rest = self._rest.partition(b"\r\n")
            if not answer.startswith(b"OK "):
                raise ProtocolError(f"talk to systemd by {path}: it answered {answer!r}")  # noqa: TRY301
            self._socket.sendall(b"BEGIN\r\n")
        except OSError as error:
            self._socket.close()
            raise OcirunError(f"talk to systemd by {path}: {error.strerror or error}") from error
        except BaseException:
            self._socket.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self._socket.close()

    def start_scope(self, unit: str, properties: list[tuple[str, str, Any]]) -> None:
        """Have a transient unit started, and wait until it is.

        Args:
            unit: its name.
            properties: names, each with signature and value, as systemd.scope(5) and its like have them.

        Raises:
            BusError: systemd refused.
            OcirunError: the job ended otherwise than well, or systemd is gone.
        """
        body = Writer()
        body.text(unit)
        body.text("fail")
        body.pairs(properties)
        body.number(0)  # a(sa(sv)) without elements, which are aligned to 8
        body.align(8)
        self._call("StartTransientUnit", "ssa(sv)a(sa(sv))", bytes(body.data))
        job, ended = "", dict[str, str]()
        while job not in ended:
            kind, fields, data = self._message()
            if kind == _ERROR and fields.get(_REPLY_SERIAL) == self._serial:
                raise BusError(fields.get(_ERROR_NAME, ""), Reader(data).text())
            if kind == _RETURN and fields.get(_REPLY_SERIAL) == self._serial:
                job = Reader(data).text()
            elif kind == _SIGNAL and fields.get(_MEMBER) == "JobRemoved":
                reader = Reader(data)
                reader.number()
                path, _unit, result = reader.text(), reader.text(), reader.text()
                ended[path] = result
        if ended[job] != "done":
            raise OcirunError(f"have systemd start {unit}: the job ended with {ended[job]!r}")

    def _call(self, member: str, signature: str, body: bytes) -> None:
        self._serial += 1
        head = Writer()
        head.data += bytes([ord("l"), _CALL, 0, 1])
        head.number(len(body))
        head.number(self._serial)
        head.number(0)
        start = len(head.data)
        for code, kind, value in (
            (_PATH, "o", _OBJECT),
            (_INTERFACE, "s", f"{_SERVICE}.Manager"),
            (_MEMBER, "s", member),
            (_DESTINATION, "s", _SERVICE),
            (_SIGNATURE, "g", signature),
        ):
            head.align(8)
            head.data.append(code)
            head.variant(kind, value)
        head.data[start - 4 : start] = (len(head.data) - start).to_bytes(4, "little")
        head.align(8)
        self._socket.sendall(bytes(head.data) + body)

    def _message(self) -> tuple[int, dict[int, Any], bytes]:
        head = self._take(16)
        if head[:1] != b"l" or head[3] != 1:
            raise ProtocolError(f"read a message from systemd: it begins with {head[:4]!r}")
        body, _serial, length = struct.unpack("<III", head[4:])
        if body > _MOST or length > _MOST:
            raise ProtocolError(f"read a message from systemd: it is of {body + length} bytes")
        # Sixteen bytes lie before the fields, so their alignment is that of what is read here.
        reader, fields = Reader(self._take(length + -length % 8)), {}
        while reader.at < length:
            code, value = reader.field()
            fields[code] = value
        return head[1], fields, self._take(body)

    def _take(self, count: int) -> bytes:
        while len(self._rest) < count:
            self._receive()
        taken, self._rest = self._rest[:count], self._rest[count:]
        return taken

    def _receive(self) -> None:
        try:
            data = self._socket.recv(65536)
        except OSError as error:
            raise OcirunError(f"wait for systemd: {error.strerror or error}") from error
        if not data:
            raise ProtocolError("wait for systemd: it has closed the connection")
        self._rest += data
