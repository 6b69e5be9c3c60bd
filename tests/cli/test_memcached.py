"""The article's walk with a real service: Debian's memcached in a root file system of Debian's own making."""

import json
import os
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests import images
from tests.cli.conftest import Cli
from tests.requires import SBIN_PATH, requires

pytestmark = [requires("root", "mmdebstrap", "zstd"), pytest.mark.slow]

_CLIENT = r"""
exec 3<>/dev/tcp/127.0.0.1/11211
printf 'set greeting 0 0 5\r\nhello\r\nget greeting\r\nquit\r\n' >&3
cat <&3
"""


@pytest.fixture(scope="module")
def debian(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The unpacked root file system, as tar leaves it."""
    folder = tmp_path_factory.mktemp("memcached") / "rootfs"
    folder.mkdir()
    tarball = images.debian(("memcached",))
    subprocess.run(["tar", "--zstd", "-xf", tarball, "-C", folder], check=True, env={"PATH": SBIN_PATH})
    yield folder
    subprocess.run(["rm", "-rf", folder], check=True)


def _edit(config: dict[str, Any]) -> None:
    config["process"]["user"] = {"uid": 1000, "gid": 1000}
    config["hostname"] = "cache"


def _ask(cli: Cli, name: str) -> str:
    """Ask memcached from inside, until it listens."""
    deadline = time.monotonic() + 10
    while (done := cli("exec", name, "bash", "-c", _CLIENT)).code:
        assert time.monotonic() < deadline, done.err
        time.sleep(0.05)
    return done.out


def test_memcached_runs(cli: Cli, debian: Path) -> None:
    """spec, an edited config, run; from a second terminal list, state, exec, kill; then it is gone."""
    cli = replace(cli, rootfs=debian, ids=cli.ids)
    name = cli.new_id()
    cli.write("memcached", "-l", "127.0.0.1", "-m", "16", edit=_edit)
    with cli.popen("run", name) as process:
        while not cli.ok("list", "-q"):
            assert process.poll() is None
        answer = _ask(cli, name)
        table = cli.ok("list")
        state = json.loads(cli.ok("state", name))
        inside = cli.ok("exec", name, "sh", "-c", "id -u; hostname; cat /proc/1/comm; cat /etc/debian_version")
        interfaces = cli.ok("exec", name, "sh", "-c", "ls /sys/class/net")
        cli.ok("kill", name, "TERM")
        code = process.wait(10)

    assert answer.split() == ["STORED", "VALUE", "greeting", "0", "5", "hello", "END"]
    assert name in table
    assert (state["status"], state["rootfs"]) == ("running", str(debian))
    assert inside.split()[:3] == ["1000", "cache", "memcached"]
    assert inside.split()[3].startswith("12.")
    assert interfaces.split() == ["lo"]
    assert code in (0, 128 + 15)
    assert cli.ok("list", "-q") == ""


def test_memcached_is_limited_and_refused_the_host(cli: Cli, debian: Path) -> None:
    """Detached, with a memory limit that the kernel counts; its port is not the host's."""
    cli = replace(cli, rootfs=debian, ids=cli.ids)

    def edit(config: dict[str, Any]) -> None:
        _edit(config)
        config["linux"]["resources"]["memory"] = {"limit": 64 << 20}

    name = cli.running("memcached", "-l", "127.0.0.1", edit=edit)
    answer = _ask(cli, name)
    pid = json.loads(cli.ok("state", name))["pid"]
    cgroups = Path(f"/proc/{pid}/cgroup").read_text(encoding="utf-8")
    network = os.readlink(f"/proc/{pid}/ns/net") != os.readlink("/proc/self/ns/net")
    cli.ok("delete", "--force", name)

    assert "hello" in answer
    assert f"/ocirun/{name}" in cgroups
    assert network
