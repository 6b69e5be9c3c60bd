"""Terminals: the user's, as a pty of ours, and those handed over by a console socket."""

import array
import fcntl
import os
import signal
import socket
import struct
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Cli
from tests.requires import requires
from tests.terminals import User

pytestmark = requires("root")


@contextmanager
def _at_terminal(cli: Cli, *args: str, stdout: int | None = None) -> Iterator[User]:
    user = User(cli.command(*args), cli.bundle, stdout=stdout)
    try:
        yield user
    finally:
        user.leave()


def _terminal(config: dict[str, Any]) -> None:
    config["process"]["terminal"] = True


@pytest.mark.conforms("config: $.process.terminal")
def test_the_program_has_a_terminal(cli: Cli) -> None:
    """Its own, with the size of the user's, as its controlling one and as /dev/console."""
    script = "tty; stty size; echo ok >/dev/tty; ls -l /dev/console | cut -c1; exit 3"
    cli.write("sh", "-c", script, edit=_terminal)
    with _at_terminal(cli, "run", cli.new_id()) as user:
        code = user.end()

    assert code == 3
    assert user.seen.split() == ["/dev/pts/0", "24", "80", "ok", "c"]


def test_a_shell_can_be_talked_to(cli: Cli) -> None:
    """Keys go in, output comes out, Ctrl-C and Ctrl-D mean what they mean, and the terminal is as before."""
    cli.write("sh", edit=_terminal)
    with _at_terminal(cli, "run", cli.new_id()) as user:
        user.expect("# ")
        user.type("echo $((6 * 7))\r")
        user.expect("42")
        user.type("sleep 60\r")
        user.expect("sleep 60\r\n")
        time.sleep(0.2)
        user.type("\x03")
        user.expect("# ")
        user.type("echo code $?\r")
        user.expect("code 130")
        user.expect("# ")
        user.type("\x04")
        code = user.end()
        after = termios.tcgetattr(user.slave)

    assert code == 0
    assert after == user.before


def test_the_size_follows_the_window(cli: Cli) -> None:
    """SIGWINCH arrives inside, and the new size with it."""
    cli.write("sh", "-c", "trap 'stty size; exit 4' WINCH; echo ready; while :; do sleep 0.05; done", edit=_terminal)
    with _at_terminal(cli, "run", cli.new_id()) as user:
        user.expect("ready")
        user.resize(50, 132)
        code = user.end()

    assert (code, user.seen.split()) == (4, ["ready", "50", "132"])


def test_the_terminal_is_restored_after_a_death(cli: Cli) -> None:
    """However the container ends."""
    name = cli.new_id()
    cli.write("sh", "-c", "echo ready; sleep 60", edit=_terminal)
    with _at_terminal(cli, "run", name) as user:
        user.expect("ready")
        raw = termios.tcgetattr(user.slave)
        cli.ok("kill", name, "KILL")
        code = user.end()
        after = termios.tcgetattr(user.slave)

    assert code == 137
    assert not raw[3] & termios.ECHO
    assert after == user.before


def test_signals_reach_a_program_with_a_terminal(cli: Cli) -> None:
    """From others than the keyboard."""
    cli.write("sh", "-c", "trap 'exit 42' TERM; echo ready; while :; do sleep 0.05; done", edit=_terminal)
    with _at_terminal(cli, "run", cli.new_id()) as user:
        user.expect("ready")
        user.process.send_signal(signal.SIGTERM)

        assert user.end() == 42


def test_output_to_a_file_has_plain_newlines(cli: Cli, tmp_path: Path) -> None:
    """As runc's: the carriage returns are the user's terminal's."""
    cli.write("sh", "-c", "seq 3", edit=_terminal)
    with (tmp_path / "out").open("wb") as file, _at_terminal(cli, "run", cli.new_id(), stdout=file.fileno()) as user:
        code = user.end()

    assert (code, (tmp_path / "out").read_bytes()) == (0, b"1\n2\n3\n")


def test_a_flood_is_not_lost(cli: Cli, tmp_path: Path) -> None:
    """What was printed last before the end as well."""
    cli.write("sh", "-c", "seq 100000", edit=_terminal)
    with (tmp_path / "out").open("wb") as file, _at_terminal(cli, "run", cli.new_id(), stdout=file.fileno()) as user:
        code = user.end(30)

    assert code == 0
    assert (tmp_path / "out").read_text().split() == [str(number) for number in range(1, 100001)]


def test_without_a_terminal_of_ours_there_is_none_to_give(cli: Cli) -> None:
    """As runc's: nothing is made, and it says what to do."""
    cli.write("sh", edit=_terminal)
    done = cli("run", cli.new_id(), start_new_session=True)

    assert (done.code, done.out) == (1, "")
    assert done.err.startswith("ocirun: give the process a terminal: we have none ourselves")
    assert "--console-socket" in done.err


@pytest.mark.conforms("cli: exec --tty")
def test_exec_gives_a_terminal(cli: Cli) -> None:
    """Of the container's own devpts, with the size of the user's."""
    name = cli.running("sleep", "60")
    with _at_terminal(cli, "exec", "-t", name, "sh", "-c", "tty; stty size; test -t 2; exit $?") as user:
        code = user.end()
    cli.ok("delete", "--force", name)

    assert (code, user.seen.split()) == (0, ["/dev/pts/0", "24", "80"])


def test_exec_in_a_terminal_without_one(cli: Cli) -> None:
    """Without -t a process run from a terminal has ours, as runc does it."""
    name = cli.running("sleep", "60")
    with _at_terminal(cli, "exec", name, "sh", "-c", "test -t 1; echo $?") as user:
        code = user.end()
    cli.ok("delete", "--force", name)

    assert (code, user.seen.split()) == (0, ["0"])


class Console:
    """The receiving side of a console socket."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.settimeout(10)
        parent = os.open(path.parent, os.O_PATH)
        self.listener.bind(f"/proc/self/fd/{parent}/{path.name}")
        os.close(parent)
        self.listener.listen(1)

    def master(self) -> int:
        """Take the one connection's fd."""
        connection, _address = self.listener.accept()
        fds = array.array("i")
        data, ancillary, _flags, _from = connection.recvmsg(64, socket.CMSG_SPACE(4))
        fds.frombytes(ancillary[0][2])
        connection.close()
        self.listener.close()
        assert data
        return fds[0]


def _read_all(master: int) -> str:
    data = b""
    while True:
        try:
            part = os.read(master, 4096)
        except OSError:
            break
        if not part:
            break
        data += part
    os.close(master)
    return data.decode()


@pytest.mark.conforms("cli: create --console-socket")
@pytest.mark.parametrize("depth", [1, 40])
def test_a_detached_terminal_goes_to_the_console_socket(cli: Cli, tmp_path: Path, depth: int) -> None:
    """By SCM_RIGHTS, as conmon and containerd expect; also by a path longer than unix(7) allows.

    containerd reads the output of ``create`` to its end: the waiting init must not keep it open.
    """
    folder = tmp_path.joinpath(*["abc"] * depth)
    folder.mkdir(parents=True)
    console = Console(folder / "socket")
    name = cli.new_id()
    cli.write("sh", "-c", "tty; stty size", edit=_terminal)
    cli.ok("create", "--console-socket", console.path, name)
    master = console.master()
    fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("4H", 11, 22, 0, 0))
    cli.ok("start", name)
    text = _read_all(master)
    cli.wait_for(name, "stopped")
    cli.ok("delete", name)

    assert text.split() == ["/dev/pts/0", "11", "22"]


@pytest.mark.conforms("cli: run --console-socket")
def test_the_terminal_of_a_detached_run(cli: Cli, tmp_path: Path) -> None:
    """Its master goes to the socket too."""
    console = Console(tmp_path / "socket")
    name = cli.new_id()
    cli.write("sh", "-c", "tty; read line; echo $line", edit=_terminal)
    assert cli.quiet("run", "--detach", "--console-socket", console.path, name) == 0
    master = console.master()
    os.write(master, b"typed\n")
    text = _read_all(master)
    cli.wait_for(name, "stopped")
    cli.ok("delete", name)

    assert text.split() == ["/dev/pts/0", "typed", "typed"]


@pytest.mark.conforms("cli: exec --console-socket")
def test_exec_detached_with_a_terminal(cli: Cli, tmp_path: Path) -> None:
    """As conmon execs."""
    name = cli.running("sleep", "60")
    console = Console(tmp_path / "socket")
    cli.ok("exec", "-t", "-d", "--console-socket", console.path, name, "sh", "-c", "tty; sleep 0.2")
    text = _read_all(console.master())
    cli.ok("delete", "--force", name)

    assert text.split() == ["/dev/pts/0"]


@pytest.mark.conforms("config: $.process.consoleSize")
def test_the_consoles_size_is_the_configs(cli: Cli, tmp_path: Path) -> None:
    """process.consoleSize counts where nobody else gives a size."""
    console = Console(tmp_path / "socket")
    name = cli.new_id()

    def edit(config: dict[str, Any]) -> None:
        config["process"] |= {"terminal": True, "consoleSize": {"height": 10, "width": 110}}

    cli.write("stty", "size", edit=edit)
    assert cli.quiet("create", "--console-socket", console.path, name) == 0
    cli.ok("start", name)
    text = _read_all(console.master())
    cli.wait_for(name, "stopped")
    cli.ok("delete", name)

    assert text.split() == ["10", "110"]


@pytest.mark.parametrize(
    "words, terminal, complaint",
    [
        (["create"], True, "give a detached process a terminal: nobody would hold its other end"),
        (["run", "-d"], True, "give a detached process a terminal: nobody would hold its other end"),
        (["create", "--console-socket", "/x"], False, "use --console-socket: it is for a detached process with a"),
        (["run", "--console-socket", "/x"], True, "use --console-socket: it is for a detached process with a"),
        (["create", "--console-socket", "/nosuch/x"], True, "connect to the console socket /nosuch/x: No such file"),
    ],
)
def test_consoles_and_terminals_go_together(cli: Cli, words: list[str], terminal: bool, complaint: str) -> None:
    """What makes no sense is refused before anything is made."""
    cli.write("true", edit=_terminal if terminal else None)
    done = cli(*words, cli.new_id())

    assert (done.code, done.out) == (1, "")
    assert done.err.startswith(f"ocirun: {complaint}")
