"""What ``--ocirun-image`` takes, told apart: ``host``, a tarball, a directory, and what is refused.

Responsible for the kind of a reference and for errors that say what it is instead. Opens no image and unpacks
nothing.
"""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass
from typing import Literal

from pytest_ocirun.errors import ImageError, Unsupported
from pytest_ocirun.images import tree

Kind = Literal["host", "tarball", "directory"]

_TRANSPORTS = {
    "docker://": "a registry reference",
    "oci:": "an OCI layout",
    "oci-archive:": "an OCI archive",
    "docker-archive:": "a docker archive",
    "docker-daemon:": "an image of the local docker daemon",
    "containers-storage:": "an image of the local podman",
    "podman:": "an image of the local podman",
    "dir:": "a directory of blobs",
}
_REGISTRY = re.compile(
    r"([\w.-]+(:\d+)?/)?[a-z0-9]+(([._]|__|-+|/)[a-z0-9]+)*(:\w[\w.-]{0,127})?(@[a-z0-9+._-]+:[0-9a-f]{32,})?", re.ASCII
)
_ARCHIVE_SUFFIX = re.compile(r"\.(tar|tar\.\w+|tgz|txz|tbz2?|tzst)$", re.IGNORECASE)
_FORMS = "Give a root file system: a tarball (plain, gzip, xz, bzip2, zstd) or a directory; or say 'host'."


@dataclass(frozen=True, slots=True)
class Reference:
    """An image as the user named it: its kind, the text, and for files the absolute path."""

    kind: Kind
    text: str
    path: str | None = None


def parse(text: str) -> Reference:
    """Tell what ``text`` refers to. A file of that name wins over every other reading but ``host``.

    Raises:
        ImageError: there is no such file, or it can be no image.
        Unsupported: it is a form of image that this version cannot use.
    """
    if text == "host":
        return Reference("host", text)
    if not text or "\0" in text:
        raise ImageError(f"image {text!r}: this names nothing", hint=_FORMS)
    try:
        found = os.stat(text)
    except (FileNotFoundError, NotADirectoryError):
        raise _absent(text) from None
    except OSError as error:
        raise ImageError(f"image {text}: cannot be looked at: {error.strerror}") from error
    path = os.path.abspath(text)
    if stat.S_ISREG(found.st_mode):
        return Reference("tarball", text, path)
    if not stat.S_ISDIR(found.st_mode):
        raise ImageError(f"image {text}: it is neither a file nor a directory", hint=_FORMS)
    _check_directory(text, found)
    return Reference("directory", text, path)


def _absent(text: str) -> ImageError | Unsupported:
    for prefix, form in _TRANSPORTS.items():
        if text.startswith(prefix):
            return Unsupported(f"image {text}: {form} cannot be used yet", hint=_FORMS)
    looks_like_path = text.startswith(("/", "./", "../", "~")) or _ARCHIVE_SUFFIX.search(text)
    if not looks_like_path and _REGISTRY.fullmatch(text):
        return Unsupported(
            f"image {text}: there is no such file; if it means a registry, that cannot be used yet", hint=_FORMS
        )
    return ImageError(f"image {text}: no such file or directory", hint=_FORMS)


def _check_directory(text: str, found: os.stat_result) -> None:
    if os.path.samestat(found, os.stat("/")):
        raise ImageError(
            f"image {text}: the root of this host would show its secrets to the container",
            hint="Say 'host' for an allow-list of this host's file system, read-only.",
        )
    try:
        fd = os.open(text, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise ImageError(f"image {text}: the directory cannot be opened: {error.strerror}") from error
    try:
        check_rootfs(f"image {text}", fd)
    finally:
        os.close(fd)


def check_rootfs(what: str, fd: int) -> None:
    """See that an open directory is a root file system.

    Raises:
        ImageError: it is not.
        Unsupported: it is an image of another form.
    """
    form = tree.foreign_form(fd)
    if form is not None:
        raise Unsupported(f"{what}: it is {form}, which cannot be used yet", hint=_FORMS)
    if not tree.is_rootfs(fd):
        raise ImageError(f"{what}: it is no root file system: it has neither /usr/bin nor /bin nor /etc", hint=_FORMS)
