"""Tar archives made byte by byte, right ones and wrong ones. Knows nothing of pytest_ocirun."""

from collections.abc import Mapping

BLOCK = 512
END = bytes(2 * BLOCK)
Raw = bytes | str


def _raw(text: Raw) -> bytes:
    return text if isinstance(text, bytes) else text.encode()


def octal(number: int, width: int) -> bytes:
    """A header's number, NUL at the end."""
    return b"%0*o\0" % (width - 1, number)


def base256(number: int, width: int) -> bytes:
    """A header's number in GNU's binary form."""
    value = number.to_bytes(width, "big", signed=True)
    return bytes([value[0] | 0x80]) + value[1:]


def header(
    name: Raw,
    kind: Raw = "0",
    *,
    size: int | bytes = 0,
    mode: int = 0o644,
    owner: int | bytes = 0,
    mtime: int | bytes = 0,
    link: Raw = "",
    device: tuple[int, int] = (0, 0),
    magic: bytes = b"ustar\x0000",
    tail: bytes = b"",
) -> bytes:
    """One header block with a right checksum. Bytes for a number are put in as they are."""
    block = b"".join(
        (
            _raw(name)[:100].ljust(100, b"\0"),
            octal(mode, 8),
            2 * (owner if isinstance(owner, bytes) else octal(owner, 8)),
            size if isinstance(size, bytes) else octal(size, 12),
            mtime if isinstance(mtime, bytes) else octal(mtime, 12),
            b" " * 8,
            _raw(kind),
            _raw(link)[:100].ljust(100, b"\0"),
            magic,
            b"root".ljust(32, b"\0") * 2,
            octal(device[0], 8),
            octal(device[1], 8),
            tail,
        )
    ).ljust(BLOCK, b"\0")
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


def padded(data: bytes) -> bytes:
    """Data filled up to whole blocks."""
    return data + bytes(-len(data) % BLOCK)


def file(name: Raw, data: bytes = b"", **fields: object) -> bytes:
    """A regular file."""
    return header(name, size=len(data), **fields) + padded(data)  # type: ignore[arg-type]  # passed on


def directory(name: Raw, mode: int = 0o755) -> bytes:
    """A directory."""
    return header(name, "5", mode=mode)


def symlink(name: Raw, target: Raw) -> bytes:
    """A symbolic link."""
    return header(name, "2", link=target, mode=0o777)


def hardlink(name: Raw, target: Raw) -> bytes:
    """A hard link."""
    return header(name, "1", link=target)


def record(key: Raw, value: Raw) -> bytes:
    """One record of an extended header."""
    text = b" " + _raw(key) + b"=" + _raw(value) + b"\n"
    length = len(text)
    while len(b"%d" % length) + len(text) != length:
        length = len(b"%d" % length) + len(text)
    return b"%d" % length + text


def extended(records: Mapping[str, Raw], kind: str = "x") -> bytes:
    """A pax header: for the next member, or with kind ``g`` for all that follow."""
    data = b"".join(record(key, value) for key, value in records.items())
    return header("pax", kind, size=len(data)) + padded(data)


def long_name(name: Raw, kind: str = "L") -> bytes:
    """GNU's header for the name of the next member, or with kind ``K`` for its link target."""
    data = _raw(name) + b"\0"
    return header("././@LongLink", kind, size=len(data), magic=b"ustar  \0") + padded(data)


ROOT = directory("./") + directory("./etc/") + file("./etc/os-release", b"ID=test\n")
"""What makes any archive a root file system."""
