"""What ocirun and runc do alike: every test runs against both, so a difference is a failure of one of them.

Where ours differs on purpose, the test says so: ``_ours`` tells which of the two it is.
"""

import itertools
import json
import os
import select
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Cli, Runc
from tests.requires import requires

pytestmark = [requires("root"), pytest.mark.lane("v2")]

M = 1 << 20
_TICKS = ("sh", "-c", "while :; do echo tick; sleep 0.01; done")


def _ours(either: Cli) -> bool:
    return not isinstance(either, Runc)


def _created(either: Cli, *argv: str) -> str:
    name = either.new_id()
    either.write(*argv)
    assert either.quiet("create", name) == 0
    return name


def _pid(either: Cli, name: str) -> int:
    pid: int = json.loads(either.ok("state", name))["pid"]
    return pid


def _has_more(process: "subprocess.Popen[str]", seconds: float) -> bool:
    """Whether the process prints within that time, behind what is there already."""
    assert process.stdout is not None
    fd = process.stdout.fileno()
    while select.select([fd], [], [], 0)[0]:
        os.read(fd, 65536)
    return bool(select.select([fd], [], [], seconds)[0])


@pytest.mark.conforms(
    "cli: create", "cli: start", "cli: kill", "cli: delete", "cli: state", "cli: pause", "cli: resume"
)
def test_every_status(either: Cli) -> None:
    """In the order of a container's life."""
    name = _created(either, "sleep", "60")
    seen = [either.status(name)]
    for verb in ("start", "pause", "resume"):
        either.ok(verb, name)
        seen.append(either.status(name))
    either.ok("kill", name, "KILL")
    either.wait_for(name, "stopped")
    either.ok("delete", name)

    assert seen == ["created", "running", "paused", "running"]
    assert either("state", name).code == 1


@pytest.mark.conforms("cli: pause", "cli: resume")
def test_nothing_runs_in_a_paused_container(either: Cli) -> None:
    """And it goes on where it was."""
    name = either.new_id()
    either.write(*_TICKS)
    with either.popen("run", name) as process:
        assert process.stdout is not None
        process.stdout.readline()
        either.ok("pause", name)
        paused = _has_more(process, 0.15)
        either.ok("resume", name)
        resumed = _has_more(process, 5)
        either.ok("delete", "--force", name)

    assert (paused, resumed) == (False, True)


@pytest.mark.conforms("cli: exec --ignore-paused")
def test_exec_in_a_paused_container(either: Cli) -> None:
    """It is refused with 255, unless that is ignored: then the process waits for the resume."""
    name = either.running("sleep", "60")
    either.ok("pause", name)
    refused = either("exec", name, "echo", "ran")
    with either.popen("exec", "--ignore-paused", name, "echo", "ran") as process:
        assert process.stdout is not None
        early = select.select([process.stdout], [], [], 0.3)[0]
        either.ok("resume", name)
        out = process.stdout.read()
        code = process.wait(10)
    either.ok("delete", "--force", name)

    assert (refused.code, refused.out, "cannot exec in a paused container" in refused.err) == (255, "", True)
    assert (early, out, code) == ([], "ran\n", 0)


@pytest.mark.conforms("cli: pause", "cli: delete --force")
def test_a_paused_container_can_be_ended(either: Cli) -> None:
    """SIGKILL is not held up; another signal waits for the resume; a plain delete is refused."""
    names = [either.running("sleep", "60") for _ in range(3)]
    for name in names:
        either.ok("pause", name)
    killed, terminated, forced = names
    either.ok("kill", killed, "KILL")
    either.wait_for(killed, "stopped")
    either.ok("kill", terminated, "HUP")
    statuses = [either.status(terminated), either.status(forced)]
    plain = either("delete", forced)
    either.ok("delete", "--force", forced)
    either.ok("resume", terminated)
    for name in (killed, terminated):
        either.ok("delete", "--force", name)

    assert statuses == ["paused", "paused"]
    assert plain.code == 1


@pytest.mark.conforms("cli: pause")
def test_a_created_container_can_be_paused(either: Cli) -> None:
    """It cannot be started then."""
    name = _created(either, "true")
    either.ok("pause", name)
    status = either.status(name)
    start = either("start", name)
    either.ok("resume", name)
    after = either.status(name)
    either.ok("delete", "--force", name)

    assert (status, start.code, after) == ("paused", 1, "created")


@pytest.mark.parametrize("verb", ["pause", "resume", "start", "kill", "exec", "events"])
def test_verbs_of_the_wrong_time(either: Cli, verb: str) -> None:
    """A stopped container takes none of them."""
    name = either.running("true")
    either.wait_for(name, "stopped")
    done = either(verb, name, *(["true"] if verb == "exec" else []))
    either.ok("delete", name)

    assert (done.code, done.out) == (255 if verb == "exec" else 1, "")
    assert done.err


@pytest.mark.parametrize(
    "verb", ["delete", "events", "exec", "kill", "pause", "ps", "resume", "start", "state", "checkpoint"]
)
def test_an_unknown_id(either: Cli, verb: str) -> None:
    """Every verb says so in the words that clients look for."""
    done = either(verb, "nosuch", *(["true"] if verb == "exec" else []))

    assert (done.code, done.out) == (255 if verb == "exec" else 1, "")
    assert "container does not exist" in done.err


@pytest.mark.conforms("cli: delete --force")
def test_force_on_an_unknown_id_is_fine(either: Cli) -> None:
    """Whoever cleans up twice is not told off."""
    assert either("delete", "--force", "nosuch").code == 0


@requires("ps")
@pytest.mark.conforms("cli: ps", "cli: ps --format")
def test_ps_shows_the_container_alone(either: Cli) -> None:
    """As pids, or as rows of the host's ps, which takes its own options."""
    name = either.running("sh", "-c", "sleep 61 & sleep 62 & wait")
    deadline = time.monotonic() + 5
    while len(pids := json.loads(either.ok("ps", "--format", "json", name))) < 3:
        assert time.monotonic() < deadline, pids
    table = either.ok("ps", name).splitlines()
    chosen = either.ok("ps", name, "-o", "pid,args").splitlines()
    init = _pid(either, name)
    either.ok("delete", "--force", name)

    assert init in pids
    assert table[0].split()[:3] == ["UID", "PID", "PPID"]
    assert sorted(int(row.split()[1]) for row in table[1:]) == sorted(pids)
    assert chosen[0].split() == ["PID", "COMMAND"]
    assert {"sleep 61", "sleep 62"} <= {row.strip().partition(" ")[2] for row in chosen[1:]}


@requires("ps")
@pytest.mark.conforms("cli: ps")
@pytest.mark.parametrize("words", [["-o", "args"], ["--nosuch"]])
def test_ps_options_that_cannot_be_used(either: Cli, words: list[str]) -> None:
    """No column of pids, or no option of ps."""
    name = either.running("sleep", "60")
    done = either("ps", name, *words)
    either.ok("delete", "--force", name)

    assert (done.code, done.out) == (1, "")


@pytest.mark.conforms("cli: ps --format")
def test_ps_of_a_stopped_container_is_empty(either: Cli) -> None:
    """Ours prints an array as ever; runc prints null."""
    name = either.running("true")
    either.wait_for(name, "stopped")
    out = either.ok("ps", "-f", "json", name)
    either.ok("delete", name)

    assert json.loads(out) == ([] if _ours(either) else None)


@pytest.mark.conforms("cli: list", "cli: list --format", "cli: list --quiet")
def test_list(either: Cli) -> None:
    """A table, JSON, or ids; both sort by id."""
    first, second = either.running("sleep", "60"), either.running("true")
    either.wait_for(second, "stopped")
    table = [line.split() for line in either.ok("list").splitlines()]
    states = json.loads(either.ok("list", "--format=json"))
    quiet = either.ok("list", "-q").split()
    either.ok("pause", first)
    paused = [state["status"] for state in json.loads(either.ok("list", "-f", "json"))]
    for name in (first, second):
        either.ok("delete", "--force", name)

    assert table[0] == ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"]
    assert [row[0] for row in table[1:]] == quiet == [state["id"] for state in states] == [first, second]
    assert [row[2] for row in table[1:]] == ["running", "stopped"]
    assert paused == ["paused", "stopped"]
    assert json.loads(either.ok("list", "-f", "json")) == ([] if _ours(either) else None)


def _shape(value: Any) -> Any:
    """The keys of a document, to any depth; what a list holds counts as one."""
    if isinstance(value, dict):
        return {key: _shape(each) for key, each in value.items()}
    return [_shape(value[0])] if isinstance(value, list) and value else type(value).__name__


@requires("cgroup_v1")
@pytest.mark.conforms("cli: events --stats")
def test_stats(either: Cli) -> None:
    """What clients read of the statistics, with plausible values."""
    name = either.new_id()
    either.write("sleep", "60", edit=_limited)
    assert either.quiet("run", "-d", name) == 0
    line = either.ok("events", "--stats", name)
    either.ok("delete", "--force", name)
    event = json.loads(line)
    data = event["data"]

    assert line.count("\n") == 1
    assert (event["type"], event["id"]) == ("stats", name)
    parts = {"cpu", "cpuset", "memory", "pids", "blkio", "hugetlb", "intel_rdt", "network_interfaces"}
    assert set(data) == parts
    assert data["pids"] == {"current": 1, "limit": 50}
    assert data["memory"]["usage"]["limit"] == data["memory"]["raw"]["hierarchical_memory_limit"] == 32 * M
    assert 0 < data["memory"]["usage"]["usage"] <= data["memory"]["usage"]["max"] < 32 * M
    assert {"usage", "swap", "kernel", "kernelTCP", "raw"} <= set(data["memory"])
    assert 0 < data["cpu"]["usage"]["total"] < 5e9
    assert len(data["cpu"]["usage"]["percpu"]) >= len(os.sched_getaffinity(0))
    assert {"kernel", "user", "percpu_kernel", "percpu_user"} <= set(data["cpu"]["usage"])


def _limited(config: dict[str, Any]) -> None:
    memory = {"limit": 32 * M, "swap": 32 * M}
    config["linux"]["resources"] = {"memory": memory, "pids": {"limit": 50}}


@pytest.mark.conforms("cli: events", "cli: events --interval")
def test_events_come_until_the_container_is_gone(either: Cli) -> None:
    """Statistics at each interval; then it ends by itself, and well."""
    name = either.running("sleep", "60")
    with either.popen("events", "--interval", "50ms", name) as process:
        assert process.stdout is not None
        begun = time.monotonic()
        events = [json.loads(process.stdout.readline()) for _ in range(3)]
        took = time.monotonic() - begun
        either.ok("delete", "--force", name)
        code = process.wait(10)

    assert [event["type"] for event in events] == ["stats"] * 3
    assert took < 5, "two intervals of the five seconds that they have by default"
    assert code == 0


@requires("cgroup")
@pytest.mark.conforms("cli: events")
def test_events_tell_of_lack_of_memory(either: Cli) -> None:
    """As it happens, not at the next interval."""
    name = either.new_id()
    either.write("sleep", "60", edit=_limited)
    assert either.quiet("run", "-d", name) == 0
    with either.popen("events", "--interval", "100ms", name) as process:
        assert process.stdout is not None
        process.stdout.readline()  # now it watches
        either("exec", name, "dd", "if=/dev/zero", "of=/dev/null", "bs=64M", "count=1")
        events = (json.loads(line) for line in itertools.islice(process.stdout, 50))
        event = next((event for event in events if event["type"] != "stats"), None)
        either.ok("delete", "--force", name)
        process.wait(10)

    assert event == {"type": "oom", "id": name}


@pytest.mark.conforms("cli: run")
@pytest.mark.parametrize("script, code", [("exit 0", 0), ("exit 7", 7), ("kill -KILL $$", 137), ("kill -TERM $$", 143)])
def test_exit_codes(either: Cli, script: str, code: int) -> None:
    """Of a process in the container: its own, and 128 and the signal's number."""
    name = either.running("sleep", "60")
    done = either("exec", name, "sh", "-c", f"{script}; sleep 60")
    either.ok("delete", "--force", name)
    either.write("sh", "-c", f"sh -c '{script}; exit 3'; exit $?")
    ran = either("run", either.new_id())

    assert (done.code, ran.code) == (code, code)


@pytest.mark.conforms("cli: --log", "cli: --log-format")
@pytest.mark.parametrize("form", ["json", "text"])
def test_errors_are_logged(either: Cli, tmp_path: Path, form: str) -> None:
    """In the file that the client named, in the words that it looks for."""
    either.write("nosuch")
    log = tmp_path / "log"
    code = either("--log", log, f"--log-format={form}", "run", either.new_id()).code
    lines = log.read_text().splitlines()
    entries = [json.loads(line) for line in lines] if form == "json" else []

    assert code == 1
    assert "executable file not found in $PATH" in lines[-1]
    if form == "json":
        assert set(entries[-1]) >= {"level", "msg", "time"}
        assert entries[-1]["level"] == "error"
    else:
        assert lines[-1].startswith('time="')
        assert "level=error" in lines[-1]


@pytest.mark.conforms("cli: --systemd-cgroup")
def test_systemd_that_is_not_there(either: Cli) -> None:
    """A cgroup that systemd should make is one clear error, and other verbs take the flag."""
    if os.path.isdir("/run/systemd/system"):
        pytest.skip("this kernel lacks nothing: systemd is its init")
    either.write("true", edit=lambda config: config["linux"].update(cgroupsPath="a.slice:b:c"))
    done = either("--systemd-cgroup", "run", either.new_id())

    assert (done.code, done.out) == (1, "")
    assert "systemd" in done.err


def test_less_isolation_by_name(either: Cli) -> None:
    """The root is still the container's alone, and processes can join it."""
    name = either.new_id()
    either.write("sleep", "60")
    assert either.quiet("run", "-d", "--no-pivot", "--no-new-keyring", name) == 0
    inside = either.ok("exec", name, "ls", "/").split()
    mounts = either.ok("exec", name, "cat", "/proc/self/mountinfo").splitlines()
    either.ok("delete", "--force", name)

    assert inside == sorted({*os.listdir(either.rootfs), "dev", "proc", "sys"})
    assert len([line for line in mounts if line.split()[4] == "/"]) == 1


@requires("cgroup_v1")
@pytest.mark.conforms("cli: exec --cgroup")
def test_exec_in_a_cgroup_below(either: Cli) -> None:
    """In the hierarchy that is named, where somebody has made one."""
    name = either.running("sleep", "60")
    pid = _pid(either, name)
    lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    own = next(line.split(":")[2] for line in lines if line.split(":")[1] == "pids")
    below = Path(f"/sys/fs/cgroup/pids{own}/below")
    below.mkdir()
    inside = either.ok("exec", "--cgroup", "pids:below", name, "cat", "/proc/self/cgroup").splitlines()
    missing = either("exec", "--cgroup", "pids:nosuch", name, "true")
    below.rmdir()
    either.ok("delete", "--force", name)
    places = {line.split(":")[1]: line.split(":")[2] for line in inside}

    assert places["pids"].endswith("/below")
    assert not places["memory"].endswith("/below")
    assert missing.code == 255


@pytest.mark.conforms("cli: exec")
def test_options_end_at_the_id(either: Cli) -> None:
    """What stands behind is the program's, whatever it looks like."""
    name = either.running("sleep", "60")
    out = either.ok("exec", "--cwd=/tmp", "-e", "A=b", name, "sh", "-c", 'echo "$PWD $A $*"', "sh", "--cwd", "-d", "--")
    either.ok("delete", "--force", name)

    assert out == "/tmp b --cwd -d --\n"
