"""A container's life under attack: killed at any step, raced for, on a full disk, with another process's pid."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.cli.conftest import PACKAGE_PARENT, Cli, Config, Edit
from tests.requires import requires

pytestmark = [requires("root"), pytest.mark.lane("v2")]

_SUICIDAL = f"""
import os, sys
sys.path.append({str(PACKAGE_PARENT)!r})
from pytest_ocirun.cli.__main__ import main
own, left, about = os.getpid(), int(sys.argv.pop(1)), sys.argv.pop(1)
def count(event, arguments):
    global left
    if os.getpid() == own and about in str(arguments):
        left -= 1
        if left == 0:
            os.kill(own, 9)
sys.addaudithook(count)
try:
    main()
finally:
    if os.getpid() == own:
        print("left", left, file=sys.stderr, flush=True)
"""
"""The command line that kills itself at its N-th event of those that Python audits (every open, rename, import and
connect) and whose arguments contain a text."""


def _die_at(cli: Cli, step: int, *words: str, about: str = "") -> int | None:
    """Run a verb that dies at a step; the exit status, None if it got to its end before."""
    command = [sys.executable, "-I", "-c", _SUICIDAL, str(step), about, "--root", str(cli.root), *words]
    null = subprocess.DEVNULL
    done = subprocess.run(
        command, check=False, stdin=null, stdout=null, stderr=subprocess.PIPE, cwd=cli.bundle, timeout=60
    )
    return None if b"left" in done.stderr else done.returncode


def _with_cgroup(path: str) -> Edit:
    def edit(config: Config) -> None:
        config["linux"]["cgroupsPath"] = path

    return edit


_STEPS = [*range(1, 40, 13), *range(40, 400, 13)]


def _victims(cli: Cli, verb: str, steps: list[int], path: str = "") -> int:
    """Kill a verb at every step, and see that delete --force leaves nothing; how often it was killed."""
    killed = 0
    for step in steps:
        name = cli.new_id()
        if verb not in ("create", "run"):
            assert cli.quiet("create", name) == 0
        words = [verb, name]
        if verb == "exec":
            cli.ok("start", name)
            words = [verb, "--detach", name, "sleep", "60"]
        code = _die_at(cli, step, *words)
        killed += code == -signal.SIGKILL
        done = cli("delete", "--force", name)
        assert (done.code, done.err) == (0, ""), f"{verb} killed at {step}"
        _await_nothing(cli, f"{verb} killed at {step}", path)
        if code is None:
            break
    return killed


def _await_nothing(cli: Cli, what: str, path: str = "") -> None:
    deadline = time.monotonic() + 5
    while (left := [*cli.left(), *_cgroups(path)]) and time.monotonic() < deadline:
        time.sleep(0.01)

    assert left == [], what


def _cgroups(path: str) -> list[str]:
    return [str(each) for each in Path("/sys/fs/cgroup").glob(f"*{path}")] if path else []


@pytest.mark.slow
@pytest.mark.parametrize("named", [False, True])
def test_a_create_that_is_killed_at_any_step_can_be_deleted(cli: Cli, *, named: bool) -> None:
    """With the cgroup of the default and one that the config names."""
    above = f"ocirun-killed-{os.getpid()}"
    place = f"/{above}/inner" if named else ""
    cli.write("sleep", "60", edit=_with_cgroup(place) if place else None)
    try:
        killed = _victims(cli, "create", _STEPS, place)
    finally:
        for mount in Path("/sys/fs/cgroup").glob(f"*/{above}"):
            mount.rmdir()

    assert killed > 10


@pytest.mark.parametrize("step", [3, 4])
def test_an_init_that_was_never_written_down_ends(cli: Cli, step: int) -> None:
    """Its maker is killed when it waits for its start already: nobody knows its pid."""
    name = cli.new_id()
    cli.write("sleep", "60")
    code = _die_at(cli, step, "create", name, about="state.json")
    status = cli.status(name)
    deadline = time.monotonic() + 5
    while (left := list(cli._processes())) and time.monotonic() < deadline:
        time.sleep(0.01)
    cli.ok("delete", "--force", name)

    assert (code, status, left) == (-signal.SIGKILL, "creating", [])


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["start", "delete", "kill", "exec", "run"])
def test_a_verb_that_is_killed_at_any_step_does_no_harm(cli: Cli, verb: str) -> None:
    """What it worked on can be deleted."""
    cli.write("sleep", "60" if verb != "run" else "0")

    assert _victims(cli, verb, list(range(30, 300, 17))) > 3


@pytest.mark.slow
def test_a_run_that_is_killed_at_any_time_can_be_deleted(cli: Cli) -> None:
    """From outside, wherever it is just then."""
    cli.write("sleep", "60")
    for milliseconds in range(5, 120, 5):
        name = cli.new_id()
        with cli.popen("run", name, stdin=subprocess.DEVNULL) as process:
            time.sleep(milliseconds / 1000)
            process.kill()
            done = cli("delete", "--force", name)
            assert (done.code, done.err) == (0, "")
        _await_nothing(cli, f"run killed after {milliseconds} ms")


def test_an_init_that_dies_before_its_start(cli: Cli) -> None:
    """Start says so at once, changes nothing, and the container can be deleted."""
    name = cli.new_id()
    cli.write("sleep", "60")
    assert cli.quiet("create", name) == 0
    os.kill(json.loads(cli.ok("state", name))["pid"], signal.SIGKILL)
    cli.wait_for(name, "stopped")
    done = cli("start", name)
    status = cli.status(name)
    cli.ok("delete", name)

    assert (done.code, status) == (1, "stopped")
    assert f"start container {name}: it is stopped, not created" in done.err


def test_a_stopped_init_does_not_block_others(cli: Cli) -> None:
    """Start waits for it, and whoever wakes or ends it does not wait for that start."""
    first, second = cli.new_id(), cli.new_id()
    cli.write("sleep", "60")
    codes = []
    for name in (first, second):
        assert cli.quiet("create", name) == 0
        cli.ok("kill", name, "STOP")
        with cli.popen("start", name, stdin=subprocess.DEVNULL) as start:
            with pytest.raises(subprocess.TimeoutExpired):
                start.wait(0.3)
            if name == first:
                cli.ok("kill", name, "CONT")
            else:
                cli.ok("delete", "--force", name)
            codes.append(start.wait(10))
    cli.ok("delete", "--force", first)

    assert codes == [0, 1]


@pytest.mark.parametrize("verb", ["start", "kill", "exec"])
def test_a_pid_that_is_somebody_elses_by_now(cli: Cli, verb: str) -> None:
    """The same number with another start time is another process: the container has stopped, and that one is spared."""
    name = cli.running("sleep", "60")
    pid = json.loads(cli.ok("state", name))["pid"]
    path = cli.root / name / "state.json"
    document = json.loads(path.read_text())
    os.kill(pid, signal.SIGKILL)
    cli.wait_for(name, "stopped")
    with subprocess.Popen(["sleep", "60"]) as other:
        path.write_text(json.dumps(document | {"pid": other.pid}))
        status = cli.status(name)
        done = cli(verb, name, *(["true"] if verb == "exec" else []))
        spared = other.poll() is None
        cli.ok("delete", "--force", name)
        spared = spared and other.poll() is None
        other.kill()

    assert (status, spared) == ("stopped", True)
    assert done.code == (255 if verb == "exec" else 1)


def test_a_zombie_is_stopped(cli: Cli) -> None:
    """While its parent, here the run that we hold up, has not reaped it."""
    name = cli.new_id()
    cli.write("sleep", "60")
    with cli.popen("run", name) as process:
        deadline = time.monotonic() + 10
        while not (cli.root / name / "state.json").exists() or cli.status(name) != "running":
            assert time.monotonic() < deadline
        process.send_signal(signal.SIGSTOP)
        pid = json.loads(cli.ok("state", name))["pid"]
        os.kill(pid, signal.SIGKILL)
        cli.wait_for(name, "stopped")
        letter = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        done = cli("kill", name)
        cli.ok("delete", name)
        process.send_signal(signal.SIGCONT)
        code = process.wait(10)

    assert (letter, done.code, code) == ("Z", 1, 137)


def _at_once(cli: Cli, *commands: list[str]) -> list[int]:
    codes: list[int] = []
    threads = [threading.Thread(target=lambda words=words: codes.append(cli.quiet(*words))) for words in commands]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sorted(codes)


def test_ten_processes_start_one_container(cli: Cli, tmp_path: Path) -> None:
    """One does; the program runs once."""
    name, out = cli.new_id(), tmp_path / "out"
    cli.write("sh", "-c", "echo ran; exec sleep 60")
    with out.open("w") as file:
        null = subprocess.DEVNULL
        subprocess.run(cli.command("create", name), check=True, stdin=null, stdout=file, stderr=null, cwd=cli.bundle)
    codes = _at_once(cli, *[["start", name]] * 10)
    deadline = time.monotonic() + 5
    while not out.read_text() and time.monotonic() < deadline:
        time.sleep(0.01)
    cli.ok("delete", "--force", name)

    assert (codes, out.read_text()) == ([0, *[1] * 9], "ran\n")


def test_ten_processes_delete_one_container(cli: Cli) -> None:
    """With --force all succeed: it is gone for each of them."""
    name = cli.running("sleep", "60")

    assert _at_once(cli, *[["delete", "--force", name]] * 10) == [0] * 10


def test_ten_processes_create_one_container(cli: Cli) -> None:
    """One has it, and the others leave it unharmed."""
    name = cli.new_id()
    cli.write("sleep", "60")
    codes = _at_once(cli, *[["create", name]] * 10)
    status = cli.status(name)
    cli.ok("delete", name)

    assert (codes, status) == ([0, *[1] * 9], "created")


@pytest.mark.parametrize("verb", ["start", "exec", "kill", "delete"])
def test_a_container_without_a_state_document(cli: Cli, verb: str) -> None:
    """As one leaves behind that was killed right after the directory was made; only delete --force helps."""
    name = cli.new_id()
    (cli.root / name).mkdir(mode=0o700, parents=True)
    cli.root.chmod(0o700)
    done = cli(verb, name, *(["true"] if verb == "exec" else []))
    if verb != "delete":
        cli.ok("delete", "--force", name)

    assert done.code == {"exec": 255, "delete": 0}.get(verb, 1)
    assert "Traceback" not in done.err


def _in_small_root(cli: Cli, script: str, size: str) -> subprocess.CompletedProcess[str]:
    """Run a script in a mount namespace where the state root is a tmpfs of that size; ``$@`` is the command line."""
    cli.root.mkdir(mode=0o700, exist_ok=True)
    whole = f'set -e; mount -t tmpfs -o size={size},mode=0700 small "{cli.root}"; {script}'
    return subprocess.run(
        ["unshare", "--mount", "--propagation", "private", "bash", "-c", whole, "bash", *cli.command()],
        check=False,
        capture_output=True,
        text=True,
        cwd=cli.bundle,
        timeout=60,
    )


def test_a_create_on_a_full_disk_says_so_and_leaves_nothing(cli: Cli) -> None:
    """And delete works there, and what runs goes on."""
    first, second = cli.new_id(), cli.new_id()
    cli.write("sleep", "60")
    script = f"""
"$@" run --detach {first} </dev/null >/dev/null 2>&1
dd if=/dev/zero of={cli.root}/@ballast bs=1k 2>/dev/null || true
set +e
"$@" create {second} </dev/null; echo code $?
ls {cli.root}
"$@" state {first} | grep status
"$@" kill {first} CONT; echo code $?
"$@" delete --force {first}; echo code $?
ls {cli.root}
"""
    done = _in_small_root(cli, script, "256k")
    lines = done.stdout.split("\n")

    assert "No space left on device" in done.stderr
    assert "Traceback" not in done.stderr
    assert lines[0] == "code 1"
    assert [line for line in lines if line.startswith("code")] == ["code 1", "code 0", "code 0"]
    assert any('"running"' in line for line in lines)
    assert lines[-2:] != [first, ""]
    assert second not in done.stdout
    shutil.rmtree(cli.root, ignore_errors=True)
