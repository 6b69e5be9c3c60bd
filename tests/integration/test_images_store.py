"""The store with real tarballs, real processes and real kills."""

import fcntl
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest

from pytest_ocirun.errors import ImageError
from pytest_ocirun.images.open import open_image
from pytest_ocirun.images.store import Store, default_path
from tests.requires import requires
from tests.unit.images.tars import END, ROOT, file
from tests.unprivileged import User

pytestmark = pytest.mark.lane("rootless", "v2")

BASE = 100000
_PARENT = Path(sys.modules[Store.__module__].__file__ or "").parents[2]


def start(code: str, *args: str | Path) -> "subprocess.Popen[str]":
    """A Python of its own that runs ``code``."""
    return subprocess.Popen(
        [sys.executable, "-c", f"import sys; sys.path.append({str(_PARENT)!r})\n{code}", *map(str, args)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


OPEN = """
import time
from pathlib import Path
from pytest_ocirun.images import open as door
from pytest_ocirun.images.extract import Extractor
from pytest_ocirun.images.store import Store
run = Extractor.run
def noted(self, tarball):
    print("unpacking", flush=True)
    return run(self, tarball)
Extractor.run = noted
with door.open_image(Store(Path(sys.argv[1])), sys.argv[2], shift_base=100000) as image:
    print(image.rootfs, (image.rootfs / "etc/os-release").read_text().strip())
"""


@pytest.fixture
def tarball(tmp_path: Path) -> Path:
    """A small root file system."""
    path = tmp_path / "image.tar"
    path.write_bytes(ROOT + b"".join(file(f"etc/file{number}", b"x" * number) for number in range(300)) + END)
    return path


def test_ten_processes_unpack_once(tmp_path: Path, tarball: Path) -> None:
    """All get the same tree, one makes it."""
    running = [start(OPEN, tmp_path / "store", tarball) for _ in range(10)]
    outputs = [process.communicate(timeout=60) for process in running]

    assert [error for _, error in outputs] == [""] * 10
    lines = [line for output, _ in outputs for line in output.splitlines()]
    assert lines.count("unpacking") == 1
    assert len({line for line in lines if line != "unpacking"}) == 1
    assert os.listdir(tmp_path / "store/tmp") == []


def test_killed_unpack_leaves_nothing_visible(tmp_path: Path, tarball: Path) -> None:
    """SIGKILL in the middle: no entry, and the next process sweeps and succeeds."""
    code = OPEN.replace("return run(self, tarball)", "run(self, tarball); time.sleep(60)")
    victim = start(code, tmp_path / "store", tarball)
    assert victim.stdout is not None
    assert victim.stdout.readline() == "unpacking\n"
    deadline = time.monotonic() + 20
    while not list((tmp_path / "store/tmp").glob("*/rootfs/etc/file299")) and time.monotonic() < deadline:
        time.sleep(0.01)
    store = Store(tmp_path / "store")
    assert len(os.listdir(store.path / "tmp")) == 1, "swept while it was in use"
    victim.send_signal(signal.SIGKILL)
    victim.communicate(timeout=10)

    assert os.listdir(store.path / "entries") == []
    with open_image(Store(tmp_path / "store"), str(tarball), shift_base=BASE) as image:
        assert (image.rootfs / "etc/file299").stat().st_size == 299
    assert os.listdir(store.path / "tmp") == []


def test_unchanged_file_is_not_read_again(tmp_path: Path, tarball: Path) -> None:
    """The index knows its digest; a changed file is another image."""
    old = time.time() - 100
    os.utime(tarball, (old, old))
    time.sleep(2.1)  # ctime cannot be set
    store = Store(tmp_path / "store")
    with open_image(store, str(tarball), shift_base=BASE) as image:
        first = image.digest
    index = list((store.path / "index").iterdir())
    assert [json.loads(path.read_text())["digest"] for path in index] == [first]
    with tarball.open("ab") as archive:
        archive.write(bytes(512))
    os.utime(tarball, (old, old))
    with open_image(store, str(tarball), shift_base=BASE) as image:
        assert image.digest != first
    assert len(os.listdir(store.path / "entries")) == 2


def test_fresh_file_is_not_indexed(tmp_path: Path, tarball: Path) -> None:
    """A change within the clock's granularity would go unnoticed."""
    store = Store(tmp_path / "store")
    tarball.write_bytes(tarball.read_bytes())
    open_image(store, str(tarball), shift_base=BASE).release()

    assert os.listdir(store.path / "index") == []


def test_image_holds_a_shared_lock_until_released(tmp_path: Path, tarball: Path) -> None:
    """Who would remove the entry must wait for its users."""
    image = open_image(Store(tmp_path / "store"), str(tarball), shift_base=BASE)
    other = os.open(image.rootfs.parent, os.O_RDONLY)
    try:
        with pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        image.release()
        image.release()
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    finally:
        os.close(other)


def test_entry_from_before_a_crash_of_the_machine_is_made_again(tmp_path: Path, tarball: Path) -> None:
    """What was never written out for sure is not trusted after a reboot."""
    store = Store(tmp_path / "store")
    with open_image(store, str(tarball), shift_base=BASE) as image:
        meta = image.rootfs.parent / "meta.json"
        broken = image.rootfs / "etc/file7"
    meta.write_text(json.dumps({**json.loads(meta.read_text()), "boot": "another"}))
    broken.write_bytes(b"")
    with open_image(store, str(tarball), shift_base=BASE) as image:
        assert (image.rootfs / "etc/file7").read_bytes() == b"x" * 7

    meta.write_text(json.dumps({**json.loads(meta.read_text()), "made": time.time() - 1000}))
    open_image(store, str(tarball), shift_base=BASE).release()
    assert json.loads(meta.read_text())["synced"] is True
    assert os.listdir(store.path / "tmp") == []


def test_store_refuses_directories_that_are_none(tmp_path: Path) -> None:
    """A store deletes what it finds in its tmp, so it never adopts a stranger's directory."""
    (tmp_path / "file").write_text("")
    with pytest.raises(ImageError, match="it holds something else, 'file'"):
        Store(tmp_path)
    with pytest.raises(ImageError, match="it is not a directory"):
        Store(tmp_path / "file")
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(ImageError, match="it is not a directory"):
        Store(tmp_path / "link")
    with pytest.raises(ImageError, match="file is not a directory"):
        Store(tmp_path / "file/store")


@requires("root")
def test_store_of_another_user_is_refused(tmp_path: Path) -> None:
    """Its owner could change the images below running containers."""
    store = tmp_path / "store"
    store.mkdir(0o700)
    os.chown(store, 12345, 12345)
    with pytest.raises(ImageError, match="it belongs to uid 12345, not to us"):
        Store(store)


def test_store_is_closed_to_others(tmp_path: Path) -> None:
    """CVE-2021-21284: set-id programs of images must not be reachable on the host."""
    (tmp_path / "store").mkdir(0o755)
    store = Store(tmp_path / "store")

    assert store.path.stat().st_mode & 0o777 == 0o700


def test_default_path_follows_the_xdg_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    """Root's is the system's; a relative XDG_CACHE_HOME does not count."""
    if os.geteuid() == 0:
        assert default_path() == Path("/var/cache/ocirun")
        return
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert default_path() == Path("/somewhere/ocirun")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert default_path() == Path.home() / ".cache/ocirun"


def _tree(root: Path) -> dict[str, tuple[object, ...]]:
    found: dict[str, tuple[object, ...]] = {}
    for path in (root, *root.rglob("*")):
        status = path.lstat()
        target = os.readlink(path) if path.is_symlink() else ""
        size = 0 if path.is_dir() else status.st_size
        attributes = {
            name: os.getxattr(path, name, follow_symlinks=False) for name in os.listxattr(path, follow_symlinks=False)
        }
        found[str(path.relative_to(root))] = (
            oct(status.st_mode), status.st_uid, status.st_gid, size, status.st_nlink, status.st_rdev,
            status.st_mtime_ns, target, attributes,
        )  # fmt: skip
    return found


@pytest.mark.slow
@requires("root", "idmap", "zstd")
def test_debian_is_unpacked_as_gnu_tar_does(tmp_path: Path, debian_tarball: Path) -> None:
    """Mode, owner, type, size, link target, times, link count and attributes of every file."""
    reference = tmp_path / "gnu"
    reference.mkdir()
    with subprocess.Popen(["zstd", "-dc", debian_tarball], stdout=subprocess.PIPE) as unpacker:
        subprocess.run(
            ["tar", "-xpf", "-", "-C", reference, "--numeric-owner", "--xattrs", "--xattrs-include=*"],
            stdin=unpacker.stdout,
            check=True,
        )
    with open_image(Store(tmp_path / "store"), str(debian_tarball), shift_base=BASE) as image:
        assert image.owners == "real"
        assert _tree(image.rootfs) == _tree(reference)


UNPRIVILEGED = """
import os, sys
from pathlib import Path
from pytest_ocirun.images.open import open_image
from pytest_ocirun.images.store import Store
with open_image(Store(), sys.argv[1], shift_base=100000) as image:
    print(image.owners, image.skipped_devices, image.dropped_xattrs)
    print(image.rootfs)
    for name in sys.argv[2:]:
        status = os.lstat(image.rootfs / name)
        print(oct(status.st_mode), status.st_uid == os.geteuid())
"""


@requires("unprivileged")
def test_unprivileged_user_owns_everything(tmp_path: Path, unprivileged_user: User) -> None:
    """Devices and capabilities are left out and counted; the caller can read it all, and remove it again."""
    path = unprivileged_user.home / "image.tar"
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        for name, kind, mode, uid in (
            ("etc", tarfile.DIRTYPE, 0o755, 0),
            ("etc/shadow", tarfile.REGTYPE, 0o000, 0),
            ("secret", tarfile.DIRTYPE, 0o000, 0),
            ("secret/file", tarfile.REGTYPE, 0o4711, 1000),
            ("dev/null", tarfile.CHRTYPE, 0o666, 0),
        ):
            info = tarfile.TarInfo(name)
            info.type, info.mode, info.uid = kind, mode, uid
            info.devmajor, info.devminor = 1, 3
            if name == "secret/file":
                value = bytes.fromhex("0100000202000000000000000000000000000000").decode("latin-1")
                info.pax_headers = {"SCHILY.xattr.security.capability": value}
            archive.addfile(info)
    path.chmod(0o644)
    names = ["etc/shadow", "secret", "secret/file"]
    done = unprivileged_user.run([unprivileged_user.python, "-c", UNPRIVILEGED, path, *names])

    assert done.stderr == ""
    summary, rootfs, *modes = done.stdout.splitlines()
    assert summary == "caller 1 1"
    assert modes == ["0o100400 True", "0o40500 True", "0o104711 True"]
    remover = (
        "import os, sys; from pytest_ocirun.images import tree; parent, name = os.path.split(sys.argv[1]);"
        "tree.remove(os.open(parent, os.O_RDONLY), os.fsencode(name))"
    )
    entry = str(Path(rootfs).parent)
    assert unprivileged_user.run([unprivileged_user.python, "-c", remover, entry]).stderr == ""
    assert not os.path.lexists(entry)


SHIFTED = """
import os, sys
from pathlib import Path
from pytest_ocirun.images.open import open_image
from pytest_ocirun.images.store import Store
with open_image(Store(Path(sys.argv[1])), sys.argv[2], shift_base=100000) as image:
    print(image.owners, image.shift)
    for path in (image.rootfs, *image.rootfs.rglob("*")):
        print(path.lstat().st_uid, path.lstat().st_gid)
"""


@requires("root")
def test_ids_are_shifted_where_they_cannot_be_mapped(tmp_path: Path, tarball: Path) -> None:
    """On a ramfs, which the kernel does not idmap, the base is added to the ids on disk."""
    place = tmp_path / "ramfs"
    place.mkdir()
    script = f"import sys; sys.path.append({str(_PARENT)!r})\n{SHIFTED}"
    mount = 'mount -t ramfs none "$1"; shift; exec "$@"'
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-ec", mount, "sh", place, sys.executable, "-c", script, place / "store", tarball],
        check=False,
        capture_output=True,
        text=True,
    )

    assert done.stderr == ""
    assert done.stdout.splitlines()[0] == f"shifted {BASE}"
    assert set(done.stdout.splitlines()[1:]) == {f"{BASE} {BASE}"}


def test_full_disk_is_one_clear_error(tmp_path: Path, tarball: Path) -> None:
    """A limit on file size stands for the full disk: the member is named, and nothing is left."""
    limit = "import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
    code = limit + OPEN
    big = tmp_path / "big.tar"
    big.write_bytes(ROOT + file("etc/big", bytes(100_000)) + END)
    _, error = start(code, tmp_path / "store", big).communicate(timeout=60)

    assert f"image {big}: member 'etc/big' cannot be made: File too large" in error
    assert "Make room" in error
    assert os.listdir(tmp_path / "store/entries") == []
    assert os.listdir(tmp_path / "store/tmp") == []


def test_unwritable_place_for_the_store_is_one_clear_error(tmp_path: Path) -> None:
    """The error names the store and says what to do."""
    with pytest.raises(ImageError, match=r"image store /proc/ocirun: .*\n.*--ocirun-store"):
        Store(Path("/proc/ocirun"))


def test_tarball_that_changes_while_it_is_read_is_refused(tmp_path: Path, tarball: Path) -> None:
    """The entry's name promises a digest."""
    store = Store(tmp_path / "store")
    status = tarball.stat()
    store.remember_digest(status, "sha256:" + "0" * 64, since=time.time_ns() + 10**12)
    with pytest.raises(ImageError, match="it changed while it was read"):
        open_image(store, str(tarball), shift_base=BASE)

    assert os.listdir(store.path / "entries") == []
