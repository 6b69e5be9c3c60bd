"""``--systemd-cgroup`` with a systemd of the test's own, in a pid and a mount namespace and a cgroup of its own."""

import json
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pytest_ocirun.errors import ConfigError
from pytest_ocirun.runtime.cgroups.systemd import unit_of
from tests.cli.conftest import Cli
from tests.requires import requires

CGROUP = Path("/sys/fs/cgroup/ocirun-test-systemd")
_BOOT = f"""
mkdir {CGROUP}
exec env -i container=ocirun PATH=/usr/sbin:/usr/bin:/sbin:/bin unshare --pid --fork --kill-child \
    --mount --mount-proc --propagation slave sh -euc '
    echo 0 > {CGROUP}/cgroup.procs
    mount -t tmpfs tmpfs /run
    mkdir -p /run/systemd/system
    printf "[Unit]\\nDefaultDependencies=no\\n" > /run/systemd/system/idle.target
    exec /lib/systemd/systemd --unit=idle.target --log-target=null --show-status=false'
"""
needs_systemd = requires("root", "cgroup_v2", "systemd")


@pytest.mark.parametrize(
    "path, expected",
    [
        ("", ("system.slice", "ocirun-ID.scope")),
        ("machine.slice:libpod:abc", ("machine.slice", "libpod-abc.scope")),
        (":a:b", ("system.slice", "a-b.scope")),
        ("user.slice::b", ("user.slice", "b.scope")),
    ],
)
def test_paths_that_name_a_scope(path: str, expected: tuple[str, str]) -> None:
    """As runc reads them."""
    assert unit_of(path, "ID") == expected


@pytest.mark.parametrize("path", ["/a/b", "a:b", "a.slice:b:c:d", "a.slice:b:", "a:b:c", "a.slice:b:c.slice"])
def test_paths_that_name_none(path: str) -> None:
    """With the place in the document."""
    with pytest.raises(ConfigError, match=r"^\$\.linux\.cgroupsPath: "):
        unit_of(path, "ID")


class Beside(Cli):
    """``ocirun`` beside that systemd."""

    def command(self, *args: str | Path) -> list[str]:
        """The argv."""
        enter = ["nsenter", "--target", os.environ["OCIRUN_TEST_SYSTEMD"], "--pid", "--mount", f"--wd={self.bundle}"]
        return [*enter, "--", *super().command("--systemd-cgroup", *args)]


@pytest.fixture
def beside(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> Iterator[Beside]:
    """Systemd as the first process of a pid namespace, and ``ocirun`` in that."""
    manager = subprocess.Popen(["sh", "-euc", _BOOT], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        children = Path(f"/proc/{manager.pid}/task/{manager.pid}/children")
        deadline = time.monotonic() + 60
        init = ""
        while not init or not Path(f"/proc/{init}/root/run/systemd/private").exists():
            assert manager.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
            init = children.read_text().strip()
        monkeypatch.setenv("OCIRUN_TEST_SYSTEMD", init)
        yield Beside(cli.root, cli.bundle, cli.rootfs, cli.ids)
    finally:
        manager.kill()
        manager.wait()
        _remove(CGROUP)


def _remove(cgroup: Path) -> None:
    deadline = time.monotonic() + 10
    while any(path.read_text() for path in cgroup.rglob("cgroup.procs")) and time.monotonic() < deadline:
        time.sleep(0.05)
    for path in sorted((path.parent for path in cgroup.rglob("cgroup.procs")), reverse=True):
        path.rmdir()


@needs_systemd
@pytest.mark.slow
@pytest.mark.conforms("cli: --systemd-cgroup")
def test_a_container_in_a_scope(beside: Beside) -> None:
    """Its limits hold, nothing but it is in there, all verbs work, and the scope goes with it."""

    def edit(config: dict[str, Any]) -> None:
        config["linux"]["cgroupsPath"] = "ocirun.slice:test:one"
        config["linux"]["resources"] = {"memory": {"limit": 64 << 20}, "pids": {"limit": 40}}

    name = beside.running("sleep", "60", edit=edit)
    scope = CGROUP / "ocirun.slice/test-one.scope"
    limits = {file: (scope / f"container/{file}").read_text() for file in ("memory.max", "pids.max")}
    below = [path.name for path in scope.iterdir() if path.is_dir()]
    pids = json.loads(beside.ok("ps", "-f", "json", name))
    state = json.loads(beside.ok("state", name))
    taken = beside("run", beside.new_id())
    beside.ok("pause", name)
    paused = beside.status(name)
    beside.ok("resume", name)
    inside = beside.ok("exec", name, "cat", "/proc/self/cgroup")
    beside.ok("delete", "--force", name)
    deadline = time.monotonic() + 5
    while scope.exists() and time.monotonic() < deadline:
        time.sleep(0.02)

    assert limits == {"memory.max": f"{64 << 20}\n", "pids.max": "40\n"}
    assert below == ["container"]
    assert pids == [state["pid"]]
    assert (taken.code, "there is such a unit" in taken.err) == (1, True)
    assert (paused, inside) == ("paused", "0::/\n")
    assert not scope.exists()


@needs_systemd
@pytest.mark.slow
@pytest.mark.conforms("cli: --systemd-cgroup")
def test_a_container_that_cannot_be_made_leaves_no_scope(beside: Beside) -> None:
    """Nor does one that runs in front and ends."""
    beside.write("nosuch", edit=lambda config: config["linux"].update(cgroupsPath=":test:two"))
    failed = beside("run", beside.new_id())
    beside.write("sh", "-c", "exit 5", edit=lambda config: config["linux"].update(cgroupsPath=":test:three"))
    ran = beside("run", beside.new_id())
    scopes = [CGROUP / f"system.slice/test-{name}.scope" for name in ("two", "three")]
    deadline = time.monotonic() + 5
    while any(scope.exists() for scope in scopes) and time.monotonic() < deadline:
        time.sleep(0.02)

    assert (failed.code, "executable file not found" in failed.err) == (1, True)
    assert ran.code == 5
    assert [scope for scope in scopes if scope.exists()] == []
