"""An image that is ready to be mounted. Must not know how it got ready, nor how it is mounted."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType
    from typing import Self

    from pytest_ocirun.images.owners import Flavour

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True, slots=True, kw_only=True)
class HostPath:
    """A place of the host that the container sees: a bind mount, read-only, nosuid, nodev, never recursive.

    Attributes:
        source: where it lies on the host; no link.
        destination: where the container sees it; outside of /tmp, /run and the like the root has a mount
            point for it.
        idmap: whether its owners are to be mapped like those of a ``real`` root (else they show as nobody).
        kind: what is mounted.
    """

    source: Path
    destination: str
    idmap: bool
    kind: Literal["directory", "file"]


class Lease:
    """A shared flock on a directory of the store: as long as it is held, nobody removes the directory."""

    __slots__ = ("_fd",)

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def release(self) -> None:
        """Let go; a second time does nothing."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __del__(self) -> None:
        self.release()


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """A root file system and what belongs to it. A context manager that releases it.

    Attributes:
        reference: as the user named it.
        kind: where it comes from.
        digest: ``sha256:HEX`` of the tarball; None for what has no bytes of its own.
        rootfs: the root directory; to be used read-only, below an overlay.
        owners: whose ids its files have: ``real`` ids need an idmapped mount, ``shifted`` ones (by ``shift``)
            and the ``caller``'s do not.
        shift: the host's id of the image's uid 0, for ``shifted``.
        mounts: what of the host belongs to it, parents first (image ``host`` only).
        env: the environment that its processes expect, NAME=VALUE.
        workdir: where they start.
        python: the interpreter to use, where the image says so (image ``host`` only).
        skipped_devices: device nodes that could not be made.
        dropped_xattrs: extended attributes that could not be kept.
    """

    reference: str
    kind: Literal["tarball", "directory", "host"]
    digest: str | None
    rootfs: Path
    owners: Flavour
    shift: int | None = None
    mounts: tuple[HostPath, ...] = ()
    env: tuple[str, ...] = (f"PATH={DEFAULT_PATH}",)
    workdir: str = "/"
    python: str | None = None
    skipped_devices: int = 0
    dropped_xattrs: int = 0
    lease: Lease | None = field(default=None, repr=False, compare=False)

    def release(self) -> None:
        """Let the store remove it; no container may run from it any more. A second time does nothing."""
        if self.lease is not None:
            self.lease.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()
