"""Working directories that lead out of the container."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_ocirun.engine.container import Container
from pytest_ocirun.engine.result import Exit
from pytest_ocirun.errors import ConfigError, KernelRefused
from pytest_ocirun.runtime.stdio import Stdio
from tests.boxes import Bare, Launch, confined, shell
from tests.requires import requires

pytestmark = [requires("userns", "overlay", "seccomp", "busybox"), pytest.mark.lane("v2")]

TAILS = ("", "/../..", "/../../../../..")


@pytest.fixture
def outside() -> Iterator[Path]:
    """A directory of the host that anybody may enter, with a readable secret in it."""
    with tempfile.TemporaryDirectory(prefix="ocirun-secret-", dir="/var/tmp") as name:
        path = Path(name)
        path.chmod(0o755)
        (path / "secret").write_text("ESCAPED", encoding="ascii")
        yield path


@pytest.mark.parametrize("tail", TAILS)
def test_fd_links_as_the_containers_cwd(bare: Bare, busybox_rootfs: Path, outside: Path, tail: str) -> None:
    """A cwd of /proc/self/fd/N is refused or inside, whatever fd it is, one of the host's too (CVE-2024-21626)."""
    find = f"cat ./secret .{outside}/secret ../../../../../../../..{outside}/secret"
    directory = os.open(outside, os.O_RDONLY | os.O_DIRECTORY)
    null = os.open(os.devnull, os.O_RDWR)
    read, write = os.pipe()
    os.set_blocking(read, False)
    refused, ran = [], 0
    try:
        for number in range(3, 41):
            config = confined(busybox_rootfs, "sh", "-c", find)
            config.process.cwd = f"/proc/self/fd/{number}{tail}"
            name = bare.new_id()
            try:
                child = bare.create(config, Stdio(null, write, write, {5: directory}), name=name)
            except KernelRefused as error:
                refused.append(str(error))
            else:
                bare.runtime.start(name)
                assert Exit.from_status(child.wait()).code == 1
                bare.end(name, child)
                ran += 1
        try:
            shown = os.read(read, 65536)
        except BlockingIOError:
            shown = b""
    finally:
        for fd in (directory, null, read, write):
            os.close(fd)

    assert b"ESCAPED" not in shown
    assert shown.count(b"can't open") == 3 * ran
    assert any("lies outside the root file system" in text for text in refused), refused


@pytest.mark.parametrize("tail", TAILS)
def test_fd_links_as_an_execs_cwd(box: Container, outside: Path, tail: str) -> None:
    """The same for exec."""
    find = f"cat ./secret .{outside}/secret ../../../../../../../..{outside}/secret"
    for number in range(3, 41):
        try:
            result = box.exec(["sh", "-c", find], cwd=f"/proc/self/fd/{number}{tail}")
        except KernelRefused:
            continue
        assert (result.exit_code, result.stdout) == (1, "")


@pytest.mark.parametrize("cwd", ["/proc/1/cwd", "/proc/1/root", "/proc/self/root", "/proc/self/cwd"])
def test_other_magic_links_as_cwd_stay_inside(box: Container, outside: Path, cwd: str) -> None:
    """Links to roots and directories of processes lead to the container's own or are refused."""
    try:
        result = box.exec(["sh", "-c", f"ls ..{outside} ../../..{outside}"], cwd=cwd)
    except KernelRefused:
        return

    assert (result.exit_code, result.stdout) == (1, "")


@pytest.mark.parametrize("cwd", ["tmp", "", "./tmp", "\0", "/tmp\0/x"])
def test_a_cwd_that_is_no_absolute_path_is_refused(box: Container, launch: Launch, cwd: str) -> None:
    """A relative directory has nothing to be relative to."""
    with pytest.raises(ConfigError, match="cwd"):
        box.exec(["true"], cwd=cwd)
    with pytest.raises(ConfigError, match="cwd"):
        launch("true", cwd=cwd)


def test_a_link_of_the_image_as_cwd_leads_inside(bare: Bare, rootfs: Path, outside: Path) -> None:
    """A symlink in the image is resolved in the container, where a missing directory is made."""
    (rootfs / "work").symlink_to(outside)
    config = confined(rootfs, "sh", "-c", "pwd -P; ls")
    config.process.cwd = "/work"
    (rootfs / str(outside)[1:]).mkdir()
    ran = bare.run(config)

    assert (ran.out, ran.end.code) == (f"{outside}\n", 0)


def test_the_cwd_of_the_runtime_is_not_the_containers(box: Container) -> None:
    """Nothing of the directory that pytest was started in shows."""
    assert shell(box, "readlink /proc/self/cwd; readlink /proc/1/cwd") == "/\n/"
