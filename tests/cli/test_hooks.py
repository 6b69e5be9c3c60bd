"""The six kinds of hook: order, place, what they are given, and what their failure means."""

import json
import os
import shlex
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Cli, Config, Edit
from tests.requires import requires

pytestmark = [requires("root"), pytest.mark.lane("v2")]

KINDS = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")
STATUSES = ("created", "creating", "creating", "created", "running", "stopped")
IN_CONTAINER = ("createContainer", "startContainer")


def _script(text: str, **more: Any) -> dict[str, Any]:
    """A hook that runs a shell script, with a PATH since it gets no other environment."""
    return {"path": "/bin/sh", "args": ["sh", "-c", f"PATH=/bin:/usr/bin:/sbin:/usr/sbin; {text}"], **more}


def _hooked(out: Path, hooks: dict[str, list[dict[str, Any]]], more: Edit | None = None) -> Edit:
    """An edit that adds hooks, and ``out`` at its own path inside the container."""

    def edit(config: Config) -> None:
        config["hooks"] = hooks
        config["mounts"].append(
            {"destination": str(out), "type": "bind", "source": str(out), "options": ["bind", "rw"]}
        )
        if more is not None:
            more(config)

    return edit


def _log(out: Path) -> list[str]:
    path = out / "log"
    return path.read_text().split() if path.exists() else []


@pytest.fixture
def out(cli: Cli, busybox_rootfs: Path, tmp_path: Path) -> Path:
    """Where hooks write to, seen from everywhere; the root file system gets a mount point for it, so it is a copy."""
    cli.rootfs = tmp_path / "rootfs"
    subprocess.run(["cp", "-a", busybox_rootfs, cli.rootfs], check=True)
    path = tmp_path / "out"
    path.mkdir()
    path.chmod(0o777)
    return path


@pytest.mark.conforms(*(f"config: $.hooks.{kind}" for kind in KINDS))
def test_hooks_run_in_order_with_the_state_on_stdin(cli: Cli, out: Path) -> None:
    """Each list in its own order, each with the right status; the pid is the init's, as seen from where they run."""
    hooks = {
        kind: [_script(f"cat > {out}/{kind}; echo {kind}1 >> {out}/log"), _script(f"echo {kind}2 >> {out}/log")]
        for kind in KINDS
    }

    def annotate(config: Config) -> None:
        config["annotations"] = {"org.example.key": "value"}

    name = cli.new_id()
    cli.write("sh", "-c", f"echo program >> {out}/log", edit=_hooked(out, hooks, annotate))
    assert cli.quiet("create", name) == 0
    pid = json.loads(cli.ok("state", name))["pid"]
    created = _log(out)
    cli.ok("start", name)
    cli.wait_for(name, "stopped")
    started = _log(out)
    cli.ok("delete", name)
    states = {kind: json.loads((out / kind).read_text()) for kind in KINDS}

    assert created == [f"{kind}{number}" for kind in KINDS[:3] for number in (1, 2)]
    assert started[6:8] == ["startContainer1", "startContainer2"]
    assert sorted(started[8:]) == ["poststart1", "poststart2", "program"]
    assert _log(out)[11:] == ["poststop1", "poststop2"]
    assert tuple(state["status"] for state in states.values()) == STATUSES
    pids = [state.get("pid", 0) for state in states.values()]
    assert pids == [pid, pid, 1, 1, pid, 0]
    for state in states.values():
        assert state["ociVersion"].startswith("1.")
        assert (state["id"], state["bundle"]) == (name, str(cli.bundle))
        assert state["annotations"] == {"org.example.key": "value"}


def test_run_runs_all_six(cli: Cli, out: Path) -> None:
    """In front, with the exit status of the program."""
    hooks = {kind: [_script(f"echo {kind} >> {out}/log")] for kind in KINDS}
    cli.write("sh", "-c", "exit 7", edit=_hooked(out, hooks))

    assert cli("run", cli.new_id()).code == 7
    assert _log(out) == list(KINDS)


def _namespaces(of: int | str) -> dict[str, str]:
    return {name: os.readlink(f"/proc/{of}/ns/{name}") for name in ("mnt", "pid", "net", "ipc", "uts", "cgroup")}


def test_hooks_run_in_their_namespaces(cli: Cli, out: Path) -> None:
    """Those of the runtime in the caller's (not on our stage), the others in the container's."""
    look = "for n in mnt pid net ipc uts cgroup; do echo $n $(readlink /proc/self/ns/$n); done"
    hooks = {kind: [_script(f"{look} > {out}/{kind}")] for kind in KINDS}
    name = cli.new_id()
    cli.write("sleep", "60", edit=_hooked(out, hooks))
    assert cli.quiet("create", name) == 0
    inside = _namespaces(json.loads(cli.ok("state", name))["pid"])
    cli.ok("start", name)
    cli.ok("delete", "--force", name)
    seen = {kind: dict(line.split() for line in (out / kind).read_text().splitlines()) for kind in KINDS}

    for kind in KINDS:
        assert seen[kind] == (inside if kind in IN_CONTAINER else _namespaces("self")), kind


def test_hooks_of_create_find_the_mounts_at_the_roots_path(cli: Cli, out: Path) -> None:
    """They come before pivot_root, and may add to a root that will be read-only."""
    root = cli.rootfs
    enter = "nsenter --mount=/proc/$(sed 's/.*\"pid\": *\\([0-9]*\\).*/\\1/')/ns/mnt"
    hooks = {
        "createRuntime": [_script(f"{enter} sh -c 'test -d {root}/proc/1 && mount -t tmpfs new {root}/tmp'")],
        "createContainer": [_script(f"test -e bin/busybox && test -d {root}/proc/self && echo text > {root}/tmp/made")],
    }

    def read_only(config: Config) -> None:
        config["root"]["readonly"] = True

    cli.write("sh", "-c", "cat /tmp/made; echo x > /bad", edit=_hooked(out, hooks, read_only))
    done = cli("run", cli.new_id())

    assert (done.code, done.out) == (1, "text\n")
    assert "Read-only file system" in done.err
    assert not (root / "tmp/made").exists()


def test_paths_of_hooks_are_found_where_they_run(cli: Cli, out: Path, tmp_path: Path) -> None:
    """Those of createContainer on the host, those of startContainer in the root file system."""
    program = tmp_path / "program"
    program.write_text(f"#!/bin/sh\necho host >> {out}/log\n")
    program.chmod(0o755)
    hooks: dict[str, list[dict[str, Any]]] = {
        "createContainer": [{"path": str(program)}],
        "startContainer": [{"path": "/bin/busybox", "args": ["sh", "-c", f"echo inside >> {out}/log"]}],
    }
    cli.write("true", edit=_hooked(out, hooks))
    cli.ok("run", cli.new_id())
    hooks["startContainer"] = [{"path": str(program)}]
    cli.write("true", edit=_hooked(out, hooks))
    done = cli("run", cli.new_id())

    assert _log(out) == ["host", "inside", "host"]
    assert f"$.hooks.startContainer[0]: {program}: No such file or directory" in done.err


@pytest.mark.conforms(*(f"config: $.hooks.{kind}[].{key}" for kind in KINDS for key in ("args", "env", "path")))
@pytest.mark.parametrize("kind", KINDS)
def test_hooks_get_just_what_the_config_gives(cli: Cli, out: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment exactly, args[0] freely, three fds and nothing of ours or of the caller's."""
    monkeypatch.setenv("SECRET", "of the caller")
    probe = f"cat < /proc/self/environ > {out}/env; ls /proc/self/fd > {out}/fds"
    first, second = ("sh", "sh") if kind == "startContainer" else ("any name", "")  # busybox goes by its name
    hooks = {
        kind: [
            {"path": "/bin/sh", "args": [first, "-c", probe], "env": ["A=1=2", "B=", "A=3"]},
            {
                "path": "/bin/sh",
                "args": [second, "-c", f"cat < /proc/self/cmdline > {out}/args; {probe.replace('/env;', '/none;')}"],
            },
            {"path": "/bin/cp", "args": ["cp", "/proc/self/status", f"{out}/signals"]},
        ]
    }
    read, write = os.pipe()
    cli.write("true", edit=_hooked(out, hooks))
    done = cli("run", cli.new_id(), pass_fds=[write], preexec_fn=_spoil_signals)
    os.close(read)
    os.close(write)

    assert (done.code, done.err) == (0, "")
    assert (out / "env").read_text().split("\0") == ["A=3", "B=", ""]
    assert (out / "none").read_text() == ""
    assert (out / "args").read_bytes().startswith(f"{second}\0-c\0cat ".encode())
    assert (out / "fds").read_text().split() == ["0", "1", "2", "3"]  # 3 is the directory that ls reads
    assert {
        int(line.split()[1], 16) for line in (out / "signals").read_text().splitlines() if line[:4] in ("SigB", "SigI")
    } == {0}


def _spoil_signals() -> None:
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2])


@pytest.mark.parametrize("kind", KINDS[:5])
def test_a_hook_that_fails_undoes_the_container(cli: Cli, out: Path, kind: str) -> None:
    """An error that names the hook and what it said, no later hook or program, nothing left, poststop hooks run."""
    hooks = {each: [_script(f"echo {each} >> {out}/log")] for each in KINDS}
    hooks[kind] = [_script("echo so it is >&2; exit 3"), _script(f"echo second >> {out}/log")]
    name = cli.new_id()
    cli.write("sh", "-c", f"trap '' TERM; echo program >> {out}/program; sleep 60", edit=_hooked(out, hooks))
    creating = KINDS.index(kind) < 3
    made = None if creating else cli.quiet("create", name)
    done = cli("create" if creating else "start", name)

    assert made in (None, 0)
    assert done.code == 1
    assert done.err == f"ocirun: $.hooks.{kind}[0]: /bin/sh: exit status 3: so it is\n"
    assert _log(out) == [*KINDS[: KINDS.index(kind)], "poststop"]
    assert "container does not exist" in cli("state", name).err
    assert kind == "poststart" or not (out / "program").exists()


@pytest.mark.parametrize("kind", ["prestart", "startContainer", "poststart"])
def test_run_reports_a_hook_that_fails(cli: Cli, out: Path, kind: str) -> None:
    """And the program does not stay."""
    hooks = {kind: [_script("exit 3")], "poststop": [_script(f"echo poststop >> {out}/log")]}
    cli.write("sleep", "60", edit=_hooked(out, hooks))
    done = cli("run", cli.new_id())

    assert (done.code, done.err) == (1, f"ocirun: $.hooks.{kind}[0]: /bin/sh: exit status 3\n")
    assert _log(out) == ["poststop"]


def test_a_poststop_hook_that_fails_is_a_warning(cli: Cli, out: Path, tmp_path: Path) -> None:
    """The rest of them run, and the container is deleted."""
    hooks = {"poststop": [{"path": "/nowhere"}, _script("exit 4"), _script(f"echo third >> {out}/log")]}
    name = cli.new_id()
    cli.write("true", edit=_hooked(out, hooks))
    assert cli.quiet("create", name) == 0
    cli.ok("--log", tmp_path / "log", "--log-format", "json", "delete", name)
    said = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]

    assert [(entry["level"], entry["msg"]) for entry in said] == [
        ("warning", "$.hooks.poststop[0]: /nowhere: No such file or directory"),
        ("warning", "$.hooks.poststop[1]: /bin/sh: exit status 4"),
    ]
    assert _log(out) == ["third"]


def test_a_container_that_cannot_be_made_runs_its_poststop_hooks(cli: Cli, out: Path) -> None:
    """Its undoing is an end like any other; the program is missing."""
    hooks = {kind: [_script(f"echo {kind} >> {out}/log")] for kind in KINDS}
    cli.write("no-such-program", edit=_hooked(out, hooks))
    done = cli("create", cli.new_id())

    assert (done.code, "executable file not found" in done.err) == (1, True)
    assert _log(out) == ["prestart", "createRuntime", "createContainer", "poststop"]


@pytest.mark.slow
@pytest.mark.conforms(*(f"config: $.hooks.{kind}[].timeout" for kind in KINDS))
@pytest.mark.parametrize("kind", KINDS)
def test_a_hook_that_takes_too_long_is_killed(cli: Cli, out: Path, kind: str) -> None:
    """It fails, and what it started ends with it."""
    seconds = str(10_000_000 + os.getpid())  # by which they are told from those of another run
    hooks = {kind: [_script(f"echo $$ > {out}/pid; sleep {seconds} & exec sleep {seconds}", timeout=1)]}
    cli.write("true", edit=_hooked(out, hooks))
    began = time.monotonic()
    done = cli("run", cli.new_id())
    took = time.monotonic() - began
    left = [path for path in Path("/proc").glob("[0-9]*/cmdline") if seconds.encode() in _content(path)]

    assert (done.code, done.err) == (
        (0, "") if kind == "poststop" else (1, f"ocirun: $.hooks.{kind}[0]: /bin/sh: killed after 1 s, its timeout\n")
    )
    assert 1 <= took < 5
    assert left == []


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def test_a_hook_in_time_is_not_killed(cli: Cli, out: Path) -> None:
    """A timeout is no sleep."""
    cli.write("true", edit=_hooked(out, {"prestart": [_script(f"echo in time >> {out}/log", timeout=60)]}))
    cli.ok("run", cli.new_id())

    assert _log(out) == ["in", "time"]


def test_what_a_hook_leaves_running_does_not_hold_us_up(cli: Cli, out: Path) -> None:
    """It ended when its own process did, whoever has its output open still."""
    hooks = {kind: [_script(f"sleep 5 & echo $! >> {out}/log")] for kind in ("createRuntime", "poststart")}
    cli.write("true", edit=_hooked(out, hooks))
    began = time.monotonic()
    cli.ok("run", cli.new_id())
    took = time.monotonic() - began
    for pid in _log(out):
        os.kill(int(pid), signal.SIGKILL)

    assert took < 4


def test_a_flood_of_output_is_cut(cli: Cli, out: Path) -> None:
    """Its end is what is shown."""
    hooks = {"prestart": [_script("head -c 3000000 /dev/zero | tr '\\0' x; echo the end; exit 1")]}
    cli.write("true", edit=_hooked(out, hooks))
    done = cli("run", cli.new_id())

    assert done.err.endswith("xxxthe end\n")
    assert len(done.err) < 1500


def test_start_container_hooks_are_as_confined_as_the_program(cli: Cli, out: Path) -> None:
    """The same user, capabilities, no_new_privs and filter: such a hook may be a program of the image."""
    look = "grep -E '^(Uid|Gid|Groups|Cap|NoNewPrivs|Seccomp:)' /proc/self/status"

    def confine(config: Config) -> None:
        config["process"]["user"] = {"uid": 12, "gid": 13, "additionalGids": [14]}
        config["linux"]["seccomp"] = {
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28}],
        }

    hooks = {"startContainer": [_script(f"{look} > {out}/hook; mkdir {out}/no 2> {out}/refused; true")]}
    cli.write("sh", "-c", f"{look} > {out}/program", edit=_hooked(out, hooks, confine))
    cli.ok("run", cli.new_id())

    assert "Seccomp:\t2" in (out / "hook").read_text()
    assert (out / "hook").read_text() == (out / "program").read_text()
    assert "No space left on device" in (out / "refused").read_text()


def test_runtimes_own_questions_work_in_a_hook(cli: Cli, out: Path) -> None:
    """State answers; what would have to wait for the hook's own end is refused instead."""
    name = cli.new_id()
    command = shlex.join(cli.command())
    verbs = (f"state {name}", f"exec {name} true", f"kill {name} CONT", f"delete --force {name}")
    script = "; ".join(f"{command} {verb} >> {out}/said 2>&1; echo $? >> {out}/log" for verb in verbs)
    hooks = {kind: [_script(script, timeout=20)] for kind in ("createRuntime", "poststart")}
    cli.write("sleep", "60", edit=_hooked(out, hooks))
    assert cli.quiet("create", name) == 0
    created, said = _log(out), (out / "said").read_text()
    done = cli("start", name)

    assert created == ["0", "255", "1", "1"]
    assert '"status": "creating"' in said
    assert "it is still being created, and its hooks run" in said
    assert (done.code, _log(out)[4:]) == (0, ["0", "0", "0", "0"])


def test_a_create_that_is_killed_in_a_hook_can_be_deleted(cli: Cli, out: Path) -> None:
    """The hook and the init end with it; delete --force removes the rest and runs the poststop hooks."""
    hooks = {
        "createRuntime": [_script(f"echo $$ > {out}/hook; exec sleep 60")],
        "poststop": [_script(f"cat > {out}/state; echo poststop >> {out}/log")],
    }
    name = cli.new_id()
    cli.write("sleep", "60", edit=_hooked(out, hooks))
    with cli.popen("create", name) as process:
        hook = int(_await(lambda: (out / "hook").read_text().strip()))
        process.kill()
        process.wait()
    _await(lambda: not _lives(hook))
    status = cli.status(name)
    cli.ok("delete", "--force", name)
    state = json.loads((out / "state").read_text())

    assert status == "creating"
    assert (state["id"], state["status"], state["bundle"]) == (name, "stopped", str(cli.bundle))
    assert _log(out) == ["poststop"]


def test_an_interrupted_create_undoes_itself(cli: Cli, out: Path) -> None:
    """Also while a hook runs, which ends too."""
    hooks = {
        "createRuntime": [_script(f"echo $$ > {out}/hook; exec sleep 60")],
        "poststop": [_script(f"echo poststop >> {out}/log")],
    }
    cli.write("sleep", "60", edit=_hooked(out, hooks))
    with cli.popen("create", cli.new_id()) as process:
        hook = int(_await(lambda: (out / "hook").read_text().strip()))
        process.terminate()
        code = process.wait(10)
    _await(lambda: not _lives(hook))

    assert (code, _log(out)) == (128 + signal.SIGTERM, ["poststop"])


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def _await(question: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            if answer := question():
                return answer
        except OSError:
            pass
        time.sleep(0.01)
    raise AssertionError("it did not come")


def test_no_hook_no_helper(cli: Cli) -> None:
    """A config without hooks starts no process to run them."""
    name = cli.running("sleep", "60")
    helpers = subprocess.run(["pgrep", "-f", str(cli.root)], capture_output=True, text=True, check=False).stdout.split()
    cli.ok("delete", "--force", name)

    assert helpers == []
