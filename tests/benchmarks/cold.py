"""The command line, cold: every verb in a process of its own, beside runc and crun on the same bundles."""

import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path

from tests import images
from tests.benchmarks import as_podman, peers
from tests.benchmarks.launcher import Launcher
from tests.benchmarks.lifecycle import LIMITS, TRUE
from tests.benchmarks.measure import TOTAL, Row, Times

OWN = "ocirun"
PYTHON = "python"
_KINDS = {"": "spec", ", as podman": "podman", ", confined alike": "confined"}
_VERBS = ("run", "create", "start", "state", "list", "exec", "kill", "delete", "delete -f")
_PAUSE = 0.02
_FLOOR = [sys.executable, "-I", "-S", "-c", "import ctypes, json"]


def command_of(name: str) -> list[str] | None:
    """How to start a runtime; None where it is not installed."""
    if name != OWN:
        path = peers.program(name)
        return None if path is None else [path]
    script = os.path.join(os.path.dirname(sys.executable), OWN)
    return [script] if os.path.exists(script) else [sys.executable, "-m", "pytest_ocirun.cli"]


@contextmanager
def run_rows(scratch: Path) -> Iterator[list[Row]]:
    """``run`` of /bin/true, with the bundle of ``spec`` and with one that confines like the fixture.

    Args:
        scratch: an empty directory.
    """
    with _runtimes(scratch) as found:
        rows = []
        for suffix, kind in _KINDS.items():
            for name, launcher, command, bundles in found:
                whole = [*command, "run", "--bundle", str(bundles / kind)]
                rows.append(Row(f"{name} run{suffix}", _Run(launcher, whole, name)))
        rows.append(Row("python -I -S, ctypes and json", lambda: {TOTAL: found[0][1].run(_FLOOR)}))
        yield rows


@contextmanager
def verb_rows(scratch: Path) -> Iterator[list[Row]]:
    """A container's life by verbs, with a bundle as podman writes it: a phase for each, one row for each runtime.

    The last two rows say what a cold process costs at least: an interpreter that does nothing, and bubblewrap.

    Args:
        scratch: an empty directory.
    """
    with _runtimes(scratch) as found:
        launcher = found[0][1]
        rows = [Row(name, _Verbs(own, command, bundles, name)) for name, own, command, bundles in found]
        rows.append(Row(PYTHON, lambda: dict.fromkeys((*_VERBS, TOTAL), launcher.run(_FLOOR))))
        bwrap = peers.program("bwrap")
        if bwrap is not None:
            sandbox = peers.bubblewrap(bwrap, scratch / "rootfs", TRUE)
            rows.append(Row("bwrap", lambda: dict.fromkeys(("run", TOTAL), launcher.run(sandbox))))
        yield rows


class _Run:
    def __init__(self, launcher: Launcher, command: Sequence[str], name: str) -> None:
        self._launcher = launcher
        self._command = command
        self._ids = (f"bench-{os.getpid()}-{name}-{number}" for number in count(1))

    def __call__(self) -> Times:
        """Run a container to its end."""
        time.sleep(_PAUSE)  # as below
        return {TOTAL: self._launcher.run([*self._command, next(self._ids)])}


class _Verbs:
    def __init__(self, launcher: Launcher, command: Sequence[str], bundles: Path, name: str) -> None:
        self._launcher = launcher
        self._command = command
        self._once = str(bundles / "podman")
        self._lasting = str(bundles / "sleep")
        self._ids = (f"bench-{os.getpid()}-{name}-{number}" for number in count(1))

    def __call__(self) -> Times:
        """Lead containers through every verb."""
        once, name, forced = (next(self._ids) for _ in range(3))
        times = {
            "run": self._run("run", "--bundle", self._once, once),
            "create": self._run("create", "--bundle", self._lasting, name),
            "start": self._run("start", name),
            "state": self._run("state", name),
            "list": self._run("list"),
            "exec": self._run("exec", name, *TRUE),
            "kill": self._run("kill", name, "KILL"),
        }
        # Until the kernel has taken it apart: runc's delete refuses a container that still runs.
        time.sleep(0.05)
        times["delete"] = self._run("delete", name)
        self._run("run", "--detach", "--bundle", self._lasting, forced)
        times["delete -f"] = self._run("delete", "--force", forced)
        return {**times, TOTAL: sum(times.values())}

    def _run(self, *args: str) -> float:
        # Commands come one by one, and the kernel lets those that move a process between cgroups soon after another
        # move off a wait: without a pause whoever comes second in a table would be faster.
        time.sleep(_PAUSE)
        return self._launcher.run([*self._command, *args])


@contextmanager
def _runtimes(scratch: Path) -> Iterator[list[tuple[str, Launcher, list[str], Path]]]:
    rootfs = images.busybox(scratch / "rootfs")
    found = []
    with ExitStack() as stack:
        for name in (OWN, "runc", "crun"):
            command = command_of(name)
            if command is None:
                continue
            bundles = scratch / name
            bundles.mkdir()
            maker = "runc" if peers.program("runc") else "crun"
            peers.spec_bundle(bundles / "spec", rootfs, peers.program(maker) or maker, TRUE)
            peers.confined_bundle(bundles / "confined", rootfs, peers.program(maker) or maker, TRUE, LIMITS)
            as_podman.bundle(bundles / "podman", rootfs, peers.program(maker) or maker, TRUE)
            as_podman.bundle(bundles / "sleep", rootfs, peers.program(maker) or maker, ["/bin/sleep", "600"])
            hidden = peers.hidden_from_crun() if name == "crun" else []
            launcher = stack.enter_context(Launcher(without=hidden))
            # A state root of its own, so that `list` has one container to show.
            found.append((name, launcher, [*command, "--root", str(bundles / "state")], bundles))
        yield found
