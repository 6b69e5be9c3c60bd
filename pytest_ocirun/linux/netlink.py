"""Network devices and their addresses by rtnetlink. Sources: netlink(7), rtnetlink(7).

As much as it takes to hand a device with its addresses over to another network namespace, and no more.
"""

from __future__ import annotations

import _socket
import errno
import os
import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

AF_NETLINK = 16
NETLINK_ROUTE = 0
_SOL_NETLINK = 270
_NETLINK_EXT_ACK = 11
_NETLINK_GET_STRICT_CHK = 12

_NLMSG_ERROR = 2
_NLMSG_DONE = 3
_NLM_F_REQUEST = 0x1
_NLM_F_ACK = 0x4
_NLM_F_DUMP = 0x300
_NLM_F_CREATE_EXCL = 0x600
_NLM_F_CAPPED = 0x100
_NLMSGERR_ATTR_MSG = 1

_RTM_NEWLINK = 16
_RTM_GETLINK = 18
_RTM_SETLINK = 19
_RTM_NEWADDR = 20
_RTM_GETADDR = 22

_IFLA_IFNAME = 3
_IFLA_NET_NS_FD = 28
_IFA_ADDRESS = 1
_IFA_LOCAL = 2
_IFA_LABEL = 3
_IFA_BROADCAST = 4
_IFA_FLAGS = 8
_IFA_RT_PRIORITY = 9
_IFA_PROTO = 11
_IFF_UP = 1
_IFA_F_PERMANENT = 0x80
_IFA_F_SETTABLE = 0x2 | 0x10 | 0x100 | 0x200 | 0x400  # NODAD HOMEADDRESS MANAGETEMPADDR NOPREFIXROUTE MCAUTOJOIN
_RT_SCOPE_UNIVERSE = 0

_HEADER = struct.Struct("=IHHII")
_LINK = struct.Struct("=BxHiII")
_ADDRESS = struct.Struct("=BBBBI")
_ATTRIBUTE = struct.Struct("=HH")
_TYPE_MASK = 0x3FFF
_BUFFER = 1 << 17

Attributes = dict[int, bytes]


class Address:
    """One address of a device.

    Args:
        family: AF_INET or AF_INET6.
        prefix: length of its network's prefix.
        scope: RT_SCOPE_*.
        attributes: IFA_* as the kernel gave them.
    """

    __slots__ = ("attributes", "family", "flags", "prefix", "scope")

    def __init__(self, family: int, prefix: int, flags: int, scope: int, attributes: Attributes) -> None:
        self.family = family
        self.prefix = prefix
        self.scope = scope
        self.attributes = attributes
        wide = attributes.get(_IFA_FLAGS)
        self.flags: int = struct.unpack("=I", wide)[0] if wide else flags

    @property
    def lasting(self) -> bool:
        """Whether it was set for good, and is of use beyond its link."""
        return bool(self.flags & _IFA_F_PERMANENT) and self.scope == _RT_SCOPE_UNIVERSE


class Route:
    """A socket that talks to rtnetlink in the network namespace in which it was made."""

    def __init__(self) -> None:
        self._socket = _socket.socket(AF_NETLINK, _socket.SOCK_RAW | _socket.SOCK_CLOEXEC, NETLINK_ROUTE)
        self._sequence = 0
        for option in (_NETLINK_EXT_ACK, _NETLINK_GET_STRICT_CHK):
            try:
                self._socket.setsockopt(_SOL_NETLINK, option, 1)
            except OSError:
                pass  # an older kernel explains less, and filters less

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    def links(self) -> dict[int, str]:
        """The names of all devices by index."""
        found = {}
        for kind, body in self._ask(_RTM_GETLINK, _NLM_F_DUMP, _LINK.pack(0, 0, 0, 0, 0)):
            if kind == _RTM_NEWLINK:
                name = _attributes(body[_LINK.size :])[_IFLA_IFNAME]
                found[_LINK.unpack_from(body)[2]] = os.fsdecode(name.rstrip(b"\0"))
        return found

    def addresses(self, index: int) -> list[Address]:
        """The addresses of a device."""
        found = []
        for kind, body in self._ask(_RTM_GETADDR, _NLM_F_DUMP, _ADDRESS.pack(0, 0, 0, 0, 0)):
            family, prefix, flags, scope, owner = _ADDRESS.unpack_from(body)
            if kind == _RTM_NEWADDR and owner == index:
                found.append(Address(family, prefix, flags, scope, _attributes(body[_ADDRESS.size :])))
        return found

    def move(self, index: int, namespace: int, template: str) -> None:
        """Move a device to the network namespace of a fd; it arrives down and without addresses.

        Args:
            index: the device's, which may become another one.
            namespace: a fd of a network namespace.
            template: its name there, with ``%d`` for a number that the kernel puts. Another name would not do: the
                kernel moves first and renames then, and does not undo the one when the other fails.
        """
        name = os.fsencode(template) + b"\0"
        self._change(index, 0, {_IFLA_NET_NS_FD: struct.pack("=I", namespace), _IFLA_IFNAME: name})

    def rename(self, index: int, name: str) -> None:
        """Give a device that is down another name."""
        self._change(index, 0, {_IFLA_IFNAME: os.fsencode(name) + b"\0"})

    def up(self, index: int) -> None:
        """Bring a device up."""
        self._change(index, _IFF_UP, {})

    def add_address(self, index: int, name: str, address: Address) -> None:
        """Give a device an address; what belonged to its former place, as its label's beginning, is adapted.

        Args:
            index: the device's.
            name: its name, with which the label of an IPv4 address must begin.
            address: as another device had it.
        """
        kept = (_IFA_ADDRESS, _IFA_LOCAL, _IFA_BROADCAST, _IFA_RT_PRIORITY, _IFA_PROTO)
        given = {key: address.attributes[key] for key in kept if key in address.attributes}
        given[_IFA_FLAGS] = struct.pack("=I", address.flags & _IFA_F_SETTABLE)
        alias = address.attributes.get(_IFA_LABEL, b"").rstrip(b"\0").partition(b":")[2]
        if alias:
            given[_IFA_LABEL] = os.fsencode(name) + b":" + alias + b"\0"
        head = _ADDRESS.pack(address.family, address.prefix, 0, address.scope, index)
        self._ask(_RTM_NEWADDR, _NLM_F_ACK | _NLM_F_CREATE_EXCL, head + _pack(given))

    def _change(self, index: int, up: int, attributes: Attributes) -> None:
        self._ask(_RTM_SETLINK, _NLM_F_ACK, _LINK.pack(0, 0, index, up, up) + _pack(attributes))

    def _ask(self, kind: int, flags: int, body: bytes) -> list[tuple[int, bytes]]:
        """Send one request and collect the answer to its end.

        Raises:
            OSError: the kernel's errno, with its own words where it has some.
        """
        self._sequence += 1
        header = _HEADER.pack(_HEADER.size + len(body), kind, flags | _NLM_F_REQUEST, self._sequence, 0)
        self._socket.send(header + body)
        answers: list[tuple[int, bytes]] = []
        while True:
            data = self._socket.recv(_BUFFER)
            offset = 0
            while offset < len(data):
                size, answer, answer_flags, sequence, _port = _HEADER.unpack_from(data, offset)
                payload = data[offset + _HEADER.size : offset + size]
                offset += _aligned(size)
                if sequence != self._sequence:
                    continue
                if answer in (_NLMSG_ERROR, _NLMSG_DONE):
                    _raise_refusal(payload, answer_flags, capped=answer == _NLMSG_DONE)
                    return answers
                answers.append((answer, payload))


def _raise_refusal(payload: bytes, flags: int, *, capped: bool) -> None:
    number = -struct.unpack_from("=i", payload)[0] if len(payload) >= 4 else 0
    if not number:
        return
    start = 4
    if not capped:  # the request is repeated, or at least its header
        start += _HEADER.size if flags & _NLM_F_CAPPED else _aligned(_HEADER.unpack_from(payload, 4)[0])
    words = _attributes(payload[start:]).get(_NLMSGERR_ATTR_MSG, b"").rstrip(b"\0").decode("utf-8", "replace")
    text = os.strerror(number)
    raise OSError(number, f"{text} ({words})" if words else text)


def _attributes(data: bytes) -> Attributes:
    found: Attributes = {}
    offset = 0
    while offset + _ATTRIBUTE.size <= len(data):
        size, kind = _ATTRIBUTE.unpack_from(data, offset)
        if size < _ATTRIBUTE.size:
            raise OSError(errno.EBADMSG, "rtnetlink sent an attribute without a length")
        found[kind & _TYPE_MASK] = data[offset + _ATTRIBUTE.size : offset + size]
        offset += _aligned(size)
    return found


def _pack(attributes: Attributes) -> bytes:
    packed = b""
    for kind, value in attributes.items():
        size = _ATTRIBUTE.size + len(value)
        packed += _ATTRIBUTE.pack(size, kind) + value + bytes(_aligned(size) - size)
    return packed


def _aligned(size: int) -> int:
    return size + 3 & ~3
