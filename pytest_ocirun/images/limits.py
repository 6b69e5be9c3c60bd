"""What an image may ask of the machine that unpacks it. Must not know how it is unpacked."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Caps on one tarball; going over one is an ImageError.

    Attributes:
        bytes: plain bytes of the whole archive.
        members: headers of any kind.
        path: bytes of one path or link target (the kernel's PATH_MAX, less its NUL).
        extended: bytes of one extended header: long names, attributes, the map of a sparse file.
    """

    bytes: int = 64 << 30
    members: int = 2_000_000
    path: int = 4095
    extended: int = 1 << 20
