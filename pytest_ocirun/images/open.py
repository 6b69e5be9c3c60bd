"""The one door: a reference in, an Image out. Must not know what is done with it."""

from __future__ import annotations

import hashlib
import os
import stat
import time
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_ocirun.errors import ImageError, Unsupported
from pytest_ocirun.images import reference
from pytest_ocirun.images.compression import CHUNK, Unpacker
from pytest_ocirun.images.extract import Extractor
from pytest_ocirun.images.host import host_image
from pytest_ocirun.images.image import Image
from pytest_ocirun.images.limits import Limits
from pytest_ocirun.images.owners import Owners, may_own
from pytest_ocirun.images.tarball import Tarball

if TYPE_CHECKING:
    from pytest_ocirun.images.reference import Reference
    from pytest_ocirun.images.store import Meta, Store

_MADE_AGAIN = "Make the file again, or fetch it again."


def open_image(store: Store, text: str, *, shift_base: int, limits: Limits | None = None) -> Image:
    """Make an image ready for containers, unpacking it if no process has done so before.

    Args:
        store: where unpacked images live.
        text: what the user named: ``host``, a tarball, a directory.
        shift_base: the host's id of the containers' uid 0 (of no meaning without root).
        limits: what a tarball may ask of this machine.

    Returns:
        The image, leased: release it when the last container made from it has ended.

    Raises:
        ImageError: there is no such image, or it is damaged, hostile, or no root file system.
        Unsupported: it is of a form, or on a file system, that cannot be used.
    """
    found = reference.parse(text)
    if found.kind == "host":
        return host_image(store, shift_base=shift_base)
    if found.kind == "directory":
        return _directory(store, found, shift_base)
    return _tarball(store, found, shift_base, limits or Limits())


def _directory(store: Store, found: Reference, shift_base: int) -> Image:
    rootfs = Path(os.path.realpath(str(found.path)))
    owners = Owners("caller")
    if may_own(shift_base):
        obstacle = store.idmap_obstacle(rootfs)
        if obstacle is not None:
            raise Unsupported(
                f"image {found.text}: its owners cannot be mapped where it lies: {obstacle}",
                hint=f"Give it as a tarball: tar -C {found.text} -c . > image.tar",
            )
        owners = Owners("real")
    return Image(reference=found.text, kind="directory", digest=None, rootfs=rootfs, owners=owners.flavour)


def _tarball(store: Store, found: Reference, shift_base: int, limits: Limits) -> Image:
    path = str(found.path)
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise ImageError(f"image {found.text}: cannot be opened: {error.strerror}") from error
    try:
        since = time.time_ns()
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise ImageError(f"image {found.text}: it is no longer a file")
        digest = store.known_digest(status) or _digest(fd, found.text)
        owners = store.owners(shift_base)
        key = f"{digest.replace(':', '-')}-{owners.key}"
        entry = store.entry(key, lambda root: _unpack(fd, root, found.text, digest, owners, limits))
        store.remember_digest(status, digest, since=since)
    finally:
        os.close(fd)
    return Image(
        reference=found.text,
        kind="tarball",
        digest=digest,
        rootfs=entry.rootfs,
        owners=owners.flavour,
        shift=owners.shift if owners.flavour == "shifted" else None,
        skipped_devices=entry.meta["skipped_devices"],
        dropped_xattrs=entry.meta["dropped_xattrs"],
        lease=entry.lease,
    )


def _digest(fd: int, text: str) -> str:
    total = hashlib.sha256()
    offset = 0
    try:
        while data := os.pread(fd, CHUNK, offset):
            total.update(data)
            offset += len(data)
    except OSError as error:
        raise ImageError(f"image {text}: cannot be read: {error.strerror}") from error
    return f"sha256:{total.hexdigest()}"


def _unpack(fd: int, root: int, text: str, digest: str, owners: Owners, limits: Limits) -> Meta:
    """Fill ``root`` from the tarball, and see that it was the file whose digest names the entry."""
    try:
        with Unpacker(fd) as unpacker:
            counts = Extractor(root, owners).run(Tarball(unpacker.chunks(), limits))
    except ImageError as error:
        raise ImageError(f"image {text}: {error.message}", hint=error.hint or _MADE_AGAIN) from error
    if unpacker.digest != digest:
        raise ImageError(f"image {text}: it changed while it was read", hint="Try again when it is complete.")
    reference.check_rootfs(f"image {text}", root)
    return {
        "reference": text,
        "digest": digest,
        "members": counts.members,
        "skipped_devices": counts.skipped_devices,
        "dropped_xattrs": counts.dropped_xattrs,
    }
