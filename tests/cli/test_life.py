"""create, start, state, list, kill, delete."""

import json
import os
import shlex
import signal
import subprocess
import time
from pathlib import Path

import pytest

from pytest_ocirun.oci.runtime import load_config
from pytest_ocirun.runtime.container import Runtime
from pytest_ocirun.runtime.spawner import ZygoteClient
from pytest_ocirun.runtime.stdio import Stdio
from tests.cli.conftest import Cli
from tests.requires import requires

pytestmark = [requires("root"), pytest.mark.lane("v2")]


def _created(cli: Cli, *argv: str) -> str:
    name = cli.new_id()
    cli.write(*argv)
    assert cli.quiet("create", name) == 0
    return name


def test_a_container_from_create_to_delete(either: Cli) -> None:
    """The five states that a user sees, in order."""
    name = _created(either, "sleep", "60")
    seen = [either.status(name)]
    either.ok("start", name)
    seen.append(either.status(name))
    either.ok("kill", name, "KILL")
    either.wait_for(name, "stopped")
    seen.append(either.status(name))
    either.ok("delete", name)

    assert seen == ["created", "running", "stopped"]
    assert "container does not exist" in either("state", name).err


@pytest.mark.conforms("cli: state")
def test_the_state_is_the_specifications(cli: Cli) -> None:
    """With rootfs, created and owner as runc adds them."""
    name = _created(cli, "sleep", "60")
    state = json.loads(cli.ok("state", name))
    cli.ok("delete", "--force", name)

    assert list(state) == ["ociVersion", "id", "pid", "status", "bundle", "rootfs", "created", "owner"]
    assert state["id"] == name
    assert state["pid"] > 1
    assert state["bundle"] == str(cli.bundle)
    assert state["rootfs"] == str(cli.rootfs)
    assert state["owner"] == "root"
    assert state["created"].endswith("Z")


def test_a_stopped_container_has_no_pid(either: Cli) -> None:
    """The pid may be somebody else's by now."""
    name = either.running("true")
    either.wait_for(name, "stopped")
    state = json.loads(either.ok("state", name))
    either.ok("delete", name)

    assert (state["pid"], state["status"]) == (0, "stopped")


@pytest.mark.conforms("cli: create", "cli: start")
def test_the_program_does_not_run_before_the_start(either: Cli, tmp_path: Path) -> None:
    """Create makes the environment only, and its config is the one that counts."""
    out = tmp_path / "out"
    name = either.new_id()
    either.write("echo", "started")
    with out.open("w") as file:
        subprocess.run(
            either.command("create", name), check=True, stdin=subprocess.DEVNULL, stdout=file, cwd=either.bundle
        )
    (either.bundle / "config.json").write_text("changed since")
    before = out.read_text()
    either.ok("start", name)
    either.wait_for(name, "stopped")
    either.ok("delete", name)

    assert (before, out.read_text()) == ("", "started\n")


def test_create_leaves_only_the_init(either: Cli) -> None:
    """Nothing of ours stays, nothing of ours keeps the caller's files open."""
    read, write = os.pipe()
    name = either.new_id()
    either.write("sleep", "60")
    subprocess.run(
        either.command("create", name), check=True, stdin=subprocess.DEVNULL, stdout=write, cwd=either.bundle
    )
    os.close(write)
    processes = [text.split()[0] for _pid, text in either._processes()]
    pid = json.loads(either.ok("state", name))["pid"]
    either.ok("delete", name)
    rest = os.read(read, 1)
    os.close(read)

    assert processes == [str(pid)]
    assert rest == b""


@pytest.mark.conforms("cli: create --pid-file")
def test_the_pid_file_names_the_init(either: Cli, tmp_path: Path) -> None:
    """No newline, and no temporary file beside it."""
    name = either.new_id()
    (tmp_path / "pids").mkdir()
    either.write("sleep", "60")
    assert either.quiet("create", "--pid-file", tmp_path / "pids/pid", name) == 0
    pid = json.loads(either.ok("state", name))["pid"]
    either.ok("delete", name)

    assert (tmp_path / "pids/pid").read_text() == str(pid)
    assert os.listdir(tmp_path / "pids") == ["pid"]


def test_a_pid_file_that_cannot_be_written_undoes_the_container(cli: Cli, tmp_path: Path) -> None:
    """The caller would never learn the pid."""
    name = cli.new_id()
    cli.write("sleep", "60")
    done = cli("create", "--pid-file", tmp_path / "no/pid", name)

    assert (done.code, done.err) == (1, f"ocirun: write the pid file {tmp_path}/no/pid: No such file or directory\n")


def test_an_id_is_taken_once(either: Cli) -> None:
    """The second create fails and the first container is unharmed."""
    name = _created(either, "sleep", "60")
    second = either("create", name)
    third = either("run", name)
    status = either.status(name)
    either.ok("delete", name)

    assert (second.code, third.code, status) == (1, 1, "created")
    assert "container with given ID already exists" in second.err


def test_a_container_starts_once(cli: Cli) -> None:
    """Starting again is an error without effect."""
    name = cli.running("sleep", "60")
    done = cli("start", name)
    status = cli.status(name)
    cli.ok("delete", "--force", name)

    assert (done.code, status) == (1, "running")
    assert f"start container {name}: it is running, not created" in done.err


@pytest.mark.conforms("cli: delete", "cli: delete --force")
def test_a_running_container_is_not_deleted(cli: Cli) -> None:
    """Without --force that is an error without effect, and says how."""
    name = cli.running("sleep", "60")
    done = cli("delete", name)
    status = cli.status(name)
    cli.ok("delete", "--force", name)

    assert (done.code, status) == (1, "running")
    assert f"ocirun delete --force {name}" in done.err


def test_a_stopped_container_takes_no_signal(either: Cli) -> None:
    """Its pid may be somebody else's."""
    name = either.running("true")
    either.wait_for(name, "stopped")
    done = either("kill", name)
    either.ok("delete", name)

    assert (done.code, "container not running" in done.err) == (1, True)


def test_a_stopped_container_is_told_at_once(cli: Cli) -> None:
    """Even while zombies of its pid namespace wait for a slow parent outside."""
    name = cli.running("sleep", "60")
    assert cli.quiet("exec", "--detach", name, "sleep", "60") == 0
    cli.ok("kill", name, "KILL")
    deadline = time.monotonic() + 0.5
    while cli.status(name) != "stopped" and time.monotonic() < deadline:
        pass
    status = cli.status(name)
    cli.ok("delete", name)

    assert status == "stopped"


def _is_reached(cli: Cli, word: str, number: int) -> bool:
    name = cli.new_id()
    cli.write("sh", "-c", f"trap 'echo got' {number}; echo ready; while :; do sleep 0.05; done")
    with cli.popen("run", name) as process:
        assert process.stdout is not None
        ready = process.stdout.readline()
        done = cli("kill", name, word)
        got = process.stdout.readline() if done.code == 0 else ""
        cli.ok("delete", "--force", name)
        process.wait(10)
    return (ready, done.err, got) == ("ready\n", "", "got\n")


@pytest.mark.conforms("cli: kill")
@pytest.mark.parametrize("word", ["USR1", "SIGUSR1", "sigusr1", "10"])
def test_signals_have_many_names(either: Cli, word: str) -> None:
    """Numbers, and names with or without SIG in any case."""
    assert _is_reached(either, word, signal.SIGUSR1)


@pytest.mark.conforms("cli: kill")
@pytest.mark.parametrize("word, number", [("RTMIN+2", signal.SIGRTMIN + 2), ("RTMAX-1", signal.SIGRTMAX - 1)])
def test_real_time_signals_have_names(cli: Cli, word: str, number: int) -> None:
    """By their distance from either end; runc takes their numbers only."""
    assert _is_reached(cli, word, number)
    assert _is_reached(cli, str(int(number)), number)


@pytest.mark.conforms("cli: kill --all")
def test_kill_all_reaches_everything(either: Cli) -> None:
    """Also what does not descend from the init."""
    name = either.running("sh", "-c", "trap '' USR2; while :; do sleep 0.05; done")
    with either.popen(
        "exec", name, "sh", "-c", "trap 'exit 8' USR2; echo ready; while :; do sleep 0.05; done"
    ) as other:
        assert other.stdout is not None
        other.stdout.readline()
        either.ok("kill", "--all", name, "USR2")
        code = other.wait(10)
    status = either.status(name)
    either.ok("kill", "--all", name, "KILL")
    either.wait_for(name, "stopped")
    either.ok("delete", name)

    assert (code, status) == (8, "running")


def test_force_ends_what_ignores_signals(either: Cli) -> None:
    """``delete --force`` is SIGKILL and returns when all is gone."""
    name = either.running("sh", "-c", "trap '' TERM INT HUP; while :; do sleep 60; done")
    either.ok("kill", name, "TERM")
    either.ok("delete", "--force", name)

    assert either.left() == []


def test_list_shows_what_runc_shows(cli: Cli) -> None:
    """A table with runc's columns, JSON, or ids."""
    first, second = cli.running("sleep", "60"), cli.running("true")
    cli.wait_for(second, "stopped")
    table = cli.ok("list").splitlines()
    states = json.loads(cli.ok("list", "--format", "json"))
    quiet = cli.ok("list", "--quiet").split()
    for name in (first, second):
        cli.ok("delete", "--force", name)

    assert table[0].split() == ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"]
    assert [line.split()[0] for line in table[1:]] == quiet == [first, second]
    assert [line.split()[2] for line in table[1:]] == ["running", "stopped"]
    assert [state["status"] for state in states] == ["running", "stopped"]
    assert len({line.index(str(cli.bundle)) for line in table[1:]}) == 1


def test_containers_of_a_zygote_are_listed(cli: Cli) -> None:
    """What a fixture holds can be looked at and entered from outside, and goes with its maker."""
    name = cli.new_id()
    cli.write("unused")
    config = load_config((cli.bundle / "config.json").read_bytes())
    zygote = ZygoteClient(str(cli.root))
    null = os.open(os.devnull, os.O_RDWR)
    try:
        runtime = Runtime(zygote, str(cli.root))
        child = runtime.create(name, str(cli.bundle), config, Stdio(null, null, null), holder=True)
        runtime.start(name)
        listed = [(state["id"], state["status"]) for state in json.loads(cli.ok("list", "--format", "json"))]
        inside = cli.ok("exec", name, "hostname")
        child.close()
    finally:
        zygote.close()
        os.close(null)

    assert listed == [(name, "running")]
    assert inside == "ocirun\n"
    assert cli.ok("list", "--quiet") == ""


def test_list_steps_over_what_vanishes(cli: Cli) -> None:
    """Containers come and go while it looks."""
    ids = [cli.new_id() for _ in range(3)]
    cli.write("true")
    null = subprocess.DEVNULL
    command = " ".join(f"{shlex.join(cli.command('run', name))};" for name in ids)
    with subprocess.Popen(["sh", "-c", command], stdin=null, stdout=null, stderr=null, cwd=cli.bundle) as process:
        while process.poll() is None:
            states = json.loads(cli.ok("list", "--format=json"))
            assert {state["status"] for state in states} <= {"creating", "created", "running", "stopped"}

    assert process.returncode == 0


@pytest.mark.conforms("config: $.annotations")
def test_annotations_are_shown(either: Cli) -> None:
    """They are the caller's own marks."""
    name = either.new_id()
    either.write("true", edit=lambda config: config.update(annotations={"org.example.key": "value"}))
    assert either.quiet("create", name) == 0
    state = json.loads(either.ok("state", name))
    either.ok("delete", name)

    assert state["annotations"] == {"org.example.key": "value"}


def test_state_is_closed_to_others(cli: Cli) -> None:
    """The state root and what is in it belong to root alone (CVE-2021-41091)."""
    old = os.umask(0)
    try:
        name = _created(cli, "true")
    finally:
        os.umask(old)
    modes = {path.stat().st_mode & 0o777 for path in (cli.root, cli.root / name)}
    cli.ok("delete", name)

    assert modes == {0o700}


def test_many_at_once_on_one_id(cli: Cli) -> None:
    """One of many creates wins, one of many deletes does; with runc 1.1.5 all of them do."""
    name = cli.new_id()
    cli.write("sleep", "60")
    null = subprocess.DEVNULL
    makers = [cli.popen("create", name, stdin=null, stdout=null, stderr=null) for _ in range(4)]
    made = sorted(process.wait(30) for process in makers)
    removers = [cli.popen("delete", name, stdin=null, stdout=null, stderr=null) for _ in range(4)]
    removed = sorted(process.wait(30) for process in removers)

    assert made == removed == [0, 1, 1, 1]
