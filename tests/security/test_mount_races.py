"""Another party swaps files for links in a shared volume while containers that use it as their /dev are made.

The volume takes the place of /dev, so nothing of it is the runtime's own: what masks, and what becomes the console,
must come from elsewhere.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pytest_ocirun.errors import KernelRefused
from pytest_ocirun.oci.runtime import Config, Mount
from tests.boxes import Bare, confined, mapping
from tests.requires import lane, requires

pytestmark = [requires("root", "userns", "overlay", "seccomp", "busybox"), pytest.mark.lane("v2")]

SECONDS = 2
_SWAP = """
import ctypes, os, sys
libc = ctypes.CDLL(None)
a, b = map(os.fsencode, sys.argv[1:])
print("swapping", flush=True)
while True:
    libc.renameat2(-100, a, -100, b, 2)
"""


@contextmanager
def swapping(one: Path, other: Path) -> Iterator[None]:
    """Exchange two names all the time."""
    with subprocess.Popen([sys.executable, "-c", _SWAP, str(one), str(other)], stdout=subprocess.PIPE) as swapper:
        try:
            assert swapper.stdout is not None
            swapper.stdout.readline()
            yield
        finally:
            swapper.kill()


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    """A directory that the container's root owns."""
    path = tmp_path / "volume"
    path.mkdir()
    tmp_path.chmod(0o755)
    os.chown(path, mapping().host_id, mapping().host_id)
    return path


def with_dev(rootfs: Path, volume: Path, script: str) -> Config:
    """A container with that volume as its /dev."""
    config = confined(rootfs, "sh", "-c", script)
    config.mounts = [each for each in config.mounts if not each.destination.startswith("/dev")]
    config.mounts.append(Mount(destination="/dev", type="bind", source=str(volume), options=["rbind"]))
    return config


def outcomes(run: Callable[[], str]) -> dict[str, int]:
    """How often each thing came of it in some seconds."""
    found: dict[str, int] = {}
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        try:
            what = run()
        except KernelRefused:
            what = "refused"
        found[what] = found.get(what, 0) + 1
    assert sum(found.values()) > (0 if lane() == "v2" else 10)
    return found


def test_masks_do_not_depend_on_the_containers_null(bare: Bare, rootfs: Path, volume: Path) -> None:
    """Whatever /dev/null of the container is at the moment, a masked file is the host's device (CVE-2025-31133)."""
    (volume / "null").symlink_to("/proc/sys/kernel/core_pattern")
    (volume / "other").write_text("secret", encoding="ascii")
    pattern = Path("/proc/sys/kernel/core_pattern").read_bytes()
    config = with_dev(rootfs, volume, "stat -c %F:%t:%T /proc/keys; echo pwned > /proc/keys; cat /proc/keys")
    config.linux.masked_paths = ["/proc/keys"]
    with swapping(volume / "null", volume / "other"):
        found = outcomes(lambda: bare.run(config).out)

    assert list(found) == ["character special file:1:3\n"]
    assert Path("/proc/sys/kernel/core_pattern").read_bytes() == pattern


def test_console_is_never_bound_behind_a_link(bare: Bare, rootfs: Path, volume: Path) -> None:
    """A /dev/console that turns into a link is refused: the pty covers nothing else (CVE-2025-52565)."""
    (volume / "console").touch()
    (volume / "link").symlink_to("/proc/keys")
    (volume / "pts").mkdir()
    config = with_dev(rootfs, volume, "stat -c %t /dev/console; stat -c %t:%T /proc/keys")
    config.mounts.append(Mount(destination="/dev/pts", type="devpts", source="devpts", options=["ptmxmode=0666"]))
    config.process.terminal = True
    config.linux.masked_paths = ["/proc/keys"]
    with swapping(volume / "console", volume / "link"):
        found = outcomes(lambda: on_a_terminal(bare, config))
    # Between the bind and the look at it the name may have been swapped again; the mask is what it must be.
    made = {what for what in found if what != "refused"}

    assert all(what.splitlines()[-1] == "1:3" for what in made), found
    if lane() != "v2":  # an emulated kernel is too slow to meet both in so short a time
        assert "refused" in found
        assert made


@pytest.mark.parametrize("target", ["/proc/sys/kernel/core_pattern", "/etc/passwd", "/nowhere"])
def test_console_that_is_a_link_is_refused(bare: Bare, rootfs: Path, target: str) -> None:
    """In the image too, where the runtime mounts nothing at /dev (CVE-2025-52565)."""
    (rootfs / "dev/console").symlink_to(target)
    (rootfs / "etc/passwd").write_text("root:x:0:0::/:/bin/sh\n", encoding="ascii")
    config = confined(rootfs, "true")
    config.mounts = [each for each in config.mounts if each.destination not in ("/dev", "/dev/shm", "/dev/mqueue")]
    config.process.terminal = True

    with pytest.raises(KernelRefused, match=r"bind the terminal to /dev/console: .*symbolic links"):
        on_a_terminal(bare, config)


@pytest.mark.parametrize("target", ["/tmp", "/proc", "../proc", "/nowhere"])
def test_terminals_that_are_a_link_are_refused(bare: Bare, rootfs: Path, target: str) -> None:
    """A devpts is mounted at no other place than /dev/pts, from which the console's slave comes (CVE-2025-52565)."""
    (rootfs / "dev/pts").symlink_to(target)
    config = confined(rootfs, "true")
    config.mounts = [each for each in config.mounts if each.destination != "/dev"]
    config.process.terminal = True

    with pytest.raises(KernelRefused, match=r"on /dev/pts: .*symbolic links"):
        on_a_terminal(bare, config)


def test_readonly_paths_hold_while_they_are_swapped(bare: Bare, rootfs: Path, tmp_path: Path, volume: Path) -> None:
    """A read-only path in a shared volume makes read-only what it finds, and mounts nothing anywhere else."""
    for name in ("a", "b"):
        (volume / name).mkdir()
        os.chown(volume / name, mapping().host_id, mapping().host_id)
    (volume / "link").symlink_to("/etc")
    config = confined(rootfs, "sh", "-c", "awk '{print $5}' /proc/self/mountinfo | grep -E '^/(vol|etc)'")
    config.mounts.append(Mount(destination="/vol", type="bind", source=str(volume), options=["rbind"]))
    config.linux.readonly_paths = ["/vol/a"]
    with swapping(volume / "a", volume / "link"):
        found = outcomes(lambda: bare.run(config).out)

    assert set(found) <= {"/vol\n/vol/a\n", "/vol\n/etc\n", "/vol\n/vol/link\n"}, found
    assert str(tmp_path) not in Path("/proc/self/mountinfo").read_text(encoding="utf-8")


def on_a_terminal(bare: Bare, config: Config) -> str:
    """Run a container with a terminal; what it printed there."""
    name = bare.new_id()
    child = bare.create(config, name=name)
    try:
        assert child.console is not None
        bare.runtime.start(name)
        child.wait()
        return _read(child.console).replace("\r", "")
    finally:
        bare.end(name, child)


def _read(master: int) -> str:
    text = b""
    os.set_blocking(master, False)
    try:
        while chunk := os.read(master, 4096):
            text += chunk
    except OSError:
        pass  # EIO: the other side has gone; EAGAIN: nothing was printed
    return text.decode()
