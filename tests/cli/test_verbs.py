"""Verbs that runc does not have, or that ours does otherwise on purpose."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pytest_ocirun.cli import app, settings
from pytest_ocirun.cli.options import HELP, Option
from pytest_ocirun.runtime import features
from tests.cli.conftest import PACKAGE_PARENT, Cli
from tests.requires import requires

pytestmark = [requires("root"), pytest.mark.lane("v2")]

UNIFIED = Path("/sys/fs/cgroup/unified")


@pytest.mark.conforms("cli: stop", "cli: stop --time", "cli: stop --signal")
@pytest.mark.parametrize(
    "trap, words, code, quick",
    [
        ("trap 'exit 5' TERM", [], 5, True),
        ("trap 'exit 6' USR1", ["--signal", "USR1"], 6, True),
        ("trap '' TERM", ["--time", "0.4"], 137, False),
        ("trap '' TERM", ["-t", "0"], 137, True),
    ],
    ids=["acts", "on-another-signal", "ignores-it", "no-grace"],
)
def test_stop(cli: Cli, trap: str, words: list[str], code: int, quick: bool) -> None:
    """A signal, time to act on it, SIGKILL; it returns when the container has ended, and not later."""
    name = cli.new_id()
    cli.write("sh", "-c", f"{trap}; echo ready; while :; do sleep 0.01; done")
    with cli.popen("run", "--keep", name) as process:
        assert process.stdout is not None
        process.stdout.readline()
        begun = time.monotonic()
        cli.ok("stop", *words, name)
        took = time.monotonic() - begun
        status = cli.status(name)
        cli.ok("stop", name)
        assert process.wait(10) == code
    cli.ok("delete", name)

    assert status == "stopped"
    assert took < 3
    assert quick or took >= 0.4


@pytest.mark.conforms("cli: stop")
def test_stop_where_nobody_listens(cli: Cli) -> None:
    """A created container is killed at once, a paused one goes on and may act, an unknown one is an error."""
    created, paused = cli.new_id(), cli.running("sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.01; done")
    assert cli.quiet("create", created) == 0
    cli.ok("pause", paused)
    begun = time.monotonic()
    for name in (created, paused):
        cli.ok("stop", name)
    took = time.monotonic() - begun
    statuses = [cli.status(name) for name in (created, paused)]
    for name in (created, paused):
        cli.ok("delete", name)

    assert statuses == ["stopped", "stopped"]
    assert took < 5
    assert cli("stop", "nosuch").code == 1


@requires("cgroup")
@pytest.mark.conforms("cli: stop", "cli: kill")
@pytest.mark.parametrize("words", [["stop", "-t", "0"], ["kill"]], ids=["stop", "kill"])
def test_the_end_of_a_container_that_shares_pids(cli: Cli, words: list[str]) -> None:
    """Without a pid namespace of its own the end of the init ends nobody else, so SIGKILL is for all."""

    def share(config: dict[str, dict[str, list[dict[str, str]]]]) -> None:
        config["linux"]["namespaces"] = [each for each in config["linux"]["namespaces"] if each["type"] != "pid"]

    name = cli.running("sh", "-c", "sleep 60 & exec sleep 60", edit=share)
    deadline = time.monotonic() + 5
    while len(json.loads(cli.ok("ps", "-f", "json", name))) < 2:
        assert time.monotonic() < deadline
    cli.ok(*words, name, *(["KILL"] if words == ["kill"] else []))
    cli.wait_for(name, "stopped")
    while left := json.loads(cli.ok("ps", "-f", "json", name)):
        assert time.monotonic() < deadline, left
    cli.ok("delete", name)


@pytest.mark.parametrize("text", ["", "x", "-1", "1x", "5m3", "1e3", "99999999"])
def test_times_that_are_none(cli: Cli, text: str) -> None:
    """One clear error."""
    done = cli("stop", f"--time={text}", "nosuch")

    assert (done.code, done.err.startswith("ocirun: --time: expected a length of time such as 10")) == (1, True)


@pytest.mark.conforms("cli: events")
def test_events_end_with_the_container(cli: Cli) -> None:
    """Not only when it is deleted, and without waiting for the interval."""
    name = cli.running("sleep", "60")
    with cli.popen("events", "--interval=50ms", name) as process:
        assert process.stdout is not None
        process.stdout.readline()
        cli.ok("kill", name, "KILL")
        code = process.wait(5)
    done = cli("events", "--stats", name)
    cli.ok("delete", name)

    assert code == 0
    assert (done.code, "container not running" in done.err) == (1, True)


@pytest.mark.conforms("cli: events --stats")
def test_stats_of_any_cgroup(cli: Cli) -> None:
    """The same parts whatever the version, and the interfaces of a network namespace."""
    name = cli.running("sleep", "60")
    data = json.loads(cli.ok("events", "--stats", name))["data"]
    cli.ok("delete", "--force", name)

    assert list(data) == sorted(data, key=list(data).index)
    assert data["pids"]["current"] == 1
    assert data["cpu"]["usage"]["total"] > 0
    assert [each["Name"] for each in data["network_interfaces"]] == ["lo"]


@pytest.mark.conforms("cli: run --pidfd-socket", "cli: create --pidfd-socket", "cli: exec --pidfd-socket")
@pytest.mark.parametrize("verb", ["run", "exec"])
def test_a_pidfd_is_sent(cli: Cli, tmp_path: Path, verb: str) -> None:
    """It stands for the process: a signal by it reaches that, and it tells the end."""
    path = tmp_path / "socket"
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()
    listener.settimeout(10)
    name = cli.running("sleep", "60") if verb == "exec" else cli.new_id()
    cli.write("sleep", "61")
    words = [name, "sleep", "61"] if verb == "exec" else [name]
    with cli.popen(verb, "--pidfd-socket", path, "--pid-file", tmp_path / "pid", *words) as process:
        connection, _address = listener.accept()
        _data, fds, _flags, _from = socket.recv_fds(connection, 100, 1)
        info = Path(f"/proc/self/fdinfo/{fds[0]}").read_text()
        cli.wait_for(name, "running")
        signal.pidfd_send_signal(fds[0], signal.SIGKILL)
        code = process.wait(10)
    os.close(fds[0])
    for sock in (connection, listener):
        sock.close()
    cli.ok("delete", "--force", name)

    assert code == 137
    assert f"Pid:\t{(tmp_path / 'pid').read_text()}\n" in info


@pytest.mark.conforms("cli: checkpoint", "cli: restore")
def test_checkpoint_and_restore_are_refused(cli: Cli, tmp_path: Path) -> None:
    """In one sentence that names criu; the container is unharmed."""
    name = cli.running("sleep", "60")
    done = cli("checkpoint", "--image-path", tmp_path / "image", "--leave-running", name)
    status = cli.status(name)
    cli.ok("delete", "--force", name)
    again = cli("restore", "-d", "--image-path", tmp_path / "image", name)

    assert (done.code, status, again.code) == (1, "running", 1)
    assert done.err.startswith(f"ocirun: checkpoint container {name}: ")
    assert again.err.startswith(f"ocirun: restore container {name}: ")
    assert "criu" in done.err
    assert "criu" in again.err
    assert not (tmp_path / "image").exists()


@pytest.mark.conforms("cli: features")
def test_features_are_printed(cli: Cli) -> None:
    """As one JSON document, without a state root or anything else being made."""
    printed = json.loads(cli.ok("features"))

    assert printed == features.document()
    assert not cli.root.exists()


def _alone(option: Option) -> str:
    """The option as one word, with a value that it takes."""
    return f"--{option.name}={option.choices[0] if option.choices else 1}" if option.value else f"--{option.name}"


CRIU = {
    verb: [option for option in app.find_command(verb).VERB.options if option.name != HELP.name]
    for verb in ("checkpoint", "restore")
}


@pytest.mark.conforms(*(f"cli: {verb} --{option.name}" for verb, options in CRIU.items() for option in options))
@pytest.mark.parametrize("verb", CRIU)
def test_each_option_of_checkpoint_and_restore_is_taken(cli: Cli, verb: str) -> None:
    """And the verb refuses, for the one reason; an option that it has not is refused for that."""
    name = cli.running("sleep", "60") if verb == "checkpoint" else cli.new_id()
    said = {word: cli(verb, word, name) for word in map(_alone, CRIU[verb])}
    wrong = cli(verb, "--bogus", name)
    cli.ok("delete", "--force", name)

    assert len({done.err for done in said.values()}) == 1, said
    assert {done.code for done in said.values()} == {1}
    assert next(iter(said.values())).err.startswith(f"ocirun: {verb} container {name}: criu ")
    assert wrong.err.startswith("ocirun: unknown option '--bogus'")


@pytest.mark.conforms("cli: checkpoint")
def test_a_criu_that_does_not_work_is_named(cli: Cli, tmp_path: Path) -> None:
    """With its own words."""
    (tmp_path / "criu").write_text("#!/bin/sh\necho 'Error: vdso: no such area'\nexit 1\n")
    (tmp_path / "criu").chmod(0o755)
    name = cli.running("sleep", "60")
    done = cli("checkpoint", name, env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"})
    cli.ok("delete", "--force", name)

    assert done.code == 1
    assert "criu does not work on this host: run criu check: exit status 1: Error: vdso: no such area" in done.err


@pytest.mark.conforms("cli: --debug")
def test_debug_prints_the_plan(cli: Cli) -> None:
    """Each step as a sentence, before it is done."""
    cli.write("true")
    done = cli("--debug", "run", cli.new_id())
    lines = [line.removeprefix("ocirun: ") for line in done.err.splitlines()]

    assert done.code == 0
    assert "clone with new namespaces: " in "".join(line for line in lines if line.startswith("clone"))
    assert lines.index("pivot into the root file system and let the old one go") < len(lines) - 1
    assert any(line.startswith("execute true") or "true" in line for line in lines[-1:])


@pytest.mark.conforms("cli: run --no-pivot", "cli: run --no-new-keyring")
@pytest.mark.parametrize("less", [False, True])
def test_what_isolates_less(cli: Cli, less: bool) -> None:
    """The root is moved instead of pivoted to, and the session keyring is not the container's own."""
    name = cli.new_id()
    cli.write("cat", "/proc/keys", edit=lambda config: config["linux"].update(maskedPaths=[]))
    done = cli("--debug", "run", *(["--no-pivot", "--no-new-keyring"] if less else []), name)
    moved = "ocirun: move the root file system over the old one and change into it, without pivot_root\n" in done.err
    pivoted = "ocirun: pivot into the root file system and let the old one go\n" in done.err

    assert done.code == 0
    assert (moved, pivoted) == (less, not less)
    assert (f" {name}: " in done.out) is not less


class PureV1(Cli):
    """``ocirun`` where no v2 tree is mounted beside v1, in a mount namespace of its own."""

    def command(self, *args: str | Path) -> list[str]:
        """The argv."""
        script = f'mount --make-rprivate /; umount {UNIFIED}; exec "$@"'
        return ["unshare", "--mount", "sh", "-euc", script, "sh", *super().command(*args)]


@requires("cgroup_v1")
@pytest.mark.conforms("cli: pause", "cli: resume")
def test_the_freezer_of_v1(cli: Cli) -> None:
    """What it holds does not even die of SIGKILL, so kill, delete and stop thaw it."""
    if not UNIFIED.is_mount():
        pytest.skip("this kernel lacks nothing: it has no v2 tree beside v1, and every test here is this one")
    pure = PureV1(cli.root, cli.bundle, cli.rootfs, cli.ids)
    names = [pure.running("sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.01; done") for _ in range(4)]
    for name in names:
        pure.ok("pause", name)
    statuses = [cli.status(name) for name in names]
    files = [Path(f"/sys/fs/cgroup/freezer/ocirun/{name}/freezer.state").read_text() for name in names]
    killed, forced, stopped, resumed = names
    pure.ok("kill", killed, "KILL")
    pure.wait_for(killed, "stopped")
    pure.ok("delete", "--force", forced)
    pure.ok("stop", stopped)
    pure.ok("resume", resumed)
    after = pure.status(resumed)
    for name in (killed, stopped, resumed):
        pure.ok("delete", "--force", name)

    assert statuses == ["paused"] * 4
    assert files == ["FROZEN\n"] * 4
    assert after == "running"


_ZYGOTE = """
import os, sys
sys.path.append(sys.argv[4])
from pytest_ocirun.oci.runtime import load_config
from pytest_ocirun.runtime import pausing
from pytest_ocirun.runtime.container import Runtime
from pytest_ocirun.runtime.spawner import ZygoteClient
from pytest_ocirun.runtime.stdio import Stdio
root, name, bundle = sys.argv[1:4]
zygote = ZygoteClient(root)
null = os.open(os.devnull, os.O_RDWR)
runtime = Runtime(zygote, root)
with open(f"{bundle}/config.json", "rb") as file:
    config = load_config(file.read())
child = runtime.create(name, bundle, config, Stdio(null, null, null), holder=True)
runtime.start(name)
pausing.pause(root, name)
print(runtime.state(name)["status"])
child.close()
zygote.close()
"""


@requires("cgroup")
@pytest.mark.parametrize("pure", [False, pytest.param(True, marks=requires("cgroup_v1"))], ids=["as-it-is", "pure-v1"])
def test_a_paused_container_ends_with_its_zygote(cli: Cli, pure: bool) -> None:
    """Somebody may have paused what a fixture holds."""
    name = cli.new_id()
    cli.write("unused")
    enter = []
    if pure and UNIFIED.is_mount():
        enter = ["unshare", "--mount", "sh", "-euc", f'mount --make-rprivate /; umount {UNIFIED}; exec "$@"', "sh"]
    done = subprocess.run(
        [*enter, sys.executable, "-c", _ZYGOTE, cli.root, name, cli.bundle, PACKAGE_PARENT],
        capture_output=True,
        text=True,
        check=False,
        timeout=20,
    )

    assert (done.stdout, done.stderr) == ("paused\n", "")
    assert cli.ok("list", "-q") == ""


@requires("runc")
@pytest.mark.parametrize("verb", ["", *sorted({*app.VERBS} - {"stop", "completion", "features"})])
def test_every_option_of_runc_is_there(verb: str) -> None:
    """Read from runc's own help."""
    help_text = subprocess.run(
        ["runc", *([verb] if verb else []), "--help"], capture_output=True, text=True, check=True
    ).stdout
    section = help_text.rpartition("OPTIONS:")[2] if "OPTIONS:" in help_text else ""
    theirs = {word.strip(",") for line in section.splitlines() for word in line.split() if line.startswith("   --")}
    theirs = {word for word in theirs if word.startswith("--")}
    ours = app.find_command(verb).VERB.options if verb else settings.OPTIONS
    known = {f"--{option.name}" for option in ours} | {"--help"}

    assert theirs - known - ({"--criu"} if not verb else set()) == set()
