"""Root file systems for tests, made from what the host's Debian offers. Knows nothing of pytest_ocirun."""

import fcntl
import hashlib
import os
import platform
import shutil
import subprocess
import tarfile
from pathlib import Path

from tests.requires import SBIN_PATH

_SUITE = "bookworm"
_HOST_SOURCES = (Path("/etc/apt/sources.list.d/debian.sources"), Path("/etc/apt/sources.list"))


def cache() -> Path:
    """The folder for what is dear to make and the same for every run."""
    base = os.environ.get("XDG_CACHE_HOME") or "/var/tmp"
    folder = Path(base) / "ocirun-tests"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def debian(packages: tuple[str, ...]) -> Path:
    """A root file system of Debian's minimal set and ``packages``, made by mmdebstrap once per list.

    Processes that ask at once wait for one of them to make it.
    """
    key = hashlib.sha256(" ".join((_SUITE, platform.machine(), *packages)).encode()).hexdigest()[:12]
    target = cache() / f"debian-{key}.tar.zst"
    if target.exists():
        return target
    with open(target.with_suffix(".lock"), "wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.exists():
            _mmdebstrap(packages, target)
    return target


def _mmdebstrap(packages: tuple[str, ...], target: Path) -> None:
    sources = [str(path) for path in _HOST_SOURCES if path.exists() and _SUITE in path.read_text(encoding="utf-8")]
    part = target.with_name(f"part-{target.name}")
    part.unlink(missing_ok=True)
    subprocess.run(
        ["mmdebstrap", "--variant=minbase", f"--include={','.join(packages)}", _SUITE, part, *sources[:1]],
        check=True,
        stdin=subprocess.DEVNULL,
        env={"PATH": SBIN_PATH, "HOME": "/", "TMPDIR": "/var/tmp", **_proxies()},
    )
    part.rename(target)


def _proxies() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name.lower().endswith("_proxy")}


def busybox(target: Path) -> Path:
    """Lay out the host's static busybox with a link per applet, and what a program expects of a root."""
    program = shutil.which("busybox", path=SBIN_PATH)
    if program is None:
        raise FileNotFoundError("busybox is not on this host; install busybox-static")
    for name in ("bin", "dev", "etc", "proc", "root", "run", "sys", "tmp", "usr/bin", "var/tmp"):
        (target / name).mkdir(parents=True)
    shutil.copy(program, target / "bin/busybox")
    applets = subprocess.run([program, "--list"], check=True, capture_output=True, text=True).stdout.split()
    for name in set(applets) - {"busybox"}:
        (target / "bin" / name).symlink_to("busybox")
    (target / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/tmp:/bin/sh\n")
    (target / "etc/group").write_text("root:x:0:\nuser:x:1000:\n")
    for name in ("tmp", "var/tmp"):
        (target / name).chmod(0o1777)
    return target


def pack(folder: Path, target: Path) -> Path:
    """A tarball of ``folder``, with members named ``./...`` as tar -C writes them."""
    with tarfile.open(target, "w") as archive:
        archive.add(folder, arcname=".")
    return target
