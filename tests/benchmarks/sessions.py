"""pytest itself: what the plugin costs a run that does not use it, and a run of 500 tests inside beside a plain one."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import entry_points
from pathlib import Path

from tests.benchmarks.launcher import Launcher
from tests.benchmarks.measure import TOTAL, Row

FILES, TESTS = 10, 50


@contextmanager
def start_rows(scratch: Path) -> Iterator[list[Row]]:
    """The start of pytest on one test, with the plugin blocked and with it installed but unused.

    Args:
        scratch: an empty directory.
    """
    _suite(scratch, files=1, tests=1)
    with Launcher(cwd=scratch) as launcher:
        command = [*_pytest(), "-q"]
        rows = [Row("pytest -p no:ocirun", lambda: {TOTAL: launcher.run([*command, "-p", "no:ocirun"])})]
        if any(point.name == "ocirun" for point in entry_points(group="pytest11")):
            rows.append(Row("pytest, plugin unused", lambda: {TOTAL: launcher.run(command)}))
        else:
            print("\nleft out: the plugin's start, as it is not installed in this environment")
        yield rows


@contextmanager
def suite_rows(scratch: Path) -> Iterator[list[Row]]:
    """500 trivial tests in 10 files, plain and inside.

    Args:
        scratch: an empty directory.
    """
    _suite(scratch, files=FILES, tests=TESTS)
    with Launcher(cwd=scratch) as launcher:
        plain = [*_pytest(), "-q"]
        inside = [*_pytest(), *_plugin(), "-q", "--ocirun-image=host"]
        yield [
            Row("plain", lambda: {TOTAL: launcher.run(plain)}),
            Row("inside, image host", lambda: {TOTAL: launcher.run(inside)}),
        ]


def _pytest() -> list[str]:
    return [os.path.join(os.path.dirname(sys.executable), "pytest"), "-p", "no:cacheprovider"]


def _plugin() -> list[str]:
    """Empty where pytest finds the plugin by itself."""
    found = any(point.name == "ocirun" for point in entry_points(group="pytest11"))
    return [] if found else ["-p", "pytest_ocirun.plugin.entry"]


def _suite(folder: Path, *, files: int, tests: int) -> None:
    (folder / "pytest.ini").write_text("[pytest]\n")
    for number in range(files):
        text = "".join(f"def test_{each}():\n    assert {each} >= 0\n\n\n" for each in range(tests))
        (folder / f"test_{number}.py").write_text(text)
