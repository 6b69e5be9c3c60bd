"""``ocirun run``: exit codes, signals, standard streams, detaching."""

import json
import os
import shlex
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Cli
from tests.requires import requires

pytestmark = requires("root")


def _wait_ready(process: "subprocess.Popen[str]") -> None:
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"


@pytest.mark.parametrize("code", [0, 1, 7, 255])
def test_the_exit_status_is_the_programs(either: Cli, code: int) -> None:
    """And nothing is left."""
    either.write("sh", "-c", f"exit {code}")

    assert either("run", either.new_id()).code == code


@pytest.mark.parametrize("name", ["TERM", "KILL", "SEGV"])
def test_a_signals_end_is_128_and_its_number(cli: Cli, name: str) -> None:
    """As shells count; sh runs as pid 2, since pid 1 takes no signal of its own making."""
    cli.write("sh", "-c", f"sh -c 'kill -{name} $$'; exit $?")

    assert cli("run", cli.new_id()).code == 128 + getattr(signal, f"SIG{name}")


def test_killing_the_init_is_128_and_its_number(either: Cli) -> None:
    """The same when the container's own init is what was killed."""
    name = either.new_id()
    either.write("sh", "-c", "echo ready; sleep 60")
    with either.popen("run", name) as process:
        _wait_ready(process)
        either.ok("kill", name, "KILL")

        assert process.wait(10) == 137


@pytest.mark.conforms("cli: run")
def test_the_standard_streams_are_the_programs(either: Cli) -> None:
    """Input, output and errors pass through untouched and apart."""
    either.write("sh", "-c", "cat; echo err >&2")

    done = either("run", either.new_id(), input="in\x00put\n")

    assert (done.out, done.err) == ("in\x00put\n", "err\n")


def test_a_megabyte_passes(either: Cli) -> None:
    """No copy of ours lies between."""
    either.write("cat")
    data = "0123456789abcde\n" * 65536

    assert either("run", either.new_id(), input=data).out == data


def test_closed_streams_do_no_harm(cli: Cli) -> None:
    """What we open must not become the container's stdin or stdout."""
    cli.write("sh", "-c", "exec 3>&1; readlink /proc/self/fd/0 >&2; readlink /proc/self/fd/3 >&2")
    command = shlex.join(cli.command("run", cli.new_id()))
    done = subprocess.run(
        ["sh", "-c", f"exec {command} <&- >&-"], check=False, capture_output=True, text=True, cwd=cli.bundle
    )

    assert (done.returncode, done.stderr) == (0, "/dev/null\n/dev/null\n")


def test_the_container_gets_three_fds(either: Cli) -> None:
    """Whatever we and our caller have open; the fourth is of ls itself."""
    extra = os.open("/", os.O_RDONLY)
    os.set_inheritable(extra, True)
    either.write("ls", "/proc/self/fd")
    done = either("run", either.new_id(), pass_fds=[extra])
    os.close(extra)

    assert done.out.split() == ["0", "1", "2", "3"]


@pytest.mark.conforms("cli: run --preserve-fds")
def test_preserved_fds_are_passed(cli: Cli) -> None:
    """--preserve-fds N, from 3 on; one that is not open is an error."""
    name = cli.new_id()
    cli.write("sh", "-c", "cat <&3")
    command = shlex.join(cli.command("run", "--preserve-fds", "1", name))
    done = subprocess.run(
        ["sh", "-c", f"exec {command} 3<config.json"], check=False, capture_output=True, text=True, cwd=cli.bundle
    )
    missing = cli("run", "--preserve-fds", "1", name)

    assert (done.returncode, done.stdout) == (0, (cli.bundle / "config.json").read_text())
    assert (missing.code, missing.err.splitlines()[0]) == (1, "ocirun: pass fd 3: Bad file descriptor")


def test_activation_fds_are_passed(cli: Cli) -> None:
    """sd_listen_fds(3): fds from 3 on, and the variables that say so."""
    cli.write("sh", "-c", "cat <&3; echo $LISTEN_FDS $LISTEN_PID $$")
    command = shlex.join(cli.command("run", cli.new_id()))
    done = subprocess.run(
        ["sh", "-c", f"export LISTEN_FDS=1 LISTEN_PID=$$; exec {command} 3<config.json"],
        check=False,
        capture_output=True,
        text=True,
        cwd=cli.bundle,
    )

    assert done.stdout == (cli.bundle / "config.json").read_text() + "1 1 1\n"


@pytest.mark.parametrize("name", ["TERM", "INT", "HUP", "QUIT", "USR1", "USR2", "WINCH"])
def test_signals_are_passed_on(cli: Cli, name: str) -> None:
    """What we get is for the container."""
    number = getattr(signal, f"SIG{name}")
    cli.write("sh", "-c", f"trap 'exit 42' {name}; echo ready; while :; do sleep 0.05; done")
    # A shell starts what it puts in the background with INT and QUIT ignored, this suite included.
    with cli.popen("run", cli.new_id(), preexec_fn=lambda: signal.signal(number, signal.SIG_DFL)) as process:
        _wait_ready(process)
        process.send_signal(number)

        assert process.wait(10) == 42


def test_an_ignored_hangup_stays_ignored(cli: Cli) -> None:
    """``nohup ocirun run``: the container goes on as well."""
    cli.write("sh", "-c", "trap 'exit 42' HUP; echo ready; sleep 0.5; exit 3")
    with cli.popen("run", cli.new_id(), preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN)) as process:
        _wait_ready(process)
        process.send_signal(signal.SIGHUP)

        assert process.wait(10) == 3


def test_the_program_starts_with_default_signals(cli: Cli) -> None:
    """Neither Python's ignored SIGPIPE nor what our caller ignored or blocked reaches it."""
    cli.write("grep", "Sig[BI]", "/proc/self/status")
    done = cli("run", cli.new_id(), preexec_fn=lambda: signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1]))

    assert {line.split()[1] for line in done.out.splitlines()} == {"0" * 16}


@pytest.mark.parametrize("step", range(10))
def test_an_interruption_leaves_nothing(cli: Cli, step: int) -> None:
    """SIGTERM at any moment: before, while or after the container is made. Its program ends when it is told to."""
    cli.write("sh", "-c", "trap 'exit 5' TERM; while :; do sleep 0.02; done")
    null = subprocess.DEVNULL
    process = cli.popen("run", cli.new_id(), stdin=null, stdout=null, stderr=null)
    time.sleep(step * 0.015)
    deadline = time.monotonic() + 10
    while process.poll() is None and time.monotonic() < deadline:
        process.terminate()
        time.sleep(0.05)

    assert process.returncode in (-signal.SIGTERM, 128 + signal.SIGTERM, 5)
    assert [path.name for path in cli.root.glob("t*")] == []


@pytest.mark.conforms("cli: run --detach", "cli: run --pid-file")
def test_a_detached_container_goes_on(either: Cli, tmp_path: Path) -> None:
    """Run -d returns 0 when the program runs; the pid file has its pid."""
    name = either.new_id()
    either.write("sleep", "60")
    assert either.quiet("run", "-d", "--pid-file", tmp_path / "pid", name) == 0
    state = json.loads(either.ok("state", name))
    either.ok("delete", "--force", name)

    assert (state["status"], str(state["pid"])) == ("running", (tmp_path / "pid").read_text())


@pytest.mark.conforms("cli: run --keep")
def test_a_kept_container_stays_stopped(either: Cli) -> None:
    """--keep leaves the deletion to the user."""
    name = either.new_id()
    either.write("true")
    code = either("run", "--keep", name).code
    status = either.status(name)
    either.ok("delete", name)

    assert (code, status) == (0, "stopped")


def test_another_terminal_may_delete_it(either: Cli) -> None:
    """Delete --force of a container that somebody waits for: both end well."""
    name = either.new_id()
    either.write("sh", "-c", "echo ready; sleep 60")
    with either.popen("run", name) as process:
        _wait_ready(process)
        either.ok("delete", "--force", name)
        code, err = process.wait(10), process.stderr.read() if process.stderr else ""

    assert (code, err) == (137, "")


def test_the_default_config_runs_as_runcs_does(cli: Cli) -> None:
    """Root without root's powers: three capabilities, a read-only root, an own host name, loopback only."""
    script = "id -u; hostname; touch /x 2>/dev/null || echo read-only; ls /sys/class/net"
    cli.write("sh", "-c", f"{script}; grep -E 'CapEff|NoNew' /proc/self/status")

    assert cli.ok("run", cli.new_id()).split() == [
        *("0", "ocirun", "read-only", "lo"),
        *("CapEff:", "0000000020000420", "NoNewPrivs:", "1"),
    ]


def test_a_container_sees_its_own_cgroups_only(cli: Cli) -> None:
    """With a cgroup namespace and without one, even where it may write."""
    name = cli.new_id()

    def edit(config: dict[str, Any]) -> None:
        kept = [each for each in config["linux"]["namespaces"] if each["type"] != "cgroup"]
        config["linux"]["namespaces"] = kept
        config["mounts"][-1]["options"].remove("ro")

    cli.write("sh", "-c", "cat $(find /sys/fs/cgroup -name cgroup.procs)", edit=edit)
    found = cli.ok("run", name).split()

    assert found
    assert {int(pid) for pid in found} <= set(range(1, 10)), "a pid of the host, or one outside (0)"


@pytest.mark.conforms("cli: --debug")
def test_debug_says_each_step(cli: Cli) -> None:
    """In the order of their doing, before anything is done."""
    cli.write("true")
    lines = cli("--debug", "run", cli.new_id()).err.splitlines()

    assert lines[0] == f"ocirun: take a detached copy of the mount at {cli.rootfs}"
    assert lines[-1] == "ocirun: execute ['true']"


def test_warnings_go_to_the_log(cli: Cli, tmp_path: Path) -> None:
    """What is odd but carried on with."""
    cli.write("true", edit=lambda config: config["process"]["capabilities"]["bounding"].append("CAP_FUTURE"))
    done = cli("--log", tmp_path / "log", "run", cli.new_id())

    assert (done.code, done.err) == (0, "")
    assert 'level=warning msg="$.process.capabilities.bounding[3]' in (tmp_path / "log").read_text()


@requires("root")
@pytest.mark.conforms("config: $.linux.namespaces[].path")
def test_the_callers_mount_namespace_cannot_be_joined(cli: Cli) -> None:
    """On the stage it is no more the runtime's own, and is known all the same; the container's root is missing."""

    def edit(config: dict[str, Any]) -> None:
        for each in config["linux"]["namespaces"]:
            if each["type"] == "mount":
                each["path"] = f"/proc/{os.getpid()}/ns/mnt"
        config["root"]["path"] = "/nosuch"  # were it let through, it would end here

    cli.write("true", edit=edit)
    done = cli("run", cli.new_id())

    assert done.code == 1
    assert "is the host's: its root would be replaced" in done.err
