"""The directory of unpacked images that many processes share.

::

    ~/.cache/ocirun/            0700, the caller's; root: /var/cache/ocirun
        CACHEDIR.TAG            what tells a store from any other directory
        entries/KEY/rootfs/     one unpacked tree; KEY = format + what was unpacked + whose the files are
        entries/KEY/meta.json   what making it gave; there since before KEY was
        index/DEV-INO.json      the digest of a file that has not changed since
        locks/KEY.lock          held while KEY is being made
        tmp/RANDOM              an entry on its way in or out, flocked by who works on it; or a small file

Only a rename publishes, so a killed process leaves nothing but a directory in tmp, whose flock died with it:
the next process sweeps it. Who uses an entry holds a shared flock on it (a Lease). Must not know what a
tarball or a host is.
"""

from __future__ import annotations

import fcntl
import inspect
import json
import os
import secrets
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_ocirun.errors import ImageError
from pytest_ocirun.images import idmap, mounts, tree
from pytest_ocirun.images.image import Lease
from pytest_ocirun.images.owners import Owners, may_own
from pytest_ocirun.linux.paths import syncfs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from filelock import BaseFileLock

    Meta = dict[str, Any]
    Build = Callable[[int], Meta]

_TAG = b"""\
Signature: 8a477f597d28d172789f06886806bc55
# Images that pytest-ocirun has unpacked. The directory may go when no container runs.
"""
_FOLDERS = ("entries", "index", "locks", "tmp")
_FORMAT = 1
_SETTLED_SECONDS = 60
_OLD_SECONDS = 3600
_RACY_NANOSECONDS = 2 * 10**9
_HINT = "Choose another directory with --ocirun-store."


def default_path() -> Path:
    """Where the store lies by default: /var/cache/ocirun, or $XDG_CACHE_HOME/ocirun without root."""
    if os.geteuid() == 0:
        return Path("/var/cache/ocirun")
    cache = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(cache) if os.path.isabs(cache) else Path.home() / ".cache") / "ocirun"


class Entry:
    """A published tree: its ``rootfs``, the ``meta`` of its making, and the ``lease`` that keeps it."""

    __slots__ = ("lease", "meta", "rootfs")

    def __init__(self, rootfs: Path, meta: Meta, lease: Lease) -> None:
        self.rootfs = rootfs
        self.meta = meta
        self.lease = lease


class Store:
    """A store at ``path``, made if it is not there; leftovers of killed processes are swept.

    Args:
        path: the directory; ``default_path()`` without one.

    Raises:
        ImageError: the directory is not ours, is something else than a store, or lies on a file system
        without
            the locks and ids that a store needs.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = Path(os.path.abspath(path or default_path()))
        with self._named_errors():
            self._prepare()
            self.sweep()

    @contextmanager
    def _named_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            where = "" if error.filename is None else f": {os.fsdecode(error.filename)}"
            raise ImageError(f"image store {self.path}: {error.strerror}{where}", hint=_HINT) from error

    def _prepare(self) -> None:
        what = f"image store {self.path}"
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except FileExistsError as error:
            raise ImageError(f"{what}: {error.filename} is not a directory", hint=_HINT) from error
        try:
            os.mkdir(self.path, 0o700)
        except FileExistsError:
            pass
        found = os.lstat(self.path)
        if not os.path.isdir(self.path) or os.path.islink(self.path):
            raise ImageError(f"{what}: it is not a directory", hint=_HINT)
        if found.st_uid != os.geteuid():
            raise ImageError(f"{what}: it belongs to uid {found.st_uid}, not to us ({os.geteuid()})", hint=_HINT)
        if not os.path.exists(self.path / "CACHEDIR.TAG"):
            strangers = set(os.listdir(self.path)) - {*_FOLDERS, "CACHEDIR.TAG"}
            if strangers:
                raise ImageError(f"{what}: it holds something else, {min(strangers)!r}", hint=_HINT)
            kind = mounts.unsuitable_filesystem(self.path)
            if kind is not None:
                raise ImageError(f"{what}: it lies on {kind}, which has no reliable locks and owners", hint=_HINT)
            (self.path / "CACHEDIR.TAG").write_bytes(_TAG)
        if found.st_mode & 0o077:
            os.chmod(self.path, 0o700)
        for folder in _FOLDERS:
            os.makedirs(self.path / folder, 0o700, exist_ok=True)

    # Owners

    def owners(self, shift_base: int) -> Owners:
        """Whose this store's files are to be; the containers' uid 0 is the host's ``shift_base``.

        Raises:
            ImageError: the store cannot be written to, or the file system cannot be probed.
        """
        if not may_own(shift_base):
            return Owners("caller")
        return Owners("real") if self.idmap_obstacle(self.path) is None else Owners("shifted", shift_base)

    def idmap_obstacle(self, path: Path) -> str | None:
        """Why the file system of ``path`` cannot be idmapped; None if it can.

        Probed once per boot and file system.

        Raises:
            ImageError: the store cannot be written to, or the file system cannot be probed.
        """
        with self._named_errors():
            key = f"{_boot()}:{os.stat(path).st_dev}"
            known = self._read("idmap.json")
            if key not in known:
                known = {name: answer for name, answer in known.items() if name.startswith(_boot())}
                known[key] = idmap.obstacle(str(path))
                self._write("idmap.json", json.dumps(known).encode())
        answer = known[key]
        return None if answer is None else str(answer)

    # Digests of files that have not changed

    def known_digest(self, found: os.stat_result) -> str | None:
        """The digest that ``remember_digest`` was told for the file, unless it may have changed since."""
        entry = self._read(f"index/{found.st_dev}-{found.st_ino}.json")
        return str(entry["digest"]) if entry.get("stamp") == _stamp(found) else None

    def remember_digest(self, found: os.stat_result, digest: str, *, since: int) -> None:
        """Keep the digest of a file.

        Args:
            found: the file's status from before it was read.
            digest: what reading it gave.
            since: ``time.time_ns()`` from before it was read. If the file had been changed just then, nothing
                is kept: another change within the clock's granularity would look the same.
        """
        if since - max(found.st_mtime_ns, found.st_ctime_ns) > _RACY_NANOSECONDS:
            content = {"stamp": _stamp(found), "digest": digest}
            with self._named_errors():
                self._write(f"index/{found.st_dev}-{found.st_ino}.json", json.dumps(content).encode())

    # Entries

    def entry(self, key: str, build: Build) -> Entry:
        """The entry ``key``, made by ``build`` if it is not there: one process makes it, the others wait.

        Args:
            key: a file name that stands for the content and its owners.
            build: fills the empty directory whose fd it gets, and returns what is to be kept as
                ``Entry.meta``.

        Raises:
            ImageError: ``build`` raised it, or the store cannot be written to. Nothing is left behind.
        """
        place = self.path / "entries" / f"{_FORMAT}-{key}"
        with self._named_errors():
            while True:
                found = self._attach(place)
                if found is not None:
                    return found
                with self._lock(key):
                    found = self._attach(place)
                    if found is not None:
                        return found
                    self._discard(place)
                    self._publish(place, build)

    def _lock(self, key: str) -> BaseFileLock:
        from filelock import FileLock

        options: dict[str, Any] = {}
        if "fallback_to_soft" in inspect.signature(FileLock.__init__).parameters:
            options["fallback_to_soft"] = False
        return FileLock(self.path / "locks" / f"{key}.lock", timeout=-1, **options)

    def _attach(self, place: Path) -> Entry | None:
        """Lease a published entry. One just removed, or written shortly before a power failure, is none."""
        fd = _open_locked(place, fcntl.LOCK_SH)
        if fd is None:
            return None
        lease = Lease(fd)
        meta = self._read(place / "meta.json")
        if not meta or not (meta["synced"] or meta["boot"] == _boot()):
            lease.release()
            return None
        if not meta["synced"] and time.time() - meta["made"] > _SETTLED_SECONDS:
            syncfs(fd)
            self._write(place / "meta.json", json.dumps({**meta, "synced": True}).encode())
        return Entry(place / "rootfs", meta, lease)

    def _publish(self, place: Path, build: Build) -> None:
        new, fd = self._new_temporary()
        try:
            os.mkdir(new / "rootfs", 0o700)
            root = os.open(new / "rootfs", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                meta = build(root)
            finally:
                os.close(root)
            meta |= {"boot": _boot(), "synced": False, "made": time.time()}
            self._write(new / "meta.json", json.dumps(meta).encode())
            os.rename(new, place)
        except BaseException as error:
            try:
                self._remove_temporary(new)
            except OSError as trouble:
                error.add_note(f"Removing what was unpacked so far failed too: {trouble}")
            raise
        finally:
            os.close(fd)

    def _discard(self, place: Path) -> None:
        """Remove an entry that ``_attach`` refused, so that nobody uses it; nothing there is fine."""
        fd = _open_locked(place, fcntl.LOCK_EX)
        if fd is None:
            return
        try:
            gone = self.path / "tmp" / secrets.token_hex(8)
            os.rename(place, gone)
            self._remove_temporary(gone)
        finally:
            os.close(fd)

    # tmp

    def _new_temporary(self) -> tuple[Path, int]:
        """A new directory in tmp, and the fd whose flock keeps the sweepers away."""
        while True:
            place = self.path / "tmp" / secrets.token_hex(8)
            os.mkdir(place, 0o700)
            fd = _open_locked(place, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if fd is not None:
                return place, fd

    def _remove_temporary(self, place: Path) -> None:
        folder = os.open(place.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            tree.remove(folder, os.fsencode(place.name))
        finally:
            os.close(folder)

    def sweep(self) -> None:
        """Remove what killed processes left in tmp; what is in use, or cannot be removed, stays."""
        for name in os.listdir(self.path / "tmp"):
            place = self.path / "tmp" / name
            try:
                fd = _open_locked(place, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except NotADirectoryError:
                _unlink_if_old(place)
                continue
            if fd is None:
                continue
            try:
                self._remove_temporary(place)
            except OSError:
                pass
            finally:
                os.close(fd)

    # Small files

    def _read(self, name: str | Path) -> Meta:
        try:
            content = json.loads((self.path / name).read_bytes())
        except (FileNotFoundError, ValueError):
            return {}
        return content if isinstance(content, dict) else {}

    def _write(self, name: str | Path, content: bytes) -> None:
        """Replace a file by rename, so that readers see the old or the new one."""
        new = self.path / "tmp" / secrets.token_hex(8)
        try:
            new.write_bytes(content)
            os.rename(new, self.path / name)
        except BaseException:
            new.unlink(missing_ok=True)
            raise


def _unlink_if_old(file: Path) -> None:
    try:
        if time.time() - file.lstat().st_mtime > _OLD_SECONDS:
            file.unlink()
    except FileNotFoundError:
        pass


def _open_locked(place: Path, lock: int) -> int | None:
    """An fd of the directory with ``lock`` on it; None if it is not there, locked, or renamed meanwhile."""
    try:
        fd = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(fd, lock)
        if os.path.samestat(os.fstat(fd), os.stat(place)):
            return fd
    except (BlockingIOError, FileNotFoundError):
        pass
    except BaseException:
        os.close(fd)
        raise
    os.close(fd)
    return None


def _stamp(found: os.stat_result) -> list[int]:
    return [found.st_size, found.st_mtime_ns, found.st_ctime_ns]


def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
