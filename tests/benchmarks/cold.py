"""The command line, cold: every verb in a process of its own, beside runc and crun on the same bundles."""

import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path

from tests import images
from tests.benchmarks import peers
from tests.benchmarks.launcher import Launcher
from tests.benchmarks.lifecycle import LIMITS, TRUE
from tests.benchmarks.measure import TOTAL, Row, Times

OWN = "ocirun"
_KINDS = {"": "spec", ", confined alike": "confined"}


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
        floor = [sys.executable, "-I", "-S", "-c", "import ctypes, json"]
        rows.append(Row("python -I -S, ctypes and json", lambda: {TOTAL: found[0][1].run(floor)}))
        yield rows


@contextmanager
def verb_rows(scratch: Path) -> Iterator[list[Row]]:
    """A container's life by verbs: a phase for each, one row for each runtime.

    Args:
        scratch: an empty directory.
    """
    with _runtimes(scratch) as found:
        yield [
            Row(name, _Verbs(launcher, command, bundles / "sleep", name)) for name, launcher, command, bundles in found
        ]


class _Run:
    def __init__(self, launcher: Launcher, command: Sequence[str], name: str) -> None:
        self._launcher = launcher
        self._command = command
        self._ids = (f"bench-{os.getpid()}-{name}-{number}" for number in count(1))

    def __call__(self) -> Times:
        """Run a container to its end."""
        return {TOTAL: self._launcher.run([*self._command, next(self._ids)])}


class _Verbs:
    def __init__(self, launcher: Launcher, command: Sequence[str], bundle: Path, name: str) -> None:
        self._launcher = launcher
        self._command = command
        self._bundle = bundle
        self._ids = (f"bench-{os.getpid()}-{name}-{number}" for number in count(1))

    def __call__(self) -> Times:
        """Lead a container through every verb."""
        name = next(self._ids)
        times = {
            "create": self._run("create", "--bundle", str(self._bundle), name),
            "start": self._run("start", name),
            "state": self._run("state", name),
            "list": self._run("list"),
            "exec": self._run("exec", name, *TRUE),
            "kill": self._run("kill", name, "KILL"),
        }
        # Until the kernel has taken it apart: runc's delete refuses a container that still runs.
        time.sleep(0.05)
        times["delete"] = self._run("delete", name)
        return {**times, TOTAL: sum(times.values())}

    def _run(self, *args: str) -> float:
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
            peers.spec_bundle(bundles / "sleep", rootfs, peers.program(maker) or maker, ["/bin/sleep", "600"])
            hidden = peers.hidden_from_crun() if name == "crun" else []
            launcher = stack.enter_context(Launcher(without=hidden))
            # A state root of its own, so that `list` has one container to show.
            found.append((name, launcher, [*command, "--root", str(bundles / "state")], bundles))
        yield found
