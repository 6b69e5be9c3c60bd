"""What comes from around a process: its stdio's owner, its environment, its fds, and nothing else of ours."""

import json
import os
import platform
import shlex
import signal
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Cli, Config, Edit
from tests.programs import write_calls
from tests.requires import requires

pytestmark = [requires("root"), pytest.mark.lane("v2")]


def _as(uid: int, env: list[str] | None = None) -> Edit:
    def edit(config: Config) -> None:
        config["process"]["user"] = {"uid": uid, "gid": uid}
        if env is not None:
            config["process"]["env"] = env

    return edit


@pytest.fixture
def own_rootfs(cli: Cli, busybox_rootfs: Path, tmp_path: Path) -> Path:
    """A root file system that the test may spoil; the command line's bundles have it."""
    cli.rootfs = tmp_path / "rootfs"
    subprocess.run(["cp", "-a", busybox_rootfs, cli.rootfs], check=True)
    return cli.rootfs


@pytest.mark.conforms("config: $.process.user.uid")
def test_stdio_belongs_to_the_user(cli: Cli) -> None:
    """So that it can open /dev/stdout anew; also for an exec."""
    script = "cat </dev/stdin; echo out >/dev/stdout; echo err >/dev/stderr"
    cli.write("sh", "-c", script, edit=_as(1000))
    done = cli("run", cli.new_id(), input="in\n")
    name = cli.running("sleep", "60")
    executed = cli("exec", "--user", "1000", name, "sh", "-c", script, input="in\n")
    cli.ok("delete", "--force", name)

    assert (done.code, done.out, done.err) == (0, "in\nout\n", "err\n")
    assert (executed.code, executed.out, executed.err) == (0, "in\nout\n", "err\n")


def test_dev_null_stays_the_hosts(cli: Cli, tmp_path: Path) -> None:
    """And so does a log: only pipes are given to the user."""
    before = os.stat("/dev/null").st_uid
    cli.write("true", edit=_as(before + 1))
    log = tmp_path / "log"
    with log.open("w") as out:
        null = subprocess.DEVNULL
        subprocess.run(
            cli.command("run", cli.new_id()), check=True, stdin=null, stdout=out, stderr=null, cwd=cli.bundle
        )

    assert log.stat().st_uid == 0
    assert os.stat("/dev/null").st_uid == before


@pytest.mark.conforms("config: $.process.env")
@pytest.mark.parametrize(
    "uid, env, home",
    [
        (0, ["A=1"], "/root"),
        (1000, ["A=1"], "/tmp"),
        (1000, ["HOME="], "/tmp"),
        (77, [], "/"),
        (1000, ["HOME=/mine"], "/mine"),
    ],
)
def test_home_is_the_images(cli: Cli, uid: int, env: list[str], home: str) -> None:
    """From its /etc/passwd where the config has none, ``/`` where that does not know the user."""
    cli.write("/bin/busybox", "env", edit=_as(uid, env))
    seen = dict(line.split("=", 1) for line in cli.ok("run", cli.new_id()).splitlines())

    assert seen["HOME"] == home
    assert seen.keys() == {"HOME", *(item.split("=")[0] for item in env)}


def test_an_exec_finds_its_own_home(cli: Cli) -> None:
    """By its user, not by the container's."""
    name = cli.running("sleep", "60", edit=_as(0, ["PATH=/bin"]))
    seen = cli.ok("exec", "--user", "1000", name, "sh", "-c", "echo $HOME")
    cli.ok("delete", "--force", name)

    assert seen == "/tmp\n"


@pytest.mark.conforms("config: $.process.env")
def test_of_a_variable_given_twice_the_last_counts(cli: Cli) -> None:
    """The program sees it once."""
    cli.write("/bin/busybox", "env", edit=_as(0, ["A=1", "HOME=/x", "A=2=3", "B=", "A=last"]))

    assert cli.ok("run", cli.new_id()).split() == ["A=last", "HOME=/x", "B="]


def _as_activated(command: list[str], file: Path) -> str:
    words = shlex.join(command)
    done = subprocess.run(
        ["sh", "-c", f"export LISTEN_FDS=1 LISTEN_PID=$$; exec {words} 3<{shlex.quote(str(file))}"],
        check=True,
        capture_output=True,
        text=True,
        cwd=file.parent,
    )
    return done.stdout


@pytest.mark.parametrize("pid_namespace", [True, False])
def test_activation_fds_come_with_the_programs_own_pid(cli: Cli, *, pid_namespace: bool) -> None:
    """Or sd_listen_fds(3) would take them for somebody else's."""

    def share(config: Config) -> None:
        if not pid_namespace:
            spaces = config["linux"]["namespaces"]
            config["linux"]["namespaces"] = [each for each in spaces if each["type"] != "pid"]

    cli.write("sh", "-c", "head -c 1 <&3; echo $LISTEN_FDS $LISTEN_PID $$", edit=share)
    seen = _as_activated(cli.command("run", cli.new_id()), cli.bundle / "config.json")
    count, pid, own = seen.removeprefix("{").split()

    assert (count, pid) == ("1", own)
    assert pid_namespace == (own == "1")


def test_activation_fds_of_an_exec(cli: Cli) -> None:
    """Its pid is not 1."""
    name = cli.running("sleep", "60")
    command = cli.command("exec", name, "sh", "-c", "head -c 1 <&3; echo $LISTEN_FDS $LISTEN_PID $$")
    seen = _as_activated(command, cli.bundle / "config.json")
    cli.ok("delete", "--force", name)
    count, pid, own = seen.removeprefix("{").split()

    assert (count, pid) == ("1", own)


def test_activation_meant_for_somebody_else_is_not_passed_on(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """LISTEN_PID says whose it is."""
    monkeypatch.setenv("LISTEN_FDS", "1")
    monkeypatch.setenv("LISTEN_PID", "1")
    cli.write("sh", "-c", "env; ls /proc/self/fd")
    seen = cli.ok("run", cli.new_id())

    assert "LISTEN" not in seen
    assert seen.split()[-4:] == ["0", "1", "2", "3"]


def _spoil() -> None:
    for number in (signal.SIGUSR1, signal.SIGPIPE, signal.SIGCHLD, signal.SIGTERM, signal.SIGHUP, signal.SIGRTMIN + 3):
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2, signal.SIGINT, signal.SIGTERM, signal.SIGRTMIN + 4])


def _wait_for(path: Path, text: str) -> None:
    deadline = time.monotonic() + 5
    while text not in path.read_text() and time.monotonic() < deadline:
        time.sleep(0.01)


@pytest.mark.parametrize("detached", [True, False])
def test_nothing_of_a_monitor_reaches_the_container(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, detached: bool
) -> None:
    """Conmon's pipes are open at 3 and 4 and named in its environment; signals are ignored and blocked."""
    monkeypatch.setenv("_OCI_SYNCPIPE", "3")
    monkeypatch.setenv("_OCI_STARTPIPE", "4")
    pipes = [os.pipe() for _ in range(4)]
    ends = [write for _read, write in pipes]
    out, text = tmp_path / "out", ""
    script = "ls /proc/self/fd; env; grep -E 'Sig(Blk|Ign|Cgt)|ShdPnd' /proc/self/status; true"
    cli.write("sh", "-c", f"{script}; exec sleep 60", edit=_as(0, ["HOME=/", "PATH=/bin"]))
    name = cli.new_id()
    more: dict[str, Any] = {"pass_fds": ends, "preexec_fn": _spoil, "cwd": cli.bundle, "stdin": subprocess.DEVNULL}
    for words in (["run", "--detach", name], *([] if detached else [["exec", name, "sh", "-c", script]])):
        with out.open("w") as file:
            subprocess.run(cli.command(*words), check=True, stdout=file, stderr=file, **more)
        _wait_for(out, "ShdPnd")
        text = out.read_text()
        out = tmp_path / "exec"
    for end in ends:
        os.close(end)
    held = [os.read(read, 1) for read, _write in pipes]  # an end that is still held would keep us here
    lines = text.splitlines()
    cli.ok("delete", "--force", name)
    for read, _write in pipes:
        os.close(read)

    assert held == [b""] * 4
    assert lines[:4] == ["0", "1", "2", "3"]
    assert {line.split("=")[0] for line in lines if "=" in line} <= {"HOME", "PATH", "PWD", "SHLVL", "OLDPWD"}
    masks = {line.split(":")[0]: int(line.split()[1], 16) for line in lines if ":\t" in line}
    assert {key: masks[key] for key in ("SigBlk", "SigIgn", "SigCgt", "ShdPnd")} == dict.fromkeys(masks, 0)


def test_a_created_container_holds_nothing_of_its_maker(cli: Cli) -> None:
    """While it waits for its start: a monitor reads its pipe to the end."""
    read, write = os.pipe()
    left, right = socket.socketpair()
    name = cli.new_id()
    cli.write("sleep", "60")
    null = subprocess.DEVNULL
    subprocess.run(
        cli.command("create", name),
        check=True,
        stdin=null,
        stdout=null,
        stderr=null,
        cwd=cli.bundle,
        pass_fds=[write, right.fileno()],
    )
    os.close(write)
    right.close()
    pid = json.loads(cli.ok("state", name))["pid"]
    ends = [os.read(read, 1), left.recv(1)]
    links = [os.readlink(f"/proc/{pid}/fd/{number}") for number in os.listdir(f"/proc/{pid}/fd")]
    cli.ok("delete", name)
    os.close(read)
    left.close()

    assert ends == [b"", b""]
    assert [link for link in links if link.startswith("pipe")] == []


class _Manager:
    """What waits for READY=1, as systemd does; it answers barriers by closing what it was sent."""

    def __init__(self, path: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(path)
        self._socket.settimeout(10)
        self.said: list[str] = []

    def hear(self, count: int) -> list[str]:
        """The next words."""
        for _word in range(count):
            data, passed, _flags, _from = socket.recv_fds(self._socket, 4096, 4)
            for fd in passed:
                os.close(fd)
            self.said.append(data.decode())
        return self.said

    def is_silent(self) -> bool:
        """Whether nothing more was said."""
        self._socket.settimeout(0.05)
        try:
            self.said.append(self._socket.recv(4096).decode())
        except TimeoutError:
            return True
        return False

    def close(self) -> None:
        """Stop."""
        self._socket.close()


_SOCKET, _SENDTO = 41, 44


@pytest.fixture
def telling_rootfs(own_rootfs: Path) -> Path:
    """A root file system with programs that say something at the place where NOTIFY_SOCKET should be."""
    address = struct.pack("<H108s", socket.AF_UNIX, b"/run/notify/notify.sock")
    for name, word in (("ready", b"READY=1"), ("lie", b"MAINPID=1"), ("both", b"STATUS=up\nREADY=1")):
        send = (_SENDTO, 3, word, len(word), 0, address, len(address))
        write_calls(own_rootfs / name, (_SOCKET, socket.AF_UNIX, socket.SOCK_DGRAM, 0), send)
    return own_rootfs


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[_Manager]:
    """Who waits for us."""
    manager = _Manager(str(tmp_path / "manager.sock"))
    yield manager
    manager.close()


@pytest.mark.skipif(platform.machine() != "x86_64", reason="this kernel lacks x86-64's numbers")
@pytest.mark.parametrize("verb", ["run", "detach", "start"])
@pytest.mark.parametrize("word", ["ready", "both"])
def test_readiness_is_passed_on(
    cli: Cli, telling_rootfs: Path, manager: _Manager, tmp_path: Path, verb: str, word: str
) -> None:
    """READY=1 and the init's pid, and nothing else that the container says; start waits for it."""
    assert telling_rootfs.exists()
    environment = {**os.environ, "NOTIFY_SOCKET": str(tmp_path / "manager.sock")}
    name = cli.new_id()
    cli.write("sh", "-c", f"/lie && /lie && sleep 0.2 && /{word}; /lie; sleep 60")
    began = time.monotonic()
    words = {"run": ["run", name], "detach": ["run", "--detach", name], "start": ["start", name]}[verb]
    if verb == "start":
        assert cli.quiet("create", name, env=environment) == 0
    null = subprocess.DEVNULL
    with cli.popen(*words, stdin=null, stdout=null, stderr=null, env=environment) as process:
        heard = threading.Thread(target=manager.hear, args=[2])
        heard.start()
        heard.join(10)
        took = time.monotonic() - began
        pid = json.loads(cli.ok("state", name))["pid"]
        code = None if verb == "run" else process.wait(10)
        cli.ok("delete", "--force", name)
        process.wait(10)

    assert manager.said == [f"READY=1\nMAINPID={pid}\n", "BARRIER=1"]
    assert took > 0.2
    assert code in (None, 0)
    assert manager.is_silent()


def test_a_container_that_ends_is_not_waited_for(cli: Cli, own_rootfs: Path, manager: _Manager, tmp_path: Path) -> None:
    """It can never become ready."""
    assert own_rootfs.exists()
    environment = {**os.environ, "NOTIFY_SOCKET": str(tmp_path / "manager.sock")}
    name = cli.new_id()
    cli.write("sh", "-c", "echo $NOTIFY_SOCKET; ls /run/notify")
    done = cli("run", name, env=environment)

    assert (done.code, done.out) == (0, "/run/notify/notify.sock\nnotify.sock\n")
    assert manager.is_silent()
