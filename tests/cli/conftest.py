"""The command line as a user meets it: a process of its own, a bundle on disk, a state root of its own.

After each test nothing may be left: no state, cgroup, mount or process.
"""

import glob
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import pytest_ocirun
from tests.requires import requires

PACKAGE_PARENT = Path(pytest_ocirun.__file__).parents[1]
BOOT = f"import sys; sys.path.append({str(PACKAGE_PARENT)!r}); from pytest_ocirun.cli.__main__ import main; main()"
SAME_NAMESPACES = (
    "for n in $(ls /proc/1/ns); do"
    ' test "$(readlink /proc/1/ns/$n)" = "$(readlink /proc/self/ns/$n)" || echo other $n; done'
)
"""Prints which namespaces the init does not share."""

_OWN_ENTRIES = {"@work", "@seccomp"}
_numbers = itertools.count(1)

Config = dict[str, Any]
Edit = Callable[[Config], None]


@dataclass(frozen=True, slots=True)
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str


@dataclass(slots=True)
class Cli:
    """``ocirun`` with a state root of its own.

    Attributes:
        root: the state root.
        bundle: where commands run, a directory that may hold a config.json.
        rootfs: the root file system for bundles.
        ids: what containers were named.
    """

    root: Path
    bundle: Path
    rootfs: Path
    ids: list[str] = field(default_factory=list)

    def new_id(self) -> str:
        """An id that no other run uses: cgroups are named by it."""
        self.ids.append(f"t{os.getpid()}-{next(_numbers)}")
        return self.ids[-1]

    def command(self, *args: str | Path) -> list[str]:
        """The argv."""
        return [sys.executable, "-I", "-c", BOOT, "--root", str(self.root), *map(str, args)]

    def __call__(self, *args: str | Path, input: str = "", **more: Any) -> Done:
        """Run it to its end; its output is its own and its containers'."""
        done = subprocess.run(
            self.command(*args),
            check=False,
            capture_output=True,
            text=True,
            input=input,
            timeout=60,
            cwd=more.pop("cwd", self.bundle),
            **more,
        )
        return Done(done.returncode, done.stdout, done.stderr)

    def quiet(self, *args: str | Path, **more: Any) -> int:
        """Run what leaves processes behind, which would keep pipes of ours open; the exit status."""
        null = subprocess.DEVNULL
        return subprocess.run(
            self.command(*args), check=False, stdin=null, stdout=null, stderr=null, timeout=60, cwd=self.bundle, **more
        ).returncode

    def popen(self, *args: str | Path, **more: Any) -> subprocess.Popen[str]:
        """Start it."""
        pipe = subprocess.PIPE
        options = {"stdin": pipe, "stdout": pipe, "stderr": pipe, "text": True, "cwd": self.bundle, **more}
        return subprocess.Popen(self.command(*args), **options)

    def ok(self, *args: str | Path, **more: Any) -> str:
        """Run it, insist on success; what it printed."""
        done = self(*args, **more)
        assert (done.code, done.err) == (0, "")
        return done.out

    def write(self, *argv: str, edit: Edit | None = None) -> None:
        """Write a bundle: the default config, running ``argv`` without a terminal."""
        (self.bundle / "config.json").unlink(missing_ok=True)
        self.ok("spec")
        config = json.loads((self.bundle / "config.json").read_text())
        config["root"]["path"] = str(self.rootfs)
        config["process"] |= {"args": list(argv), "terminal": False}
        if edit is not None:
            edit(config)
        (self.bundle / "config.json").write_text(json.dumps(config))

    def status(self, container_id: str) -> str:
        """A container's status."""
        status: str = json.loads(self.ok("state", container_id))["status"]
        return status

    def wait_for(self, container_id: str, status: str) -> None:
        """Wait until a container has that status."""
        deadline = time.monotonic() + 10
        while self.status(container_id) != status:
            assert time.monotonic() < deadline, f"{container_id} is still {self.status(container_id)}"
            time.sleep(0.01)

    def running(self, *argv: str, edit: Edit | None = None) -> str:
        """A container that runs ``argv``; its id."""
        name = self.new_id()
        self.write(*argv, edit=edit)
        assert self.quiet("run", "--detach", name) == 0
        return name

    def left(self) -> list[str]:
        """What is there that belongs to this state root or its containers."""
        found = [str(path) for path in self.root.glob("*") if path.name not in _OWN_ENTRIES]
        for name in self.ids:
            found += glob.glob(f"/sys/fs/cgroup/**/{name}", recursive=True)
        mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()
        found += [line for line in mounts if str(self.root) in line]
        return found + [text for _pid, text in self._processes()]

    def _processes(self) -> Iterator[tuple[int, str]]:
        """Processes of ours or in one of our containers' cgroups, but for zombies that the host's init has to reap."""
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                cgroups = (entry / "cgroup").read_text(encoding="utf-8").split()
                state = (entry / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
            except OSError:
                continue
            inside = any(line.endswith(f"/{name}") for line in cgroups for name in self.ids)
            if state != "Z" and (str(self.root) in command or inside):
                yield int(entry.name), f"{entry.name} {state} {command[:120]}"

    def clear(self) -> None:
        """Remove everything, for a test that failed in the middle."""
        for path in self.root.glob("*"):
            if path.name not in _OWN_ENTRIES:
                self("delete", "--force", path.name)
        for pid, _text in list(self._processes()):
            os.kill(pid, signal.SIGKILL)


class Runc(Cli):
    """Debian's runc with a state root of its own: the control."""

    def command(self, *args: str | Path) -> list[str]:
        """The argv."""
        return ["runc", "--root", str(self.root), *map(str, args)]


@pytest.fixture
def cli(tmp_path: Path, busybox_rootfs: Path) -> Iterator[Cli]:
    """The command line; leaves nothing behind, or the test has failed."""
    yield from _checked(Cli, tmp_path, busybox_rootfs)


@pytest.fixture(params=[Cli, pytest.param(Runc, marks=requires("runc"))], ids=["ocirun", "runc"])
def either(request: pytest.FixtureRequest, tmp_path: Path, busybox_rootfs: Path) -> Iterator[Cli]:
    """Ours, and runc as the control: the same test holds for both."""
    yield from _checked(request.param, tmp_path, busybox_rootfs)


def _checked(kind: type[Cli], tmp_path: Path, rootfs: Path) -> Iterator[Cli]:
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    cli = kind(tmp_path / "root", bundle, rootfs)
    try:
        yield cli
        deadline = time.monotonic() + 5
        while (left := cli.left()) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert left == []
    finally:
        cli.clear()
