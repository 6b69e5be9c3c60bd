"""What a caller of the engine asks for: one container, as values. Knows no OCI and no kernel."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from pytest_ocirun.images.image import Image


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a container may use; None is no limit.

    Attributes:
        memory: bytes, files in its writable places included.
        pids: processes and threads at one time.
        cpus: processors' worth of time, 1.5 is one and a half.
        disk: bytes that it may write to its root, its overlays and /tmp together. They are memory: keep it below
            ``memory``.
    """

    memory: int | None
    pids: int | None
    cpus: float | None
    disk: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Bind:
    """A file or directory of the host that the container sees.

    Attributes:
        source: on the host.
        destination: absolute, in the container.
        readonly: whether the container may only read it.
        idmap: show the caller's files as container root's (root only; else they show as nobody's).
    """

    source: Path
    destination: str
    readonly: bool = True
    idmap: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One container.

    Attributes:
        image: its root file system, from ``Engine.image``.
        args: its program; empty for a holder that only waits for execs.
        env: its whole environment.
        cwd: where it starts.
        user: (uid, gid) in the container.
        hostname: its host name.
        limits: what it may use.
        overlays: directories of the host that appear at their own path, under a private, bounded overlay.
        binds: other places of the host.
        writable_root: whether it may write to its root file system; /tmp, /var/tmp, /run and /root are writable always.
        fds: number in the container to a fd of ours; 0 to 2 are /dev/null if not named.
    """

    image: Image
    limits: Limits
    args: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: str = "/"
    user: tuple[int, int] = (0, 0)
    hostname: str = "ocirun"
    overlays: tuple[Path, ...] = ()
    binds: tuple[Bind, ...] = ()
    writable_root: bool = True
    fds: Mapping[int, int] = field(default_factory=dict)
