"""The documentation holds: commands and examples run, tables are complete, links lead somewhere."""

import os
import re
import shlex
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from importlib.metadata import entry_points
from pathlib import Path
from typing import NamedTuple

import pytest

from tests import commands_page
from tests.examples import Block, block, blocks
from tests.requires import requires

_ROOT = Path(__file__).parents[2]
_README, _QUICKSTART = _ROOT / "README.md", _ROOT / "docs/quickstart.md"
_PAGES = [_README, *sorted((_ROOT / "docs").glob("*.md"))]
_BIN = Path(sys.executable).parent


class Run(NamedTuple):
    """How a block is run and what it must come to.

    Attributes:
        page: where the block stands.
        name: the block's name.
        beside: the blocks that are written to files first.
        status: the exit status.
        says: patterns that the output must match.
    """

    page: Path
    name: str
    beside: tuple[str, ...] = ()
    status: int = 0
    says: tuple[str, ...] = ()


_RUNS = [
    Run(_README, "suite", beside=(), says=(r"1 passed",)),
    Run(_README, "fixture", says=(r"1 passed",)),
    Run(_README, "bundle", says=(r"(?m)^ID +PID +STATUS",)),
    Run(_QUICKSTART, "inside-host", beside=("inside",), says=(r"1 passed",)),
    Run(_QUICKSTART, "hang-timeout", beside=("hang",), status=1, says=(r"test_hang\.py::test_hangs", r"(?i)timeout")),
    Run(_QUICKSTART, "container", beside=("ini",), says=(r"3 passed",)),
    Run(_QUICKSTART, "walk", says=(r'"status": *"created"', r"Name:\s+sleep", r"(?m)^sleeper +\d+ +running")),
]
_SET_UP = {"README.md": {"example", "test"}, "quickstart.md": set[str]()}

_OUTCOMES = {
    "test_prices": dict.fromkeys(
        (
            "test_total",
            "test_discount[0.1-9.0]",
            "test_discount[0.25-7.5]",
            "test_discount[0.5-5.0]",
            "test_discount_must_be_a_share",
            "test_receipt_is_printed",
            "test_receipt_is_written",
        ),
        "passed",
    )
    | dict.fromkeys(("test_sunday", "test_rounds_to_five_cents"), "skipped"),
    "test_intruder": dict.fromkeys(
        (
            "test_homes_hold_no_secret",
            "test_password_hashes_are_out_of_reach",
            "test_there_is_no_network",
            "test_environment_is_not_the_hosts",
            "test_other_processes_are_invisible",
            "test_scribbling_over_the_tree_stays_inside",
        ),
        "passed",
    ),
    "test_misbehaves": {
        "test_forks_without_end": "reached its limit of 64 processes",
        "test_eats_all_memory": r"out of memory \(limit 256m\)",
        "test_hangs": r"no answer within 5 s \(--ocirun-timeout\)",
        "test_leaves_with_a_lie": "it exited with status 0",
        "test_after_all_that": "passed",
    },
}
"""Every test of docs/example: how it ends, or for those that misbehave what its one red line must say."""


def _installed() -> None:
    if not entry_points(group="pytest11", name="ocirun"):
        pytest.skip("pytest-ocirun is not installed, so the examples' pytest would not know it")


def _shell(script: str, cwd: Path, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    dropped = ("CI", "OCIRUN_LANE", "OCIRUN_STRICT", "OCIRUN_EXPECT_INSTALLED", "PYTEST_CURRENT_TEST")
    environment = {name: value for name, value in os.environ.items() if name not in dropped}
    environment["PATH"] = f"{_BIN}:{environment.get('PATH', os.defpath)}"
    return subprocess.run(
        ["sh", "-euc", script],
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
        env=environment,
        timeout=timeout,
        stdin=subprocess.DEVNULL,
    )


def _write(found: Block, folder: Path) -> Path:
    """Save a block under the name that pytest expects of its kind."""
    path = folder / {"python": f"test_{found.name}.py", "ini": "pytest.ini"}[found.language]
    path.write_text(found.text, encoding="utf-8")
    return path


def test_every_example_is_run() -> None:
    """A block that is in no table here would be shown without being tried."""
    for page in (_README, _QUICKSTART):
        runs = [run for run in _RUNS if run.page == page]
        tried = {run.name for run in runs} | {name for run in runs for name in run.beside}

        assert {found.name for found in blocks(page)} - _SET_UP[page.name] == tried


@pytest.mark.slow
@requires("root", "cgroup", "overlay", "busybox")
@pytest.mark.parametrize("run", _RUNS, ids=lambda run: f"{run.page.stem}-{run.name}")
def test_example_runs(run: Run, tmp_path: Path, busybox_tarball: Path) -> None:
    """As a reader would run it, beside a root file system called rootfs.tar."""
    _installed()
    shutil.copy(busybox_tarball, tmp_path / "rootfs.tar")
    (tmp_path / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
    for name in run.beside:
        _write(block(run.page, name), tmp_path)
    if run.name == "suite":
        (tmp_path / "tests").mkdir()
        (tmp_path / "tests/test_one.py").write_text("def test_one(): pass\n", encoding="utf-8")
    main = block(run.page, run.name)
    script = main.text if main.language == "sh" else f"pytest {_write(main, tmp_path).name}"
    done = _shell(script, tmp_path)

    assert done.returncode == run.status, done.stdout + done.stderr
    for pattern in run.says:
        assert re.search(pattern, done.stdout + done.stderr), done.stdout + done.stderr


@pytest.mark.slow
@requires("root", "cgroup", "overlay")
def test_example_suite_ends_as_readme_says(tmp_path: Path) -> None:
    """README's first command: each test of docs/example has its outcome, and the tree is untouched."""
    _installed()
    tree = tmp_path / "docs/example"
    shutil.copytree(_ROOT / "docs/example", tree, ignore=shutil.ignore_patterns("__pycache__", ".pytest_cache"))
    before = {path: path.read_bytes() for path in tree.rglob("*") if path.is_file()}
    command = block(_README, "example").text.split("&&")[-1].replace(".venv/bin/", "")
    done = _shell(
        f"{command.strip()} --junitxml={shlex.quote(str(tmp_path / 'junit.xml'))} -p no:cacheprovider", tmp_path
    )

    assert done.returncode == pytest.ExitCode.TESTS_FAILED, done.stdout + done.stderr
    found: dict[str, dict[str, str]] = {}
    for case in ET.parse(tmp_path / "junit.xml").iter("testcase"):
        told = [(part.tag, f"{part.get('message')} {part.text}") for part in case if part.tag != "system-out"]
        module = (case.get("classname") or "").rpartition(".")[2]
        outcome = "passed" if not told else "skipped" if told[0][0] == "skipped" else told[0][1]
        found.setdefault(module, {})[case.get("name") or ""] = outcome
    assert {module: set(tests) for module, tests in found.items()} == {m: set(t) for m, t in _OUTCOMES.items()}
    for module, tests in _OUTCOMES.items():
        for name, expected in tests.items():
            if expected in {"passed", "skipped"}:
                assert found[module][name] == expected, name
            else:
                assert found[module][name] not in {"passed", "skipped"}, name
                assert re.search(expected, done.stdout), f"{name}: {done.stdout}"
    assert {path: path.read_bytes() for path in tree.rglob("*") if path.is_file()} == before


def test_set_up_commands_are_one_line_each() -> None:
    """Both begin alike, so either may be first, and each is one line to copy."""
    first, second = block(_README, "example").text, block(_README, "test").text

    assert first.count("\n") == second.count("\n") == 1
    assert first.startswith("python3 -m venv .venv && .venv/bin/pip install -q . && .venv/bin/pytest ")
    assert second == "python3 -m venv .venv && .venv/bin/pip install -q '.[test]' && .venv/bin/pytest\n"


def test_every_option_is_in_the_reference() -> None:
    """docs/configuration.md has a row for each option that exists, and for no other."""
    done = subprocess.run(
        [sys.executable, "-P", "-m", "pytest", "-p", "pytest_ocirun.plugin.entry", "--help"],
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
        env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONPATH": str(_ROOT)},
    )
    assert done.returncode == 0, done.stderr
    page = (_ROOT / "docs/configuration.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(--ocirun-[\w-]+)", page, re.MULTILINE)

    assert sorted(rows) == sorted(set(re.findall(r"^ +(--ocirun-[\w-]+)", done.stdout, re.MULTILINE)))


def test_the_commands_page_is_the_command_line() -> None:
    """Made anew by `python -m tests.commands_page`."""
    assert commands_page.PAGE.read_text(encoding="utf-8") == commands_page.page()


@pytest.mark.slow
def test_the_conformance_page_is_what_the_tests_claim() -> None:
    """Made anew by `python -m tests.conformance_page`; no claim of what there is not, and nothing without one."""
    # Behind whatever is installed, which is what the tests are about.
    path = f"import sys; sys.path.append({str(_ROOT)!r})"
    program = f"{path}; import runpy; runpy.run_module('tests.conformance_page', None, '__main__')"
    done = subprocess.run(
        [sys.executable, "-c", program, "--print"],
        capture_output=True,
        text=True,
        check=False,
        cwd=_ROOT,
        env={name: value for name, value in os.environ.items() if not name.startswith(("OCIRUN_", "PYTEST_"))},
    )

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == (_ROOT / "docs/conformance.md").read_text(encoding="utf-8").splitlines()


@pytest.mark.parametrize("page", _PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    """Relative links, and paths of the checkout in code, exist."""
    text = page.read_text(encoding="utf-8")
    targets = re.findall(r"\]\((?!https?:|#)([^)#]+)", text)

    assert [target for target in targets if not (page.parent / target).exists()] == []


def test_changelog_fragments_are_named_by_rule() -> None:
    """ISSUE.KIND.md with a known kind, and something to say."""
    folder = _ROOT / "docs/changelog.d"
    kinds = "|".join(re.findall(r"^- `(\w+)`:", (folder / "README.md").read_text(encoding="utf-8"), re.MULTILINE))
    fragments = sorted(path for path in folder.iterdir() if path.name != "README.md")

    assert kinds == "feature|change|fix|security|doc"
    assert [path.name for path in fragments if not re.fullmatch(rf"(\d+|\+[\w-]+)\.({kinds})\.md", path.name)] == []
    assert [path.name for path in fragments if not path.read_text(encoding="utf-8").strip()] == []
