"""``ocirun exec`` in a running container."""

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import SAME_NAMESPACES, Cli
from tests.requires import requires

pytestmark = requires("root")


@pytest.fixture
def name(cli: Cli) -> Iterator[str]:
    """A running container's id."""
    yield from _running(cli)


@pytest.fixture
def of_either(either: Cli) -> Iterator[str]:
    """The id of a running container of ours, and of one of runc's."""
    yield from _running(either)


def _running(cli: Cli) -> Iterator[str]:
    name = cli.running("sleep", "60", edit=lambda config: config["process"]["env"].append("OWN=1"))
    yield name
    cli.ok("delete", "--force", name)


@pytest.mark.conforms("cli: exec")
def test_the_process_is_inside(cli: Cli, name: str) -> None:
    """It shares the container's namespaces, root and cgroups, and its default environment."""
    script = f"{SAME_NAMESPACES}; hostname; echo $OWN; pwd; cat /proc/self/cgroup"
    out = cli("exec", name, "sh", "-c", script).out.splitlines()

    assert out[:3] == ["ocirun", "1", "/"]
    assert any(line.endswith((f"/{name}", "::/")) for line in out[3:])


@pytest.mark.parametrize("code", [0, 3, 255])
def test_the_exit_status_is_the_processes(either: Cli, of_either: str, code: int) -> None:
    """128 + N for signals, as with run."""
    assert either("exec", of_either, "sh", "-c", f"exit {code}").code == code


def test_a_killed_process_is_128_and_its_number(either: Cli, of_either: str) -> None:
    """The container goes on."""
    assert either("exec", of_either, "sh", "-c", "kill -KILL $$").code == 137
    assert either.status(of_either) == "running"


def test_streams_pass_through(either: Cli, of_either: str) -> None:
    """Input, output and errors, apart."""
    done = either("exec", of_either, "sh", "-c", "cat; echo err >&2", input="in")

    assert (done.out, done.err) == ("in", "err\n")


@pytest.mark.conforms(
    "cli: exec --user",
    "cli: exec --additional-gids",
    "cli: exec --cwd",
    "cli: exec --env",
    "cli: exec --cap",
    "cli: exec --no-new-privs",
)
@pytest.mark.parametrize(
    "options, script, expected",
    [
        ([], "id -u; id -g; id -G", "0 0 0"),
        (["-u", "1000"], "id -u; id -g", "1000 0"),
        (["--user=1000:1001"], "id -u; id -g", "1000 1001"),
        (["-g", "5", "-g", "6"], "id -G", "0 5 6"),
        (["--cwd", "/tmp"], "pwd", "/tmp"),
        (["-e", "A=1", "-e", "B=2 3", "-e", "A=4", "-e", "C=a=b"], 'echo "$A" "$B" "$C" $OWN', "4 2 3 a=b 1"),
        (["--cap", "CAP_CHOWN"], "grep CapEff /proc/self/status", "CapEff: 0000000020000421"),
        (["--no-new-privs=false"], "grep NoNewPrivs /proc/self/status", "NoNewPrivs: 0"),
        (["--no-new-privs"], "grep NoNewPrivs /proc/self/status", "NoNewPrivs: 1"),
    ],
)
def test_options_do_what_runcs_do(either: Cli, of_either: str, options: list[str], script: str, expected: str) -> None:
    """Each one what it says, and nothing else."""
    assert either.ok("exec", *options, of_either, "sh", "-c", script).split() == expected.split()


@pytest.mark.parametrize(
    "options, script, expected",
    [
        (["-u", "4294967294:7"], "id -u; id -g", "4294967294 7"),
        (["-g", "5", "--additional-gids", "6"], "id -G", "0 5 6"),
        (["-e", "A=1", "--env=B=2 3", "-e", "A=4", "-e", "C=a=b"], 'echo "$A" "$B" "$C" $OWN', "4 2 3 a=b 1"),
    ],
)
def test_options_change_the_process(cli: Cli, name: str, options: list[str], script: str, expected: str) -> None:
    """Where runc 1.1.5 fails: a name and its letter in one line, and the upper half of the ids."""
    assert cli.ok("exec", *options, name, "sh", "-c", script).split() == expected.split()


@pytest.mark.parametrize(
    "user",
    [
        "1:",
        ":1",
        "",
        " 1",
        "01",
        "+1",
        "-1",
        "1_0",
        "0x1",
        "root",
        "4294967295",
        "99999999999999999999",
        "1:2:3",
        "\u0661",
    ],
)
def test_users_are_read_strictly(cli: Cli, name: str, user: str) -> None:
    """A user that is no number never becomes root (CVE-2026-30892)."""
    done = cli("exec", "-u", user, name, "id", "-u")

    assert (done.code, done.out) == (255, "")
    assert done.err.startswith("ocirun: --user: expected a number from 0 to 4294967294, got ")


def test_nothing_is_inheritable(either: Cli, of_either: str) -> None:
    """No capability passes to what the process executes (CVE-2022-29162)."""
    out = either.ok("exec", "--cap", "CAP_CHOWN", of_either, "grep", "-E", "CapInh|CapAmb", "/proc/self/status")

    assert set(out.split()[1::2]) == {"0" * 16}


@pytest.mark.parametrize(
    "words, complaint",
    [
        (["nosuch"], "executable file not found in $PATH"),
        (["/nosuch"], "No such file or directory (/nosuch)"),
        (["/etc"], "Permission denied: it is a directory (/etc)"),
        (["/etc/passwd"], "Permission denied (/etc/passwd)"),
    ],
)
def test_what_cannot_be_executed_is_255(cli: Cli, name: str, words: list[str], complaint: str) -> None:
    """With the words that podman looks for."""
    done = cli("exec", name, *words)

    assert (done.code, done.out) == (255, "")
    assert complaint in done.err.splitlines()[0]


@pytest.mark.parametrize(
    "options, complaint",
    [
        (["--cwd", "nosuch"], "$.cwd: must be an absolute path"),
        (["--cwd", "/nosuch"], "go to the working directory /nosuch"),
        (["-e", "FOO"], "$.env[3]: expected NAME=VALUE, got 'FOO'"),
        (["--cap", "CHOWN"], "--cap: no capability 'CHOWN'"),
        (["-g", "x"], "--additional-gids: expected a number"),
        (["--cgroup", "nosuch"], "join the cgroup /sys/fs/cgroup/"),
        (["--cgroup", "../x"], "join the cgroup '../x' below the container's: it leads upwards"),
        (["--cgroup", "nosuch:x"], "join the nosuch cgroup 'x' below the container's: no such hierarchy"),
        (["--cgroup", ":x"], "--cgroup :x: expected [CONTROLLER[,CONTROLLER...]:]PATH"),
        (["--console-socket", "/x"], "use --console-socket: it is for a detached process with a terminal only"),
        (["-t", "-d"], "give a detached process a terminal: nobody would hold its other end"),
    ],
)
def test_bad_options_are_refused(cli: Cli, name: str, options: list[str], complaint: str) -> None:
    """Nothing runs."""
    done = cli("exec", *options, name, "echo", "ran")

    assert done.code in (1, 255)
    assert done.out == ""
    assert done.err.startswith(f"ocirun: {complaint}")


@pytest.mark.conforms("cli: exec --process")
def test_a_whole_process_from_a_file(cli: Cli, name: str, tmp_path: Path) -> None:
    """--process says everything; nothing of the container's own process is in it."""
    process = {
        "user": {"uid": 7, "gid": 8},
        "args": ["sh", "-c", "id -u; id -g; pwd; env | grep -v SHLVL; grep CapBnd /proc/self/status"],
        "env": ["PATH=/bin", "B=c"],
        "cwd": "/tmp",
    }
    (tmp_path / "process.json").write_text(json.dumps(process))
    out = cli.ok("exec", "--process", tmp_path / "process.json", name)

    assert sorted(out.split()) == sorted(
        ["7", "8", "/tmp", "PATH=/bin", "B=c", "HOME=/", "PWD=/tmp", "CapBnd:", "0" * 16]
    )


@pytest.mark.conforms(
    "cli: exec --process", "config: $.process.scheduler", "config: $.process.ioPriority",
    "config: $.process.execCPUAffinity", "config: $.process.rlimits", "config: $.process.user.umask",
)  # fmt: skip
def test_a_process_from_a_file_has_its_own_scheduling(cli: Cli, name: str, tmp_path: Path) -> None:
    """What few processes ask for, a process of its own may ask for too; what is not known is ignored."""
    cpu = min(os.sched_getaffinity(0))
    look = "set -- $(cat /proc/self/stat); echo ${19} ${41}; ionice; grep Cpus_allowed_list /proc/self/status"
    look += "; ulimit -n; umask; cat /proc/self/oom_score_adj"
    process = {
        "user": {"uid": 0, "gid": 0, "umask": 0o27, "future": 1},
        "args": ["sh", "-c", look],
        "env": ["PATH=/bin"],
        "cwd": "/",
        "scheduler": {"policy": "SCHED_BATCH", "nice": 5, "future": []},
        "ioPriority": {"class": "IOPRIO_CLASS_BE", "priority": 2},
        "execCPUAffinity": {"initial": str(cpu), "final": str(cpu)},
        "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 123, "hard": 123}],
        "oomScoreAdj": 77,
    }
    (tmp_path / "process.json").write_text(json.dumps(process))
    out = cli.ok("exec", "--process", tmp_path / "process.json", name)

    assert out.splitlines() == ["5 3", "best-effort: prio 2", f"Cpus_allowed_list:\t{cpu}", "123", "0027", "77"]


@pytest.mark.parametrize(
    "text, complaint",
    [
        ("{", "not JSON at line 1"),
        ("[]", "$: expected object, got array"),
        ('{"user": {"uid": 0, "gid": 0}, "args": ["a"]}', "$.cwd: required, but missing"),
        ('{"user": {"uid": "0", "gid": 0}, "args": ["a"], "cwd": "/"}', '$.user.uid: expected integer, got string "0"'),
        ('{"user": {"uid": 0, "gid": 0}, "args": [], "cwd": "/"}', "$.args: must name a program"),
        (
            '{"user": {"uid": 0, "gid": 0}, "args": ["a"], "cwd": "/", "scheduler": {"policy": "SCHED_X"}}',
            "$.scheduler.policy: 'SCHED_X' is none of",
        ),
    ],
)
def test_a_bad_process_file_is_refused(cli: Cli, name: str, tmp_path: Path, text: str, complaint: str) -> None:
    """With the place in the document."""
    (tmp_path / "process.json").write_text(text)
    done = cli("exec", "-p", tmp_path / "process.json", name)

    assert (done.code, done.out) == (255, "")
    assert complaint in done.err


@pytest.mark.conforms("cli: exec --detach", "cli: exec --pid-file")
def test_a_detached_process_goes_on(either: Cli, of_either: str, tmp_path: Path) -> None:
    """And its pid file names it, as we see it."""
    assert either.quiet("exec", "-d", "--pid-file", tmp_path / "pid", of_either, "sleep", "77") == 0
    pid = int((tmp_path / "pid").read_text())

    assert Path(f"/proc/{pid}/cmdline").read_bytes() == b"sleep\x0077\x00"


def test_a_detached_process_that_cannot_start_is_an_error(cli: Cli, name: str) -> None:
    """Told before exec returns."""
    assert cli.quiet("exec", "-d", name, "nosuch") == 255


def test_signals_are_passed_on(either: Cli, of_either: str) -> None:
    """To the process, not to the container."""
    script = "trap 'exit 42' TERM; echo ready; while :; do sleep 0.05; done"
    with either.popen("exec", of_either, "sh", "-c", script) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGTERM)

        assert process.wait(10) == 42
    assert either.status(of_either) == "running"


def test_the_process_gets_three_fds(either: Cli, of_either: str) -> None:
    """None of ours, none of the host's (CVE-2016-8649)."""
    assert either.ok("exec", of_either, "ls", "/proc/self/fd").split() == ["0", "1", "2", "3"]


def test_preserved_fds_are_passed(cli: Cli, name: str) -> None:
    """From 3 on."""
    null = os.open(os.devnull, os.O_RDONLY)
    done = cli("exec", "--preserve-fds=0", name, "true")
    missing = cli("exec", "--preserve-fds=1", name, "true")
    os.close(null)

    assert (done.code, missing.code) == (0, 255)
    assert missing.err.startswith("ocirun: pass fd 3: ")


def test_exec_works_before_the_start(cli: Cli) -> None:
    """A created container has everything but its program."""
    name = cli.new_id()
    cli.write("sleep", "60")
    assert cli.quiet("create", name) == 0
    out = cli("exec", name, "hostname").out
    status = cli.status(name)
    cli.ok("delete", name)

    assert (out, status) == ("ocirun\n", "created")


def test_exec_in_a_stopped_container_is_an_error(cli: Cli) -> None:
    """Status 255, and it says which status the container has."""
    name = cli.running("true")
    cli.wait_for(name, "stopped")
    done = cli("exec", name, "true")
    cli.ok("delete", name)

    assert (done.code, "it is stopped" in done.err) == (255, True)
