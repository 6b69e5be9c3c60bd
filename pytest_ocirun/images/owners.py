"""Who owns the files of an unpacked image, so that the container's uid 0 owns what the image gives to uid 0.

Three flavours; each is another tree in the store:

======== ====================================================== ===========================================
flavour  ids on disk                                            when
======== ====================================================== ===========================================
real     the image's own; the runtime makes an idmapped mount   root, where the store can be idmapped
shifted  the image's plus one fixed base                        root, anywhere else
caller   all the caller's; modes let the caller read; device    without root, or where root's own user
         nodes and capabilities cannot be kept                  namespace lacks the id range
======== ====================================================== ===========================================

Must not know how trees are made or mounted.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from typing import Literal

from pytest_ocirun.errors import ImageError

RANGE = 65536
Flavour = Literal["real", "shifted", "caller"]

_VERSION_MASK = 0xFF000000
_VERSION_2 = 0x02000000
_VERSION_3 = 0x03000000


@dataclass(frozen=True, slots=True)
class Owners:
    """One flavour; ``shift`` is the base of flavour ``shifted`` and 0 otherwise."""

    flavour: Flavour
    shift: int = 0

    @property
    def key(self) -> str:
        """The flavour as a part of a file name in the store."""
        return f"shifted-{self.shift}" if self.flavour == "shifted" else self.flavour

    @property
    def changes(self) -> bool:
        """Whether files can be given to others than the caller."""
        return self.flavour != "caller"

    def on_disk(self, number: int) -> int:
        """The host's id for the image's id ``number``.

        Raises:
            ImageError: it lies outside of the range that a container has.
        """
        if self.flavour == "shifted" and number >= RANGE:
            raise ImageError(f"its owner {number} is outside of 0..{RANGE - 1}, the ids that a container has")
        return number + self.shift

    def capability(self, value: bytes) -> bytes | None:
        """The ``security.capability`` that means the same on disk; None when it cannot be kept.

        Shifted files need version 3, which names the uid whose namespace the capabilities are good for; see
        capabilities(7), "File capability extended attribute versioning".

        Raises:
            ImageError: the value is of no known version.
        """
        if self.flavour == "caller":
            return None
        if len(value) not in {20, 24}:
            raise ImageError("its security.capability is malformed")
        magic = int.from_bytes(value[:4], "little")
        if magic & _VERSION_MASK not in {_VERSION_2, _VERSION_3} or self.flavour == "real":
            return value
        return struct.pack("<I", magic & ~_VERSION_MASK | _VERSION_3) + value[4:20] + struct.pack("<I", self.shift)


def may_own(base: int) -> bool:
    """Whether the caller is root, and its user namespace has the ids 0..65535 and ``base`` with as many."""
    if os.geteuid() != 0:
        return False
    return all(_covered(kind, start) for kind in ("uid_map", "gid_map") for start in (0, base))


def _covered(kind: str, start: int) -> bool:
    with open(f"/proc/self/{kind}", encoding="ascii") as file:
        maps = [tuple(map(int, line.split())) for line in file]
    return any(first <= start and start + RANGE <= first + count for first, _, count in maps)
