"""The maps of sparse files: old GNU headers, and GNU's three pax formats (0.0, 0.1, 1.0).

Responsible for reading a map and for checking it. Must not write files. Source: GNU tar's manual, "Storing
Sparse Files". An extent is ``(offset in the file, length)``; a file's data in the archive is its extents, end
to end.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_ocirun.errors import ImageError
from pytest_ocirun.images import pax

if TYPE_CHECKING:
    from pytest_ocirun.images.stream import Stream

Extents = list[tuple[int, int]]

_BLOCK = 512
_PAIR = 24
_IN_HEADER = range(386, 386 + 4 * _PAIR, _PAIR)
_IN_EXTENSION = range(0, 21 * _PAIR, _PAIR)


def old_gnu(header: bytes, stream: Stream, limit: int) -> tuple[Extents, int]:
    """The extents and real size of an ``S`` member; its extension blocks are taken from ``stream``.

    Raises:
        ImageError: a number is none, or the map is cut short or too large.
    """
    extents = _pairs(header, _IN_HEADER)
    more = header[482]
    taken = 0
    while more:
        block = stream.up_to(_BLOCK)
        taken += _BLOCK
        if len(block) < _BLOCK or taken > limit:
            raise ImageError("the map of a sparse file is truncated or too large")
        extents += _pairs(block, _IN_EXTENSION)
        more = block[504]
    return extents, pax.number(header[483:495], "real size")


def _pairs(block: bytes, starts: range) -> Extents:
    found = []
    for start in starts:
        if block[start] == 0:
            break
        middle = start + _PAIR // 2
        offset = pax.number(block[start:middle], "sparse offset")
        found.append((offset, pax.number(block[middle : start + _PAIR], "sparse length")))
    return found


def pairs(records: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """The repeated offset and length records of format 0.0, which a dictionary would lose."""
    wanted = (b"GNU.sparse.offset", b"GNU.sparse.numbytes")
    return [record for record in records if record[0] in wanted]


def in_records(records: dict[bytes, bytes], repeated: list[tuple[bytes, bytes]]) -> Extents:
    """The extents that formats 0.0 and 0.1 keep in the extended header.

    Raises:
        ImageError: offsets and lengths do not come in pairs, or are no numbers.
    """
    numbers = records[b"GNU.sparse.map"].split(b",") if b"GNU.sparse.map" in records else []
    if not numbers:
        for index, (key, value) in enumerate(repeated):
            if key != (b"GNU.sparse.numbytes" if index % 2 else b"GNU.sparse.offset"):
                raise ImageError("the map of a sparse file is out of order")
            numbers.append(value)
    if len(numbers) % 2:
        raise ImageError("the map of a sparse file has an offset without a length")
    values = [pax.decimal(text, "sparse map") for text in numbers]
    return list(zip(values[::2], values[1::2], strict=True))


def in_data(stream: Stream, size: int, limit: int) -> tuple[Extents, int]:
    """The extents that format 1.0 keeps before the data, and how many bytes of the member they took.

    Raises:
        ImageError: the map is cut short, too large, or no list of numbers.
    """
    text = b""
    numbers: list[int] = []
    wanted = 1
    taken = 0
    while len(numbers) < wanted:
        if taken + _BLOCK > min(size, limit):
            raise ImageError("the map of a sparse file is truncated or too large")
        text += stream.up_to(_BLOCK)
        taken += _BLOCK
        *lines, text = text.split(b"\n")
        for line in lines:
            numbers.append(pax.decimal(line, "sparse map"))
            wanted = 1 + 2 * numbers[0]
            if len(numbers) >= wanted:
                break
    return list(zip(numbers[1::2], numbers[2::2], strict=True)), taken


def real_size(records: dict[bytes, bytes]) -> int:
    """The size of the file with its holes (``realsize`` since format 0.1, ``size`` before).

    Raises:
        ImageError: it is missing or no number.
    """
    value = records.get(b"GNU.sparse.realsize") or records.get(b"GNU.sparse.size")
    if value is None:
        raise ImageError("a sparse file has no size")
    return pax.decimal(value, "sparse size")


def check(extents: Extents, real: int, stored: int) -> None:
    """See that the extents are in order, do not overlap, lie in the file, and are what the archive stores.

    Raises:
        ImageError: they are not.
    """
    end = 0
    for offset, length in extents:
        if offset < end or length < 0:
            raise ImageError("the map of a sparse file is out of order")
        end = offset + length
    if end > real or real >= 2**63 or sum(length for _, length in extents) != stored:
        raise ImageError("the map of a sparse file does not fit its size")
