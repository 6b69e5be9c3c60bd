"""The small grammars inside tar headers: numbers, and the records of extended headers.

Sources: POSIX.1-2017, pax, "pax Extended Header" and "ustar Interchange Format"; GNU tar's manual, "Basic Tar
Format". Must not know what the fields are used for.
"""

from __future__ import annotations

import re

from pytest_ocirun.errors import ImageError

_DECIMAL = re.compile(rb"(-?)(\d{1,30})(?:\.(\d{0,30}))?")
_OCTAL = re.compile(rb"[0-7]+")
_LENGTH_DIGITS = 8


def number(field: bytes, what: str) -> int:
    """A header's number: octal digits, or GNU's base-256 when the first bit is set. An empty field is 0.

    Raises:
        ImageError: the field is neither.
    """
    if field[0] & 0x80:
        value = int.from_bytes(field, "big")
        bits = 8 * len(field)
        return value - (1 << bits) if field[0] & 0x40 else value - (1 << (bits - 1))
    digits = field.partition(b"\0")[0].strip(b" ")
    if not digits:
        return 0
    if _OCTAL.fullmatch(digits) is None:
        raise ImageError(f"its {what} is no number: {field!r}")
    return int(digits, 8)


def decimal(value: bytes, what: str) -> int:
    """An extended record's whole number.

    Raises:
        ImageError: it is none.
    """
    match = _DECIMAL.fullmatch(value)
    if match is None or match[3] is not None:
        raise ImageError(f"its {what} is no whole number: {value[:40]!r}")
    return int(match[1] + match[2])


def nanoseconds(value: bytes, what: str) -> int:
    """An extended record's time, ``[-]SECONDS[.FRACTION]``, in nanoseconds, rounded towards the past.

    Raises:
        ImageError: it is no time.
    """
    match = _DECIMAL.fullmatch(value)
    if match is None:
        raise ImageError(f"its {what} is no time: {value[:40]!r}")
    fraction = match[3] or b""
    whole = int(match[2]) * 10**9 + int(fraction[:9].ljust(9, b"0"))
    if not match[1]:
        return whole
    return -whole - (1 if fraction[9:].strip(b"0") else 0)


def records(data: bytes) -> list[tuple[bytes, bytes]]:
    r"""The ``LENGTH KEY=VALUE\n`` records of an extended header, in order.

    Raises:
        ImageError: a length is wrong or a record is not of that form.
    """
    found = []
    position = 0
    while position < len(data):
        space = data.find(b" ", position, position + _LENGTH_DIGITS + 1)
        digits = data[position:space] if space > position else b""
        if not digits.isdigit():
            if not data[position:].strip(b"\0"):
                break
            raise ImageError(f"a record of its extended header has no length: {data[position:][:20]!r}")
        end = position + int(digits)
        key, equals, value = data[space + 1 : end - 1].partition(b"=")
        if end <= space + 1 or end > len(data) or data[end - 1 : end] != b"\n" or not equals or not key:
            raise ImageError(f"a record of its extended header is malformed: {data[position:][:40]!r}")
        found.append((key, value))
        position = end
    return found
