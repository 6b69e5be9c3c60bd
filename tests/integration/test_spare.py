"""Spares: a process that has joined a container ahead of its program is in nothing different from one that has not."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pytest_ocirun.errors import OcirunError
from pytest_ocirun.linux import fds
from pytest_ocirun.oci.process import Rlimit, User
from pytest_ocirun.runtime.child import Child
from tests.boxes import Bare, Launch, confined, shell
from tests.requires import requires

pytestmark = [requires("root", "userns", "seccomp", "busybox"), pytest.mark.lane("v2")]

_LOOK = """
grep -E '^(TracerPid|Uid|Gid|Groups|Umask|Threads|Sig|Shd|Cap|NoNewPrivs|Seccomp|Cpus|Mems)' /proc/self/status
cat /proc/self/cgroup /proc/self/mountinfo /proc/self/limits /proc/self/oom_score_adj
readlink /proc/self/ns/*
ls -l /proc/self/fd | sed 's/.* \\([0-9]* -> .*\\)/\\1/;s/[0-9][0-9][0-9]*/N/'
env; pwd; umask; id; ulimit -a
"""


@pytest.fixture
def name(bare: Bare, busybox_rootfs: Path) -> Iterator[str]:
    """A running container of the bare runtime."""
    with bare.holder(confined(busybox_rootfs, "true")) as name:
        yield name


def _waiting(bare: Bare) -> dict[str, Child]:
    """The spares of a runtime."""
    spares = bare.runtime._joining()._spares
    assert spares is not None
    return spares._waiting


def test_a_program_finds_the_same_world(bare: Bare, name: str) -> None:
    """Privileges, namespaces, cgroups, mounts, limits, fds and environment are those of an ordinary exec."""
    how = {
        "env": ["PATH=/bin", "A=b"],
        "cwd": "/tmp",
        "user": User(uid=0, gid=0, umask=0o27),
        "rlimits": [Rlimit(type="RLIMIT_NOFILE", soft=50, hard=60)],
    }
    ordinary = bare.exec(name, "sh", "-c", _LOOK, **how)
    bare.runtime.prepare_exec(name)
    spare = bare.exec(name, "sh", "-c", _LOOK, **how)

    assert ordinary.end.code == spare.end.code == 0
    assert "NoNewPrivs:\t1" in spare.out
    assert "Seccomp:\t2" in spare.out
    assert spare.out.splitlines() == ordinary.out.splitlines()
    assert spare.err == ordinary.err


def test_a_spare_is_the_program_and_nothing_else(bare: Bare, name: str) -> None:
    """The process list holds the init and the program; the spare has become it, and the next exec has none."""
    bare.runtime.prepare_exec(name)
    first = bare.exec(name, "sh", "-c", "echo $$; set -- /proc/[0-9]*; echo $#")
    second = bare.exec(name, "sh", "-c", "echo $$; true")

    assert first.out.split() == ["2", "2"]  # itself and the init
    assert int(second.out) > 2


@pytest.mark.parametrize(
    "how",
    [
        {"args": ["no-such-program"]},
        {"args": ["/etc"]},
        {"args": ["/etc/passwd"]},
        {"args": ["pwd"], "cwd": "/nowhere"},
        {"args": ["pwd"], "cwd": "/proc/self/fd"},
        {"args": ["sh", "-c", "exit 127"]},
        {"args": ["id"], "user": (1000, 1000), "env": {"PATH": "/nowhere:/bin"}},
        {"args": ["sh", "-c", 'printf %s "$A" | wc -c'], "env": {"A": "x" * 100_000}},
        {"args": ["sh", "-c", 'printf %s "$A$B$C" | wc -c'], "env": dict.fromkeys("ABC", "x" * 100_000)},
        {"args": ["cat"], "input": "in"},
        {"args": ["sh", "-c", "kill -9 $$"]},
    ],
    ids=lambda how: " ".join(map(str, how["args"]))[:20] + how.get("cwd", ""),
)
def test_a_spare_ends_as_an_ordinary_exec(launch: Launch, how: dict[str, Any]) -> None:
    """Whether it could become the program, met an error or was unfit from the start: there is one result, or error."""
    told: list[tuple[object, ...]] = []
    for _turn in range(5):
        with launch() as box:
            time.sleep(0.03)
            try:
                result = box.exec(**how)
                told.append((result.exit_code, result.signal, result.stdout, result.stderr))
            except OcirunError as error:
                told.append((type(error).__name__, str(error).replace(box.id, "ID")))

    assert set(told) == {told[0]}


def test_a_spare_that_was_killed_is_not_missed(bare: Bare, name: str) -> None:
    """What runs in the container may end it; the exec goes the ordinary way then."""
    bare.runtime.prepare_exec(name)
    child = _waiting(bare)[name]
    child.wait_spawned()
    os.kill(child.pid, signal.SIGKILL)
    assert fds.readable(child.pidfd, 5)
    deadline = time.monotonic() + 5
    while not fds.readable(child.fileno(), 0.01) and time.monotonic() < deadline:
        pass
    ran = bare.exec(name, "sh", "-c", "echo here")

    assert (ran.end.code, ran.out) == (0, "here\n")


def test_root_of_the_container_cannot_look_into_a_spare(bare: Bare, name: str) -> None:
    """It is not dumpable: memory, environment, fds and root of the waiting Python are out of reach."""
    bare.runtime.prepare_exec(name)
    child = _waiting(bare).pop(name)  # the exec below is an ordinary one, beside it
    try:
        child.wait_spawned()
        deadline = time.monotonic() + 5
        while b"\0" not in Path(f"/proc/{child.pid}/cmdline").read_bytes() and time.monotonic() < deadline:
            pass
        ran = bare.exec(
            name,
            "sh",
            "-c",
            "test -d /proc/2; for f in environ mem maps stack; do cat /proc/2/$f >/dev/null && echo read $f; done; "
            "for f in fd root cwd exe; do readlink /proc/2/$f; ls /proc/2/$f/ && echo listed $f; done; "
            "echo x > /proc/2/oom_score_adj && echo written; true",
        )
    finally:
        child.close()

    assert ran.out == ""
    assert "denied" in ran.err


def test_an_unused_spare_ends_with_its_container(bare: Bare, busybox_rootfs: Path) -> None:
    """Nothing of it is left when the container is deleted."""
    with bare.holder(confined(busybox_rootfs, "true")) as name:
        bare.runtime.prepare_exec(name)
        child = _waiting(bare)[name]
        child.wait_spawned()
        pid, pidfd = child.pid, os.pidfd_open(child.pid)
    ended = fds.readable(pidfd, 5)
    os.close(pidfd)

    assert pid
    assert ended


def test_a_third_container_has_its_spare(launch: Launch) -> None:
    """What was launched twice alike is begun ahead and its first exec with it; limits hold all the same."""
    for _turn in range(6):
        with launch() as box:
            assert shell(box, "echo $$") == "2"
            time.sleep(0.05)
    box = launch()
    time.sleep(0.05)
    result = box.exec(["sh", "-c", "sleep 60 & sleep 60"], timeout=0.2)
    left = shell(box, "set -- /proc/[0-9]*; echo $#")

    assert result.timed_out
    assert result.signal == signal.SIGKILL
    assert left == "2"  # the init and the shell
