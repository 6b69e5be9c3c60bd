"""The image ``host``: an allow-list of this host, read-only, around a skeleton of its own.

Responsible for what of the host a container sees. Nothing is seen by default: no home, no secret, no socket,
no state.

- A skeleton in the store: the usual empty directories, the host's own top-level links (/bin -> usr/bin), own
  files for users, names and look-ups, and copies of chosen files of /etc. Copies and not mounts: they cost a
  container nothing, have the right owners, and cannot change under it. Only what everybody may read is
  copied.
- Bind mounts, not idmapped: /usr, /opt, a store of Nix or Guix, and top-level directories that are no links
  into /usr.
- Bind mounts, idmapped where that can be done, since they may lie below directories that only their owner may
  enter: the running interpreter's prefixes and packages. Above them are empty directories of the skeleton.

File systems mounted below one of these are mounted one by one. Must not know the runtime.
"""

from __future__ import annotations

import glob
import os
import stat
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_ocirun.images import interpreter, mounts
from pytest_ocirun.images.image import DEFAULT_PATH, HostPath, Image
from pytest_ocirun.images.skeleton import Skeleton

if TYPE_CHECKING:
    from pytest_ocirun.images.interpreter import Trace
    from pytest_ocirun.images.owners import Owners
    from pytest_ocirun.images.store import Store

_SHARED = ("/usr", "/opt", "/nix/store", "/gnu/store")
_TOP = ("/bin", "/sbin", "/lib*")
_DIRECTORIES = {
    "/dev": 0o755, "/etc": 0o755, "/home": 0o755, "/media": 0o755, "/mnt": 0o755, "/proc": 0o755,
    "/root": 0o700, "/run": 0o755, "/srv": 0o755, "/sys": 0o755, "/tmp": 0o1777, "/var": 0o755,
    "/var/cache": 0o755, "/var/lib": 0o755, "/var/log": 0o755, "/var/tmp": 0o1777,
}  # fmt: skip
_LINKS = {"/var/run": "/run", "/var/lock": "/run/lock", "/etc/mtab": "/proc/self/mounts"}
_FILES = {
    "/etc/passwd": (b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n"),
    "/etc/group": b"root:x:0:\ntty:x:5:\nnogroup:x:65534:\n",
    "/etc/hostname": b"ocirun\n",
    "/etc/hosts": b"127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n",
    "/etc/nsswitch.conf": b"passwd: files\ngroup: files\nhosts: files dns\n",
    "/etc/resolv.conf": b"",
}
_ETC = (
    "alternatives", "bash.bashrc", "ca-certificates", "ca-certificates.conf", "crypto-policies",
    "debian_version", "fonts", "gai.conf", "host.conf", "inputrc", "ld.so.cache",
    "ld.so.conf", "ld.so.conf.d", "localtime",
    "locale.alias", "locale.conf", "lsb-release", "magic", "mime.types", "os-release",
    "pki/ca-trust/extracted", "pki/tls/certs", "profile", "protocols", "python*",
    "redhat-release", "rpc", "services", "shells",
    "ssl/cert.pem", "ssl/certs", "ssl/openssl.cnf", "terminfo", "timezone",
)  # fmt: skip
_LARGEST_COPY = 4 << 20


def host_image(store: Store, *, shift_base: int) -> Image:
    """The image ``host`` as this host and this interpreter are now.

    Args:
        store: where the skeleton lives; the same skeleton is made once.
        shift_base: the host's id of the containers' uid 0.

    Raises:
        ImageError: the store cannot be written to.
        Unsupported: the running interpreter cannot be found.
    """
    owners = store.owners(shift_base)
    skeleton = _basis()
    shared = _share_top(skeleton)
    shown = [HostPath(source=Path(path), destination=path, idmap=False, kind="directory") for path in shared]
    shown += _python(skeleton, shared, store, owners)
    shown += _mounted_below(shown)
    for place in shown:
        _add_mount_point(skeleton, place, shown)

    def build(root: int) -> dict[str, object]:
        skeleton.write(root, owners)
        return {"reference": "host"}

    entry = store.entry(f"host-{skeleton.digest()}-{owners.key}", build)
    return Image(
        reference="host",
        kind="host",
        digest=None,
        rootfs=entry.rootfs,
        owners=owners.flavour,
        shift=owners.shift if owners.flavour == "shifted" else None,
        mounts=tuple(shown),
        env=_environment(),
        python=sys.executable,
        lease=entry.lease,
    )


def _environment() -> tuple[str, ...]:
    directory = os.path.dirname(sys.executable)
    path = DEFAULT_PATH if directory in DEFAULT_PATH.split(":") else f"{directory}:{DEFAULT_PATH}"
    if interpreter.user_site() is None:
        return (f"PATH={path}",)
    import site

    return (f"PATH={path}", f"PYTHONUSERBASE={site.getuserbase()}")


def _basis() -> Skeleton:
    skeleton = Skeleton()
    for path, mode in _DIRECTORIES.items():
        skeleton.add_directory(path, mode)
    for pattern in _ETC:
        for path in sorted(glob.glob(f"/etc/{pattern}")):
            _copy(skeleton, path)
    for path, target in _LINKS.items():
        skeleton.add_link(path, target)
    for path, content in _FILES.items():
        skeleton.links.pop(path, None)
        skeleton.add_file(path, content)
    return skeleton


def _copy(skeleton: Skeleton, path: str) -> None:
    """Copy a file, a link as a link, or a directory's content.

    What not everybody may read, what is large and what goes away meanwhile is left out.
    """
    try:
        found = os.lstat(path)
        if stat.S_ISLNK(found.st_mode):
            skeleton.add_link(path, os.readlink(path))
        elif stat.S_ISDIR(found.st_mode) and found.st_mode & 0o005 == 0o005:
            skeleton.add_directory(path)
            for name in sorted(os.listdir(path)):
                _copy(skeleton, os.path.join(path, name))
        elif stat.S_ISREG(found.st_mode) and found.st_mode & 0o004 and found.st_size <= _LARGEST_COPY:
            with open(path, "rb") as file:
                skeleton.add_file(path, file.read(_LARGEST_COPY), stat.S_IMODE(found.st_mode) & 0o755)
    except OSError:
        return


def _share_top(skeleton: Skeleton) -> list[str]:
    """The directories that are shown as they are; top-level links become links of the skeleton."""
    shared = [path for path in _SHARED if os.path.isdir(path) and not os.path.islink(path)]
    for pattern in _TOP:
        for path in sorted(glob.glob(pattern)):
            if os.path.islink(path):
                skeleton.add_link(path, os.readlink(path))
            elif os.path.isdir(path) and path != "/lost+found":
                shared.append(path)
    return shared


def _python(skeleton: Skeleton, shared: list[str], store: Store, owners: Owners) -> list[HostPath]:
    trace = interpreter.trace()
    places = _outermost(trace, shared)
    covered = [*shared, *places]
    for link, target in trace.links.items():
        if not _inside(link, covered) and link not in skeleton.links:
            skeleton.add_link(link, target)
    return [
        HostPath(
            source=Path(place),
            destination=place,
            idmap=owners.flavour == "real" and store.idmap_obstacle(Path(place)) is None,
            kind="directory" if os.path.isdir(place) else "file",
        )
        for place in places
    ]


def _outermost(trace: Trace, shared: list[str]) -> list[str]:
    """The places that lie in no shared directory and in no other place, and exist."""
    chosen: list[str] = []
    for place in sorted(trace.places, key=len):
        if os.path.exists(place) and not _inside(place, [*shared, *chosen]):
            chosen.append(place)
    return sorted(chosen)


def _inside(path: str, trees: list[str]) -> bool:
    return any(path == tree or path.startswith(f"{tree}/") for tree in trees)


def _mounted_below(shown: list[HostPath]) -> list[HostPath]:
    return [
        HostPath(source=point, destination=str(point), idmap=False, kind="directory")
        for place in shown
        if place.kind == "directory"
        for point in mounts.below(place.source)
    ]


def _add_mount_point(skeleton: Skeleton, place: HostPath, shown: list[HostPath]) -> None:
    others = [other.destination for other in shown if other is not place]
    if _inside(place.destination, others):
        return
    if place.kind == "directory":
        skeleton.add_directory(place.destination)
    else:
        skeleton.add_file(place.destination, b"")
