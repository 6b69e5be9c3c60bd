"""Reading exact amounts from chunks of bytes, without copying file contents.

Responsible for counting and for telling "ended" from "ended too early". Must not know what a tar archive is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_ocirun.errors import ImageError

if TYPE_CHECKING:
    from collections.abc import Iterator


class Stream:
    """Plain bytes in order.

    Args:
        chunks: never-empty pieces of any length.
        limit: how many bytes in all may come.
    """

    def __init__(self, chunks: Iterator[bytes], limit: int) -> None:
        self._chunks = chunks
        self._chunk = memoryview(b"")
        self._at = 0
        self._left = limit

    def _next(self) -> bool:
        chunk = next(self._chunks, None)
        if chunk is None:
            return False
        self._left -= len(chunk)
        if self._left < 0:
            raise ImageError("it unpacks to more bytes than an image may have")
        self._chunk = memoryview(chunk)
        self._at = 0
        return True

    def up_to(self, length: int) -> bytes:
        """The next ``length`` bytes, fewer only at the end of the stream."""
        end = self._at + length
        if end <= len(self._chunk):
            data = bytes(self._chunk[self._at : end])
            self._at = end
            return data
        parts = []
        while length:
            if self._at == len(self._chunk) and not self._next():
                break
            part = self._chunk[self._at : self._at + length]
            parts.append(part)
            self._at += len(part)
            length -= len(part)
        return b"".join(parts)

    def pieces(self, length: int) -> Iterator[memoryview]:
        """The next ``length`` bytes in pieces, each valid until the next is asked for.

        Raises:
            ImageError: the stream ends first.
        """
        while length:
            if self._at == len(self._chunk) and not self._next():
                raise ImageError("it ends in the middle of a file: the archive is truncated")
            piece = self._chunk[self._at : self._at + length]
            self._at += len(piece)
            length -= len(piece)
            yield piece

    def only_zeros_left(self) -> bool:
        """Read to the very end; whether nothing but zeros came."""
        clean = True
        while True:
            if bytes(self._chunk[self._at :]).strip(b"\0"):
                clean = False
            if not self._next():
                return clean
