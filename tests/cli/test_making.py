"""Options that the verbs which make processes share: the same must hold for each of them."""

import ctypes
import functools
import json
import os
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Cli, Runc
from tests.requires import requires

pytestmark = [requires("root"), pytest.mark.lane("v2")]

MAKERS = pytest.mark.parametrize("words", [["create"], ["run", "--detach"]], ids=["create", "run"])


def _pid(cli: Cli, name: str) -> int:
    pid: int = json.loads(cli.ok("state", name))["pid"]
    return pid


@MAKERS
@pytest.mark.conforms("cli: create --bundle", "cli: run --bundle")
def test_the_bundle_is_named(either: Cli, tmp_path: Path, words: list[str]) -> None:
    """From anywhere; the directory where the command runs has no config.json."""
    name = either.new_id()
    either.write("sleep", "60")
    null = subprocess.DEVNULL
    subprocess.run(
        either.command(*words, "--bundle", either.bundle, name),
        check=True,
        stdin=null,
        stdout=null,
        stderr=null,
        cwd=tmp_path,
    )
    state = json.loads(either.ok("state", name))
    missing = either(*words, either.new_id(), cwd=tmp_path)
    either.ok("delete", "--force", name)

    assert state["bundle"] == str(either.bundle)
    assert (missing.code, "config.json" in missing.err) == (1, True)


@pytest.mark.conforms("cli: create --preserve-fds", "cli: run --preserve-fds", "cli: exec --preserve-fds")
@pytest.mark.parametrize("verb", ["create", "run", "exec"])
def test_fds_are_preserved(either: Cli, tmp_path: Path, verb: str) -> None:
    """As many as asked for, with their numbers; those behind them are not passed."""
    script = "cat <&3; cat <&4; test -e /proc/self/fd/5 || echo no more"
    for number in (3, 4, 5):
        (tmp_path / str(number)).write_text(f"file {number}\n")
    name = either.running("sleep", "60") if verb == "exec" else either.new_id()
    either.write("sh", "-c", script)
    words = [verb, "--preserve-fds=2", name, *(["sh", "-c", script] if verb == "exec" else [])]
    opened = " ".join(f"{number}<{shlex.quote(str(tmp_path / str(number)))}" for number in (3, 4, 5))
    with (tmp_path / "out").open("w") as out:
        subprocess.run(
            ["sh", "-c", f"exec {shlex.join(either.command(*words))} {opened}"],
            check=True,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            cwd=either.bundle,
        )
    if verb == "create":
        either.ok("start", name)
        either.wait_for(name, "stopped")
    either.ok("delete", "--force", name)

    assert (tmp_path / "out").read_text() == "file 3\nfile 4\nno more\n"


@MAKERS
@pytest.mark.parametrize("flags", [[], ["--no-new-keyring"]], ids=["new", "the caller's"])
@pytest.mark.conforms("cli: create --no-new-keyring", "cli: run --no-new-keyring")
def test_whose_session_keyring(either: Cli, tmp_path: Path, words: list[str], flags: list[str]) -> None:
    """One of the container's own, or by that option the caller's with whatever it holds."""
    if not Path("/proc/keys").exists():
        pytest.skip("this kernel lacks keyrings")
    name = either.new_id()

    def unmask(config: dict[str, Any]) -> None:
        config["linux"]["maskedPaths"].remove("/proc/keys")

    either.write("cat", "/proc/keys", edit=unmask)
    with (tmp_path / "out").open("w") as out:
        subprocess.run(
            either.command(*words, *flags, name),
            check=True,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            cwd=either.bundle,
            preexec_fn=lambda: _join_session_keyring(f"of-the-caller-of-{name}"),
        )
    if words == ["create"]:
        either.ok("start", name)
    either.wait_for(name, "stopped")
    either.ok("delete", name)

    assert (f" of-the-caller-of-{name}: " in (tmp_path / "out").read_text()) == bool(flags)


def _join_session_keyring(name: str) -> None:
    """Into a new one that nobody sees but who has it, not even others of the same user: keyctl(2)."""
    keyctl = functools.partial(ctypes.CDLL(None).syscall, 250 if os.uname().machine == "x86_64" else 219)
    keyctl(1, name.encode())  # KEYCTL_JOIN_SESSION_KEYRING
    keyctl(5, -3, 0x3F000000)  # KEYCTL_SETPERM of KEY_SPEC_SESSION_KEYRING: all to the possessor alone


@MAKERS
@pytest.mark.parametrize("flags", [[], ["--no-pivot"]], ids=["pivot", "no-pivot"])
@pytest.mark.conforms("cli: create --no-pivot", "cli: run --no-pivot")
def test_what_lies_below_the_root(either: Cli, tmp_path: Path, words: list[str], flags: list[str]) -> None:
    """Nothing of the host, or by that option the host's root: whoever may unmount in there can lay it bare."""
    name = either.new_id()
    (tmp_path / "of the host").touch()
    either.write("sleep", "60")
    assert either.quiet(*words, *flags, name) == 0
    pid = _pid(either, name)
    mounts = Path(f"/proc/{pid}/mountinfo").read_text()
    assert os.readlink(f"/proc/{pid}/ns/mnt") != os.readlink("/proc/self/ns/mnt"), "it would be the host's that goes"
    assert " shared:" not in mounts, "and this would be seen by the host"
    inside = ["nsenter", f"--mount=/proc/{pid}/ns/mnt"]
    covered = subprocess.run([*inside, "ls", tmp_path / "of the host"], check=False, capture_output=True).returncode
    subprocess.run([*inside, "umount", "-l", "/"], check=True)
    bared = subprocess.run([*inside, "ls", tmp_path / "of the host"], check=False, capture_output=True).returncode
    either.ok("delete", "--force", name)

    assert covered != 0
    assert (bared == 0) == bool(flags)


@requires("cgroup")
@pytest.mark.conforms("cli: run --no-subreaper")
@pytest.mark.parametrize("flags", [[], ["--no-subreaper"]], ids=["without", "with"])
def test_orphans_are_not_adopted(either: Cli, flags: list[str]) -> None:
    """Those of a container that shares the host's pids go to the host's init; runc adopts them unless told not to."""

    def share(config: dict[str, Any]) -> None:
        spaces = config["linux"]["namespaces"]
        config["linux"]["namespaces"] = [each for each in spaces if each["type"] != "pid"]

    name = either.new_id()
    either.write("sh", "-c", "sh -c 'sleep 60 & echo $!'; sleep 60", edit=share)
    with either.popen("run", *flags, name) as process:
        assert process.stdout is not None
        orphan = int(process.stdout.readline())
        init = _pid(either, name)
        status = Path(f"/proc/{orphan}/status").read_text()
        either("kill", "--all", name, "KILL")  # runc may complain of what ended meanwhile
        process.wait(10)
    parent = int(next(line for line in status.splitlines() if line.startswith("PPid:")).split()[1])

    assert (parent == process.pid) == (isinstance(either, Runc) and not flags)
    assert parent != init


@pytest.mark.conforms("cli: --root")
def test_a_container_is_known_below_its_root_alone(either: Cli, tmp_path: Path) -> None:
    """Its state lies there; elsewhere the id is nobody's."""
    name = either.running("sleep", "60")
    other = either("--root", tmp_path / "other", "state", name)
    elsewhere = either("--root", tmp_path / "other", "list", "--quiet")
    here = either.ok("list", "--quiet")
    either.ok("delete", "--force", name)

    assert (other.code, "container does not exist" in other.err) == (1, True)
    assert (elsewhere.code, elsewhere.out, here) == (0, "", f"{name}\n")
