"""Turning a tarball's file into its plain bytes, read ahead by a thread.

Responsible for the kind of compression (by magic, never by name), for checksums, concatenated members, what
may follow the last one, and the digest of the raw file. Must not know what the bytes mean.
"""

from __future__ import annotations

import bz2
import hashlib
import lzma
import os
import queue
import sys
import threading
import zlib
from typing import TYPE_CHECKING, Protocol

from pytest_ocirun.errors import ImageError

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType
    from typing import Self

CHUNK = 1 << 20
MAGIC_LENGTH = 10
_READ_AHEAD = 8
_XZ_MEMORY = 512 << 20
_RATIO = 200
_RATIO_FROM = 256 << 20
_TINY_MEMBERS = 1000
_TINY = 1024


class _Decoder(Protocol):
    """One compressed member: what gzip, xz, bzip2 and zstd have in common here."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int) -> bytes: ...


class _Gzip:
    """zlib's decoder under the names that the others use. It checks the CRC and the length (RFC 1952)."""

    def __init__(self) -> None:
        self._decoder = zlib.decompressobj(wbits=31)

    @property
    def eof(self) -> bool:
        return self._decoder.eof

    @property
    def needs_input(self) -> bool:
        return not self._decoder.unconsumed_tail

    @property
    def unused_data(self) -> bytes:
        return self._decoder.unused_data

    def decompress(self, data: bytes, max_length: int) -> bytes:
        return self._decoder.decompress(data or self._decoder.unconsumed_tail, max_length)


def kind_of(head: bytes) -> str | None:
    """The compression that the first bytes of a file tell: gzip, xz, bzip2, zstd; None for none of these."""
    if head[:3] == b"\x1f\x8b\x08":
        return "gzip"
    if head[:6] == b"\xfd7zXZ\0":
        return "xz"
    if head[:3] == b"BZh" and head[4:10] in {b"1AY&SY", b"\x17rE8P\x90"}:
        return "bzip2"
    skippable = head[1:4] == b"\x2a\x4d\x18" and 0x50 <= head[0] <= 0x5F
    return "zstd" if head[:4] == b"\x28\xb5\x2f\xfd" or skippable else None


def _decoder(kind: str) -> _Decoder:
    if kind == "gzip":
        return _Gzip()
    if kind == "xz":
        return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY)
    if kind == "bzip2":
        return bz2.BZ2Decompressor()
    return zstd.ZstdDecompressor()


class _Raw:
    """The file's own bytes in order, hashed once as they are read, with a way to put some back."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._back = b""
        self._hash = hashlib.sha256()
        self.taken = 0

    @property
    def digest(self) -> str:
        return f"sha256:{self._hash.hexdigest()}"

    def read(self) -> bytes:
        """The next bytes; none at the end of the file."""
        if self._back:
            data, self._back = self._back, b""
            return data
        try:
            data = os.pread(self._fd, CHUNK, self.taken)
        except OSError as error:
            raise ImageError(f"it cannot be read: {error.strerror}") from error
        self._hash.update(data)
        self.taken += len(data)
        return data

    def peek(self, length: int) -> bytes:
        """The next bytes, ``length`` or more where the file has them, without taking them."""
        data = self.read()
        while len(data) < length and (more := self.read()):
            data += more
        self._back = data
        return data

    def skip_zeros(self) -> None:
        """Go on to the next byte that is not zero, or to the end."""
        while data := self.read():
            if data := data.lstrip(b"\0"):
                self._back = data
                return

    def put_back(self, data: bytes) -> None:
        self._back = data + self._back


def _plain(raw: _Raw) -> Iterator[bytes]:
    """The plain chunks of a file of any kind.

    Raises:
        ImageError: the compressed data is damaged or cut short, or something other than zeros follows it.
    """
    kind = kind_of(raw.peek(MAGIC_LENGTH))
    if kind is None:
        while data := raw.read():
            yield data
        return
    try:
        yield from _all_members(kind, raw)
    except (zlib.error, lzma.LZMAError, zstd.ZstdError, OSError, EOFError) as error:
        raise ImageError(f"its {kind} data is damaged: {error}") from error


def _all_members(kind: str, raw: _Raw) -> Iterator[bytes]:
    given = members = 0
    while True:
        members += 1
        if members > _TINY_MEMBERS + raw.taken // _TINY:
            raise ImageError(f"its {kind} data comes in absurdly many tiny pieces")
        for chunk in _one_member(kind, raw):
            given += len(chunk)
            if given > _RATIO_FROM and given > raw.taken * _RATIO:
                raise ImageError(f"it unpacks to more than {_RATIO} times its size: a decompression bomb")
            yield chunk
        raw.skip_zeros()
        following = raw.peek(MAGIC_LENGTH)
        if not following:
            return
        if kind_of(following) != kind:
            raise ImageError(f"garbage follows the end of its {kind} data")


def _one_member(kind: str, raw: _Raw) -> Iterator[bytes]:
    decoder = _decoder(kind)
    while not decoder.eof:
        hungry = decoder.needs_input
        data = raw.read() if hungry else b""
        chunk = decoder.decompress(data, CHUNK)
        if chunk:
            yield chunk
        elif hungry and not data:
            raise ImageError(f"its {kind} data ends too early: the file is truncated")
    raw.put_back(decoder.unused_data)


class Unpacker:
    """The plain bytes of an open file, made by a thread of its own while the caller works on those before.

    A context manager: leaving it ends the thread, wherever it is.

    Args:
        fd: the file; read by position, so its offset neither matters nor moves. Stays the caller's.
    """

    def __init__(self, fd: int) -> None:
        self._raw = _Raw(fd)
        self._queue: queue.Queue[bytes | BaseException | None] = queue.Queue(_READ_AHEAD)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="ocirun-unpacker", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        while self._thread.is_alive():
            try:
                self._queue.get(timeout=0.01)
            except queue.Empty:
                pass
        self._thread.join()

    def chunks(self) -> Iterator[bytes]:
        """The plain bytes in order, to the end of the file, each chunk at most CHUNK long and never empty.

        Raises:
            ImageError: the compressed data is damaged, cut short, a bomb, or followed by garbage.
            OSError: the file cannot be read.
        """
        while (item := self._queue.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item

    @property
    def digest(self) -> str:
        """``sha256:HEX`` of the raw file; right once ``chunks`` has come to its end."""
        return self._raw.digest

    def _run(self) -> None:
        try:
            for chunk in _plain(self._raw):
                self._queue.put(chunk)
                if self._stop.is_set():
                    return
            self._queue.put(None)
        except BaseException as error:  # noqa: BLE001 - raised again in the thread that reads
            self._queue.put(error)
