"""A container without a mount namespace: its mounts are the host's, and go away with it.

The host here is a mount namespace of the test's own; the state root lies on a shared mount of it, or on a private one.
"""

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.cli.conftest import Cli, Config
from tests.requires import requires

pytestmark = [requires("root", "busybox"), pytest.mark.conforms("config: $.linux.namespaces mount")]


@dataclass(frozen=True, slots=True)
class Host:
    """A mount namespace that stands for the host's.

    Attributes:
        pid: a process in it.
        cli: the command line, with its state root there.
        rootfs: the root file system.
    """

    pid: int
    cli: Cli
    rootfs: Path

    def run(self, *args: str) -> subprocess.CompletedProcess[str]:
        """Run the command line there."""
        command = ["nsenter", "--mount", f"--target={self.pid}", *self.cli.command(*args)]
        return subprocess.run(
            command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, cwd="/", timeout=60
        )

    def start(self, script: str) -> str:
        """A running container; its id."""
        name = self.cli.new_id()
        self.write(script)
        command = ["nsenter", "--mount", f"--target={self.pid}", *self.cli.command("run", "--detach")]
        null = subprocess.DEVNULL
        command += ["--bundle", str(self.cli.bundle), name]
        assert subprocess.run(command, check=False, stdin=null, stdout=null, stderr=null).returncode == 0
        return name

    def write(self, script: str) -> None:
        """Write the bundle."""

        def edit(config: Config) -> None:
            config["root"] = {"path": str(self.rootfs), "readonly": True}
            kinds = config["linux"]["namespaces"]
            config["linux"]["namespaces"] = [each for each in kinds if each["type"] != "mount"]
            source = {"destination": "/vol", "source": str(self.rootfs / "etc"), "options": ["rbind"]}
            config["mounts"].append(source)

        self.cli.write("sh", "-c", script, edit=edit)

    def own(self) -> list[str]:
        """What the kernel says of the mounts of this test."""
        lines = Path(f"/proc/{self.pid}/mountinfo").read_text(encoding="utf-8").splitlines()
        return [line for line in lines if str(self.cli.root.parent) in line]

    def mounts(self) -> list[str]:
        """Its mount points below the state root."""
        lines = Path(f"/proc/{self.pid}/mountinfo").read_text(encoding="utf-8").splitlines()
        state = f"{self.cli.root}/"
        return [line.split()[4].removeprefix(state) for line in lines if line.split()[4].startswith(state)]


@pytest.fixture(params=["private", "shared"])
def host(cli: Cli, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Host]:
    """The namespace."""
    rootfs = tmp_path / "rootfs"
    subprocess.run(["cp", "-a", cli.rootfs, rootfs], check=True)
    cli.root.mkdir(exist_ok=True)
    script = (
        f"mount -t tmpfs -o mode=700 shared {cli.root}; mount --make-{request.param} {cli.root}; echo; exec sleep 60"
    )
    command = ["unshare", "--mount", "--propagation=private", "sh", "-euc", script]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"\n"
            yield Host(process.pid, cli, rootfs)
        finally:
            process.kill()


def test_it_is_in_the_hosts_namespace_with_mounts_of_its_own(host: Host) -> None:
    """Its root, its mounts, masks and read-only paths are there; a second process has them too."""
    name = host.start("sleep 30")
    script = "readlink /proc/self/ns/mnt; ls /; stat -c %t:%T /proc/keys /dev/null; touch /x /proc/sys/x /vol/new; pwd"
    done = host.run("exec", name, "sh", "-c", script)
    lines = done.stdout.splitlines()
    shown = host.mounts()
    deleted = host.run("delete", "--force", name)

    assert lines[0] == os.readlink(f"/proc/{host.pid}/ns/mnt")
    assert "bin" in lines
    assert "vol" in lines
    assert lines[-3:] == ["1:3", "1:3", "/"]
    assert "touch: /x: Read-only file system" in done.stderr
    assert {f"{name}/root", f"{name}/root/proc", f"{name}/root/dev/pts", f"{name}/root/vol"} <= set(shown)
    assert (deleted.returncode, host.mounts()) == (0, [])
    assert (host.rootfs / "bin/busybox").exists()
    assert (host.rootfs / "etc/new").exists()


@pytest.mark.parametrize("mode", ["", "shared", "slave", "unbindable", "runbindable"])
def test_propagation_of_its_root(host: Host, mode: str) -> None:
    """As asked for, and private unless asked; only its own mounts are changed."""
    before = host.own()
    host.write("cat /proc/self/mountinfo")
    config = json.loads((host.cli.bundle / "config.json").read_text())
    config["linux"]["rootfsPropagation"] = mode
    (host.cli.bundle / "config.json").write_text(json.dumps(config))
    done = host.run("run", "--bundle", str(host.cli.bundle), host.cli.new_id())
    lines = [line.partition(" - ")[0].split() for line in done.stdout.splitlines()]
    kinds = {line[4]: {word.partition(":")[0] for word in line[6:]} for line in lines}

    assert done.returncode == 0, done
    assert kinds["/"] - {"master"} == {"": set(), "slave": set(), "runbindable": {"unbindable"}}.get(mode, {mode})
    assert kinds["/proc"] == ({"unbindable"} if mode == "runbindable" else set())
    assert host.own() == before


def test_its_end_takes_the_mounts_away(host: Host) -> None:
    """In the foreground, where nobody deletes it."""
    host.write("ls /; exit 3")
    done = host.run("run", "--bundle", str(host.cli.bundle), host.cli.new_id())

    assert (done.returncode, "vol" in done.stdout.split()) == (3, True), done
    assert host.mounts() == []
    assert (host.rootfs / "bin/busybox").exists()


def test_a_failed_create_takes_them_away(host: Host) -> None:
    """Whatever had been mounted when it failed."""
    host.write("true")
    config = json.loads((host.cli.bundle / "config.json").read_text())
    config["mounts"].append({"destination": "/late", "type": "nosuchfs", "source": "x"})
    (host.cli.bundle / "config.json").write_text(json.dumps(config))
    name = host.cli.new_id()
    done = host.run("create", "--bundle", str(host.cli.bundle), name)

    assert (done.returncode, "nosuchfs" in done.stderr) == (1, True)
    assert host.mounts() == []
    assert not (host.cli.root / name).exists()
    assert (host.rootfs / "bin/busybox").exists()


def test_what_a_killed_runtime_left_is_deleted(host: Host) -> None:
    """The state directory holds the mounts, so that a later delete finds and detaches them, and nothing below them."""
    name = host.start("sleep 30")
    init = json.loads(host.run("state", name).stdout)["pid"]
    os.kill(init, signal.SIGKILL)
    document = f"/proc/{host.pid}/root{host.cli.root}/{name}/state.json"
    kept = json.loads(Path(document).read_text())
    Path(document).write_text(json.dumps({**kept, "pid": 0, "start_time": 0}))
    before = host.mounts()
    done = host.run("delete", "--force", name)

    assert f"{name}/root" in before
    assert (done.returncode, host.mounts()) == (0, []), done
    assert (host.rootfs / "bin/busybox").exists()
