"""Runs suites twice, plainly and inside containers, in processes of their own."""

import difflib
import importlib.metadata
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

import pytest_ocirun
from tests.requires import lack, requires

_SOURCE = Path(pytest_ocirun.__file__).parents[1]
INSTALLED = any(entry.name == "ocirun" for entry in importlib.metadata.entry_points(group="pytest11"))

LOADED = () if INSTALLED else ("-p", "pytest_ocirun.plugin.entry")
"""What a pytest of its own needs to have the plugin: nothing where it is installed."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Every test in this folder makes real containers."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(requires("userns", "overlay", "seccomp"))


class Outcome(NamedTuple):
    """One run of pytest.

    Attributes:
        status: its exit status.
        text: standard output and standard error, times and addresses made alike, our own header lines left out.
        raw: the same, as it came.
    """

    status: int
    text: str
    raw: str

    def has(self, *parts: str) -> None:
        """Every part stands in the output, in this order."""
        place = 0
        for part in parts:
            found = self.raw.find(part, place)
            assert found >= 0, f"{part!r} is not in, or not in order in:\n{self.raw}"
            place = found + len(part)


def weaker() -> tuple[str, ...]:
    """What a user who may not set limits accepts."""
    return () if lack("cgroup") is None else ("--ocirun-require", "isolation")


Runner = Callable[..., Outcome]


@pytest.fixture
def plain(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Runner:
    """Run pytest in the test's directory: `plain("-v")`."""
    for name in ("CI", "OCIRUN_STRICT", "PYTEST_ADDOPTS", "BUILD_NUMBER"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLUMNS", "120")
    if not INSTALLED:
        monkeypatch.setenv("PYTHONPATH", str(_SOURCE), prepend=os.pathsep)

    def run(*arguments: str | Path) -> Outcome:
        command = (sys.executable, "-P", "-m", "pytest", *LOADED, *arguments)
        done = pytester.run(*command, timeout=120)
        raw = "\n".join([*done.outlines, *done.errlines])
        return Outcome(int(done.ret), _alike(raw), raw)

    return run


@pytest.fixture
def inside(plain: Runner) -> Runner:
    """The same, with the tests inside containers of `host`."""

    def run(*arguments: str | Path) -> Outcome:
        return plain("--ocirun-image", "host", *weaker(), *arguments)

    return run


@pytest.fixture
def same(plain: Runner, inside: Runner) -> Runner:
    """Run plainly and inside and refuse any difference; return the run inside."""

    def run(*arguments: str) -> Outcome:
        expected, actual = plain(*arguments), inside(*arguments)
        lines = difflib.unified_diff(
            expected.text.splitlines(), actual.text.splitlines(), "plain", "inside", lineterm="", n=2
        )
        difference = "\n".join(lines)
        assert not difference, difference
        assert expected.status == actual.status
        return actual

    return run


def _alike(text: str) -> str:
    text = "\n".join(line for line in text.splitlines() if not line.startswith("ocirun:"))
    text = re.sub(r"(?<= in )[\d.]+s( \([\d:]+\))?", "N", text)
    text = re.sub(r"=+( .* )=+$", r"=\1=", text, flags=re.MULTILINE)
    text = re.sub(r"^[\d.]+s (?=setup|call|teardown)", "N ", text, flags=re.MULTILINE)
    text = re.sub(r"\(\d+ durations? <", "(N durations <", text)
    text = re.sub(r"pytest-of-\w+/pytest-\d+", "pytest-N", text)
    return re.sub(r"0x[0-9a-f]+", "0x", text)
