"""Propagation as seen from both sides: a bundle and a volume below a shared mount of the host, and what reaches whom.

The host here is a mount namespace of the test's own, with one shared tmpfs in it.
"""

import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Cli, Config
from tests.requires import requires

pytestmark = [requires("root", "busybox"), pytest.mark.conforms("config: $.linux.rootfsPropagation")]

MODES = ["", "private", "rprivate", "slave", "rslave", "shared", "rshared", "unbindable", "runbindable"]


@dataclass(frozen=True, slots=True)
class Host:
    """A mount namespace that stands for the host's.

    Attributes:
        pid: a process in it.
        shared: its shared tmpfs, with ``rootfs`` and ``vol`` in it.
    """

    pid: int
    shared: Path

    def run(self, *args: str | Path) -> str:
        """Run a command there; what it printed."""
        command = ["nsenter", "--mount", f"--target={self.pid}", *map(str, args)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd="/")
        assert done.returncode == 0, done
        return done.stdout

    def mounts(self) -> list[str]:
        """Its mount points below the shared tmpfs."""
        lines = Path(f"/proc/{self.pid}/mountinfo").read_text(encoding="utf-8").splitlines()
        return [line.split()[4] for line in lines if line.split()[4].startswith(f"{self.shared}/")]


@pytest.fixture
def host(tmp_path: Path, busybox_rootfs: Path) -> Iterator[Host]:
    """The namespace, with a root file system and a volume below its shared tmpfs."""
    shared = tmp_path / "shared"
    shared.mkdir()
    script = f"mount -t tmpfs shared {shared}; mount --make-shared {shared}; mkdir {shared}/vol"
    script += f"; cp -a {busybox_rootfs} {shared}/rootfs; echo; exec sleep 60"
    command = ["unshare", "--mount", "--propagation=private", "sh", "-euc", script]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"\n"
            yield Host(process.pid, shared)
        finally:
            process.kill()


@dataclass(frozen=True, slots=True)
class Inside:
    """A container that runs, made in the host's namespace."""

    cli: Cli
    host: Host
    name: str

    def sh(self, script: str) -> subprocess.CompletedProcess[str]:
        """Run a script in it, with the right to mount."""
        document = self.cli.bundle / "process.json"
        process = json.loads((self.cli.bundle / "config.json").read_text())["process"]
        document.write_text(json.dumps({**process, "args": ["sh", "-c", script]}))
        command = self.cli.command("exec", "--process", document, self.name)
        return subprocess.run(
            command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, cwd=self.cli.bundle
        )

    def sees(self, path: str) -> bool:
        """Whether something is mounted there."""
        done = self.sh("cat /proc/self/mountinfo")
        assert done.returncode == 0, done
        return any(line.split()[4] == path for line in done.stdout.splitlines())


def started(cli: Cli, host: Host, mode: str, *options: str, user_namespace: bool = False) -> Inside:
    """A container with that propagation, and the volume with those options."""
    volume: dict[str, Any] = {"destination": "/vol", "source": str(host.shared / "vol"), "options": list(options)}

    def edit(config: Config) -> None:
        config["root"] = {"path": str(host.shared / "rootfs")}
        names = ["CAP_SYS_ADMIN"]
        config["process"]["capabilities"] = dict.fromkeys(("bounding", "effective", "permitted"), names)
        config["linux"]["rootfsPropagation"] = mode
        config["mounts"] += [volume] if options else []
        if user_namespace:
            rows = [{"containerID": 0, "hostID": 100000, "size": 65536}]
            config["linux"] |= {"uidMappings": rows, "gidMappings": rows}
            config["linux"]["namespaces"].append({"type": "user"})

    name = cli.new_id()
    cli.write("sleep", "30", edit=edit)
    command = [
        "nsenter",
        "--mount",
        f"--target={host.pid}",
        *cli.command("run", "--detach", "--bundle", cli.bundle, name),
    ]
    null = subprocess.DEVNULL
    log = cli.bundle / "log"
    with log.open("w") as file:
        done = subprocess.run(command, check=False, stdin=null, stdout=null, stderr=file, cwd=cli.bundle)
    assert done.returncode == 0, log.read_text()
    return Inside(cli, host, name)


@pytest.mark.parametrize("mode", MODES)
def test_what_the_root_receives_and_gives(cli: Cli, host: Host, mode: str) -> None:
    """Only a slave, which is the default as with runc, sees what the host mounts in it; the host never sees a mount."""
    before = host.mounts()
    inside = started(cli, host, mode)
    (made,) = [inside.sh("mkdir /own /late && mount -t tmpfs own /own")]
    host.run("mount", "-t", "tmpfs", "late", host.shared / "rootfs/late")
    received = inside.sees("/late")
    host.run("umount", host.shared / "rootfs/late")
    gone = not inside.sees("/late")

    assert made.returncode == 0, made
    assert inside.sees("/own")
    assert received == (mode in ("", "slave", "rslave"))
    assert gone
    assert host.mounts() == before
    cli.ok("delete", "--force", inside.name)
    assert host.mounts() == before


@pytest.mark.conforms(
    "config: $.linux.rootfsPropagation shared",
    "config: $.linux.rootfsPropagation rshared",
    "config: $.linux.rootfsPropagation unbindable",
    "config: $.linux.rootfsPropagation runbindable",
)
@pytest.mark.parametrize("mode", MODES)
def test_what_the_root_is_to_binds_of_itself(cli: Cli, host: Host, mode: str) -> None:
    """A bind of a shared root is its peer, an unbindable root has no bind, another has one that shows nothing new."""
    inside = started(cli, host, mode)
    bind = inside.sh("mkdir /copy /new && mount -o bind / /copy && mount -t tmpfs new /new")

    assert (bind.returncode == 0) == ("unbindable" not in mode), bind
    assert inside.sees("/copy/new") == (mode in ("shared", "rshared"))
    recursive = inside.sh("mkdir -p /tree && mount -o bind /dev /tree")
    assert (recursive.returncode == 0) == (mode != "runbindable"), recursive
    cli.ok("delete", "--force", inside.name)


@pytest.mark.conforms("config: $.mounts[].options rshared", "config: $.mounts[].options rslave")
@pytest.mark.parametrize(
    "mode, option, to_host, to_container",
    [
        ("rshared", "rshared", True, True),
        ("shared", "shared", True, True),
        ("shared", "rbind", True, True),
        ("shared", "rslave", False, True),
        ("rshared", "rprivate", False, False),
        ("", "rshared", False, True),
        ("rslave", "shared", False, True),
        ("", "rslave", False, True),
        ("", "rprivate", False, False),
        ("", "runbindable", False, False),
        ("", "rbind", False, True),
        ("rprivate", "rbind", False, False),
    ],
)
def test_what_a_volume_gives_and_receives(
    cli: Cli, host: Host, mode: str, option: str, to_host: bool, to_container: bool
) -> None:
    """With a shared root a volume is the host's peer unless it says otherwise; else it is a slave or private."""
    inside = started(cli, host, mode, "rbind", option)
    made = inside.sh("mkdir /vol/new /vol/late && mount -t tmpfs new /vol/new")
    host.run("mount", "-t", "tmpfs", "late", host.shared / "vol/late")

    assert made.returncode == 0, made
    assert (f"{host.shared}/vol/new" in host.mounts()) == to_host
    assert inside.sees("/vol/late") == to_container
    cli.ok("delete", "--force", inside.name)
    assert (f"{host.shared}/vol/new" in host.mounts()) == to_host


@pytest.mark.parametrize("mode", ["rshared", "shared"])
def test_a_user_namespace_gives_nothing(cli: Cli, host: Host, mode: str) -> None:
    """Whatever is asked for, what its root mounts never reaches the host; what the host mounts comes in."""
    for name in ("rootfs/vol", "vol/new", "vol/late"):
        host.run("mkdir", "-m", "777", host.shared / name)
    cli.bundle.chmod(0o755)
    inside = started(cli, host, mode, "rbind", "rshared", user_namespace=True)
    made = inside.sh("mount -t tmpfs new /vol/new")
    host.run("mount", "-t", "tmpfs", "late", host.shared / "vol/late")

    assert made.returncode == 0, made
    assert inside.sees("/vol/new")
    assert f"{host.shared}/vol/new" not in host.mounts()
    assert inside.sees("/vol/late")
    cli.ok("delete", "--force", inside.name)
