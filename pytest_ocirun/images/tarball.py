"""The members of a tar archive: v7, ustar, GNU and pax headers, sparse files of every kind.

Responsible for turning headers into checked Members, and for reading the archive to its very end. Must not
touch a file system. One parser serves all: a size in an extended header counts everywhere, so that no two
readers can see different members (CVE-2025-62518). Sources: POSIX.1-2017, pax; GNU tar's manual, "Basic Tar
Format" and "Storing Sparse Files".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pytest_ocirun.errors import ImageError
from pytest_ocirun.images import pax, sparse
from pytest_ocirun.images.stream import Stream

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_ocirun.images.limits import Limits

BLOCK = 512
_ZEROS = bytes(BLOCK)
_SPACES = sum(b" " * 8)
_MAX_ID = 2**32 - 2
_XATTR = b"SCHILY.xattr."

Kind = Literal["file", "directory", "link", "symlink", "char", "block", "fifo"]
_KINDS: dict[bytes, Kind] = {
    b"0": "file", b"\0": "file", b"7": "file", b"S": "file", b"1": "link", b"2": "symlink",
    b"3": "char", b"4": "block", b"5": "directory", b"6": "fifo",
}  # fmt: skip
_NOT_GLOBAL = (b"path", b"linkpath", b"size", b"GNU.sparse.", b"SCHILY.")
_REFUSED = {
    b"M": "the rest of a file from another volume (tar --multi-volume)",
    b"D": "a directory of an incremental backup (tar --incremental)",
    b"N": "an old GNU name list",
    b"X": "an old Solaris extended header",
}


class Member:
    """One file of the archive. Paths are bytes: relative, without empty, ``.`` or ``..`` components."""

    __slots__ = ("device", "extents", "gid", "kind", "mode", "mtime", "path", "size", "target", "uid", "xattrs")

    kind: Kind
    path: bytes
    target: bytes
    mode: int
    uid: int
    gid: int
    mtime: int
    size: int
    device: tuple[int, int]
    xattrs: list[tuple[bytes, bytes]]
    extents: list[tuple[int, int]] | None

    def __str__(self) -> str:
        return shown(self.path or b".")


def shown(path: bytes) -> str:
    """A path of the archive as an error shows it: quoted, escaped and of bounded length."""
    text = path.decode("utf-8", "backslashreplace")
    return ascii(text if len(text) <= 200 else f"{text[:100]}...{text[-100:]}")


class _Extended:
    """What the headers before a member's own say about it."""

    __slots__ = ("long_link", "long_name", "records", "sparse_pairs")

    def __init__(self) -> None:
        self.long_name: bytes | None = None
        self.long_link: bytes | None = None
        self.records: dict[bytes, bytes] | None = None
        self.sparse_pairs: list[tuple[bytes, bytes]] = []

    def __bool__(self) -> bool:
        return self.long_name is not None or self.long_link is not None or self.records is not None


class Tarball:
    """An archive read once, from front to back.

    Iterate ``members``; between two, ``data`` gives the contents of the last one (what is not read is
    skipped).
    """

    def __init__(self, chunks: Iterator[bytes], limits: Limits) -> None:
        self._stream = Stream(chunks, limits.bytes)
        self._limits = limits
        self._global: dict[bytes, bytes] = {}
        self._unread = 0
        self._padding = 0
        self._headers = 0
        self._offset = 0

    def members(self) -> Iterator[Member]:
        """Every member in order. Reads on to the end of the stream, so that what comes after is checked too.

        Raises:
            ImageError: the archive is damaged, cut short, over a limit, or of a kind that no image is.
        """
        extended = _Extended()
        while True:
            self._finish_data()
            header = self._header()
            if header is None:
                break
            flag = header[156:157]
            if flag in b"xgLKV":
                self._extension(flag, header, extended)
                continue
            yield self._member(flag, header, extended)
            if extended:
                extended = _Extended()
        if extended:
            raise ImageError("it ends after an extended header: the archive is truncated")

    def data(self) -> Iterator[memoryview]:
        """The contents of the last member, in pieces; of a sparse file only its extents, end to end.

        Raises:
            ImageError: the archive ends first.
        """
        for piece in self._stream.pieces(self._unread):
            self._unread -= len(piece)
            yield piece

    def _finish_data(self) -> None:
        for _ in self.data():
            pass
        if self._padding and len(self._stream.up_to(self._padding)) < self._padding:
            raise ImageError("it ends in the middle of a file: the archive is truncated")
        self._padding = 0

    def _set_data(self, size: int) -> None:
        self._unread = size
        self._padding = -size % BLOCK

    def _header(self) -> bytes | None:
        """The next header block, its checksum verified; None at the end mark, when only zeros follow it."""
        block = self._stream.up_to(BLOCK)
        if block == _ZEROS:
            if not self._stream.only_zeros_left():
                raise ImageError("garbage follows the end mark of the archive")
            return None
        if len(block) < BLOCK:
            if not self._headers:
                raise ImageError("it is no tar archive")
            where = "in the middle of a header" if block else "without its end mark"
            raise ImageError(f"it ends {where}: the archive is truncated")
        if not _checksum_holds(block):
            if not self._headers:
                raise ImageError("it is no tar archive (nor one packed with gzip, xz, bzip2 or zstd)")
            raise ImageError(f"header {self._headers + 1} is damaged: its checksum is wrong")
        self._headers += 1
        if self._headers > self._limits.members:
            raise ImageError(f"it has more than {self._limits.members} members")
        return block

    def _extension(self, flag: bytes, header: bytes, extended: _Extended) -> None:
        """Take in a header that says something about the next member, or about all that follow."""
        size = pax.number(header[124:136], "size")
        if not 0 <= size <= self._limits.extended:
            raise ImageError(f"an extended header is {size} bytes long; {self._limits.extended} are allowed")
        self._set_data(size)
        if flag == b"V":
            return
        content = b"".join(self.data())
        if flag == b"g":
            self._set_global(content)
        elif flag == b"x":
            _once(extended.records, "pax header")
            found = pax.records(content)
            extended.records = dict(found)
            extended.sparse_pairs = sparse.pairs(found)
        elif flag == b"L":
            _once(extended.long_name, "long name")
            extended.long_name = content.partition(b"\0")[0]
        else:
            _once(extended.long_link, "long link target")
            extended.long_link = content.partition(b"\0")[0]

    def _set_global(self, content: bytes) -> None:
        for key, value in pax.records(content):
            if key.startswith(_NOT_GLOBAL):
                raise ImageError(f"its global header sets {shown(key)} for every member")
            self._global[key] = value
        if sum(len(key) + len(value) for key, value in self._global.items()) > self._limits.extended:
            raise ImageError("its global headers are too large")

    def _member(self, flag: bytes, header: bytes, extended: _Extended) -> Member:
        records = {**self._global, **(extended.records or {})}
        records = {key: value for key, value in records.items() if value or key.startswith(_XATTR)}
        name = _name(header, extended, records)
        try:
            member = self._decode(flag, header, extended, records, name)
        except ImageError as error:
            raise ImageError(f"member {shown(name)}: {error.message}", hint=error.hint) from None
        return member

    def _decode(
        self, flag: bytes, header: bytes, extended: _Extended, records: dict[bytes, bytes], name: bytes
    ) -> Member:
        member = Member()
        member.kind = _kind(flag, name)
        member.path = clean_path(name, self._limits.path)
        member.target = records.get(b"linkpath") or extended.long_link or header[157:257].partition(b"\0")[0]
        member.mode = pax.number(header[100:108], "mode") & 0o7777
        member.uid, member.gid = _owner(header, records)
        member.mtime = _mtime(header, records)
        member.device = (0, 0)
        member.extents = None
        member.xattrs = []
        if records:
            start = len(_XATTR)
            member.xattrs = [(key[start:], value) for key, value in records.items() if key.startswith(_XATTR)]
        size = _size(header, records)
        if member.kind == "file":
            self._set_data(size)
            member.size = size
            self._set_sparse(member, flag, header, extended, records)
            return member
        member.size = 0
        if size:
            raise ImageError(f"it has {size} bytes of contents, which a {member.kind} cannot have")
        if member.kind in {"link", "symlink"}:
            _check_target(member, self._limits.path)
        elif member.kind in {"char", "block"}:
            member.device = (pax.number(header[329:337], "device"), pax.number(header[337:345], "device"))
        return member

    def _set_sparse(
        self, member: Member, flag: bytes, header: bytes, extended: _Extended, records: dict[bytes, bytes]
    ) -> None:
        if flag == b"S":
            member.extents, member.size = sparse.old_gnu(header, self._stream, self._limits.extended)
        elif records.get(b"GNU.sparse.major") == b"1":
            pieces = sparse.in_data(self._stream, self._unread, self._limits.extended)
            member.extents, used = pieces
            self._unread -= used
            member.size = sparse.real_size(records)
        elif extended.sparse_pairs or b"GNU.sparse.map" in records:
            member.extents = sparse.in_records(records, extended.sparse_pairs)
            member.size = sparse.real_size(records)
        elif any(key.startswith(b"GNU.sparse.") for key in records):
            raise ImageError("its sparse file format is unknown")
        if member.extents is not None:
            sparse.check(member.extents, member.size, self._unread)


def clean_path(name: bytes, longest: int) -> bytes:
    """A member's path without empty and ``.`` components.

    Raises:
        ImageError: it is absolute, has a ``..`` or a NUL, or is too long.
    """
    if name.startswith(b"/"):
        raise ImageError("its name is absolute", hint="Make the archive with relative names: tar -C ROOTFS -c .")
    if len(name) > longest:
        raise ImageError(f"its name is longer than {longest} bytes")
    if b"\0" in name:
        raise ImageError("its name has a NUL byte in it")
    parts = [part for part in name.split(b"/") if part not in {b"", b"."}]
    if b".." in parts:
        raise ImageError("its name has a '..' in it", hint="Make the archive inside the root: tar -C ROOTFS -c .")
    return b"/".join(parts)


def _check_target(member: Member, longest: int) -> None:
    if not member.target or b"\0" in member.target or len(member.target) > longest:
        raise ImageError(f"its link target is empty, has a NUL byte, or is longer than {longest} bytes")
    if member.kind == "link":
        try:
            member.target = clean_path(member.target, longest)
        except ImageError as error:
            text = error.message.replace("its name", "its hard link's target")
            raise ImageError(f"{text}: {shown(member.target)}") from None


def _checksum_holds(block: bytes) -> bool:
    """Whether the sum of all bytes, the checksum's own as spaces, is as written (old tars summed signed)."""
    try:
        written = pax.number(block[148:156], "checksum")
    except ImageError:
        return False
    total = sum(block) - sum(block[148:156]) + _SPACES
    if total == written:
        return True
    return total - 256 * sum(byte > 127 for byte in block[:148] + block[156:]) == written


def _once(earlier: object, what: str) -> None:
    if earlier is not None:
        raise ImageError(f"it has two {what}s for one member")


def _name(header: bytes, extended: _Extended, records: dict[bytes, bytes]) -> bytes:
    name = records.get(b"GNU.sparse.name") or records.get(b"path") or extended.long_name
    if name:
        return name
    name = header[:100].partition(b"\0")[0]
    prefix = header[345:500].partition(b"\0")[0] if header[257:263] == b"ustar\0" else b""
    return prefix + b"/" + name if prefix else name


def _kind(flag: bytes, name: bytes) -> Kind:
    kind = _KINDS.get(flag)
    if kind is None:
        what = _REFUSED.get(flag, f"of the unknown type {flag.decode('latin-1')!a}")
        raise ImageError(f"it is {what}")
    if kind == "file" and flag in {b"0", b"\0"} and name.endswith(b"/"):
        return "directory"
    return kind


def _owner(header: bytes, records: dict[bytes, bytes]) -> tuple[int, int]:
    uid = pax.decimal(records[b"uid"], "uid") if b"uid" in records else pax.number(header[108:116], "uid")
    gid = pax.decimal(records[b"gid"], "gid") if b"gid" in records else pax.number(header[116:124], "gid")
    for value in (uid, gid):
        if not 0 <= value <= _MAX_ID:
            raise ImageError(f"its owner {value} is outside of 0..{_MAX_ID}")
    return uid, gid


def _mtime(header: bytes, records: dict[bytes, bytes]) -> int:
    if b"mtime" in records:
        value = pax.nanoseconds(records[b"mtime"], "mtime")
    else:
        value = pax.number(header[136:148], "mtime") * 10**9
    if not -(2**62) < value < 2**63:
        raise ImageError(f"its modification time {value // 10**9} is out of range")
    return value


def _size(header: bytes, records: dict[bytes, bytes]) -> int:
    size = pax.decimal(records[b"size"], "size") if b"size" in records else pax.number(header[124:136], "size")
    if not 0 <= size < 2**63:
        raise ImageError(f"its size {size} is out of range")
    return size
