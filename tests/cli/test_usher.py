"""The usher: what stands between the command line's Python and a container's program, so that nobody can overwrite it.

CVE-2019-5736: whoever makes the runtime execute itself inside, or opens its ``/proc/PID/exe``, gets a file to write to.
"""

import os
import stat
from pathlib import Path

import pytest

from tests.cli.conftest import Cli, Config
from tests.requires import requires

pytestmark = [requires("root", "busybox", "usher"), pytest.mark.lane("v2")]

_ATTACK = """
    readlink /proc/1/exe
    exec 8< /proc/1/exe
    touch /tmp/open
    while [ -e /tmp/open ]; do sleep 0.01; done
    echo overwritten >> /proc/self/fd/8
"""


def _with_tmp(config: Config) -> None:
    config["mounts"].append({"destination": "/tmp", "type": "tmpfs", "source": "tmpfs"})


def test_what_waits_for_the_start_cannot_be_written_to(cli: Cli) -> None:
    """The init of a created container is a sealed memory file, also for who holds it open until it runs no more."""
    name = cli.new_id()
    cli.write("sh", "-c", "rm /tmp/open; sleep 0.3", edit=_with_tmp)
    assert cli.quiet("create", name) == 0
    attack = cli.popen("exec", name, "sh", "-c", _ATTACK)
    while cli("exec", name, "test", "-e", "/tmp/open").code:
        assert attack.poll() is None
    cli.ok("start", name)
    out, err = attack.communicate(timeout=10)
    cli.wait_for(name, "stopped")
    cli.ok("delete", name)

    assert out == "/memfd:ocirun (deleted)\n"
    assert "write error: Operation not permitted" in err


@pytest.mark.parametrize("verb", ["run", "exec"])
@pytest.mark.parametrize("program", ["/proc/self/exe", "/script", "/link"])
def test_a_program_that_is_the_runtime_itself_does_nothing(cli: Cli, tmp_path: Path, verb: str, program: str) -> None:
    """It is the usher once more, whose file descriptors are gone: it ends with 127."""
    (cli.rootfs / "script").write_text("#!/proc/self/exe\n", encoding="ascii")
    (cli.rootfs / "script").chmod(0o755)
    (cli.rootfs / "link").symlink_to("/proc/self/exe")
    try:
        if verb == "run":
            cli.write(program, "-c", "print('Python')")
            done = cli("run", cli.new_id())
        else:
            name = cli.running("sleep", "60")
            done = cli("exec", name, program, "-c", "print('Python')")
            cli.ok("delete", "--force", name)
    finally:
        (cli.rootfs / "script").unlink()
        (cli.rootfs / "link").unlink()

    assert (done.code, done.out) == (127, "")


def test_who_may_trace_meets_no_unprotected_python(cli: Cli) -> None:
    """Once something in the container has got CAP_SYS_PTRACE by an exec, the next ones come from the stage.

    There the interpreter is on a read-only mount of a namespace that has no other process: what can be seen of it from
    the host is a mount that the host does not have.
    """
    name = cli.running("sleep", "60")
    before = _mount_namespaces_of_execs(cli, name)
    assert cli("exec", "--cap", "CAP_SYS_PTRACE", name, "true").code == 0
    after = _mount_namespaces_of_execs(cli, name)
    cli.ok("delete", "--force", name)

    assert before == "from here"
    assert after == "from the stage"


def _mount_namespaces_of_execs(cli: Cli, name: str) -> str:
    """Where the process that attends an exec stands: its executable lies on a mount of its own if on the stage."""
    with cli.popen("exec", name, "sh", "-c", "echo up; cat") as attending:
        assert attending.stdout
        assert attending.stdin
        attending.stdout.readline()
        mounts = Path(f"/proc/{attending.pid}/mountinfo").read_text(encoding="utf-8")
        executable = os.readlink(f"/proc/{attending.pid}/exe")
        attending.stdin.close()
    return "from the stage" if f" {executable} ro" in mounts else "from here"


def test_a_failed_execve_is_told_to_who_starts(cli: Cli) -> None:
    """The usher tells, since Python is gone by then: which program, and why."""
    path = cli.rootfs / "not-a-program"
    path.write_bytes(b"\x7fELF nonsense")
    path.chmod(path.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)
    name = cli.new_id()
    try:
        cli.write("/not-a-program")
        assert cli.quiet("create", name) == 0
        done = cli("start", name)
        cli.wait_for(name, "stopped")
        cli.ok("delete", name)
    finally:
        path.unlink()

    assert done.code == 1
    assert "execute ['/not-a-program']: Exec format error (/not-a-program)" in done.err


def test_nothing_of_the_usher_reaches_the_program(cli: Cli) -> None:
    """Neither fds nor variables nor arguments."""
    program = ["sh", "-c", "echo /proc/self/fd/*; tr '\\0' ' ' < /proc/$$/cmdline; echo"]
    cli.write(*program)
    fds, arguments = cli.ok("run", cli.new_id()).splitlines()
    cli.write("env", edit=lambda config: config["process"].update(env=["PATH=/bin", "A=1"]))
    environment = cli.ok("run", cli.new_id())

    # The shell's own is the directory.
    assert fds == "/proc/self/fd/0 /proc/self/fd/1 /proc/self/fd/2 /proc/self/fd/3"
    assert arguments == f"{' '.join(program)} "
    assert environment == "PATH=/bin\nA=1\nHOME=/root\n"
