"""The suite's own frame: probes, strictness, the leak guard, the shared inputs, the unprivileged user."""

import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from tests import leaks
from tests.requires import lack, lane, requires
from tests.unprivileged import User

_FRAME = Path(__file__).parent


@pytest.fixture
def framed(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """A suite below this one's frame, run in a process of its own."""
    for name in ("CI", "OCIRUN_STRICT", "OCIRUN_LANE"):
        monkeypatch.delenv(name, raising=False)
    root = _FRAME.parent
    pytester.makeconftest((root / "conftest.py").read_text(encoding="utf-8").replace("__file__", repr(str(root / "x"))))
    pytester.makefile(".ini", pytest="[pytest]\nmarkers =\n  requires: x\n  lane: x\naddopts = --import-mode=importlib")
    (pytester.path / "suite").mkdir()
    frame = (_FRAME / "conftest.py").read_text(encoding="utf-8")
    (pytester.path / "suite/conftest.py").write_text(frame, encoding="utf-8")
    return pytester


def _suite(framed: pytest.Pytester, text: str) -> pytest.RunResult:
    (framed.path / "suite/test_it.py").write_text(text, encoding="utf-8")
    return framed.runpytest_subprocess("-rs", "suite")


def test_unknown_word_is_an_error() -> None:
    """A misspelt requirement cannot pass for one that holds."""
    with pytest.raises(ValueError, match="no probe for \\['rooot'\\]"):
        requires("rooot")


def test_unknown_word_in_a_bare_mark_stops_the_run(framed: pytest.Pytester) -> None:
    """The same when the mark is used without its function."""
    result = _suite(framed, "import pytest\n@pytest.mark.requires('rooot')\ndef test(): pass\n")

    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*test_it.py::test*rooot*"])


@pytest.mark.parametrize("strict, outcome", [(False, "skipped"), (True, "failed")])
def test_a_plain_skip_fails_only_when_strict(
    framed: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, strict: bool, outcome: str
) -> None:
    """In CI nobody may skip in silence, in whichever phase; an xfail stays one."""
    monkeypatch.setenv("CI", "true" if strict else "")
    text = """
        import pytest
        def test_skips(): pytest.skip("not today")
        @pytest.fixture
        def absent(): pytest.skip("no such thing")
        def test_in_setup(absent): pass
        @pytest.mark.xfail
        def test_known(): assert False
    """
    result = _suite(framed, "\n".join(line[8:] for line in text.splitlines()))

    counts = result.parseoutcomes()
    assert counts.pop("xfailed") == 1
    assert sum(counts.values()) == 2
    if outcome == "failed":
        assert counts == {"failed": 1, "errors": 1}
        result.stdout.fnmatch_lines(["*not today*", "*A skip is a failure here*"])
    else:
        assert counts == {"skipped": 2}


def test_the_kernels_lack_may_skip_when_strict(framed: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel without the feature is named and excused."""
    monkeypatch.setenv("CI", "true")
    text = """
import pytest
from tests import requires
requires._PROBES["antigravity"] = lambda: requires.Lack("it has never been merged", kernel=True)
@pytest.mark.requires("antigravity")
def test_flies(): pass
"""
    result = _suite(framed, text)

    result.assert_outcomes(skipped=1)
    result.stdout.fnmatch_lines(["*this kernel lacks antigravity: it has never been merged*"])
    assert result.ret == pytest.ExitCode.OK


def test_a_process_left_behind_fails_the_run(framed: pytest.Pytester) -> None:
    """An orphan in a session of its own is found by its environment, and named."""
    text = """
import subprocess
def test_leaves(): subprocess.run(["sh", "-c", "setsid sleep 7.25 >/dev/null 2>&1 &"], check=True)
"""
    result = _suite(framed, text)

    result.assert_outcomes(passed=1)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["LEFT BEHIND: process * sleep 7.25"])


@requires("root")
def test_mounts_groups_and_state_left_behind_are_found() -> None:
    """What carries our name on the host is seen, and gone once removed."""
    before = leaks.take()
    script = 'mount -t tmpfs ocirun-leak /mnt; mount -t tmpfs none /run; mkdir -p /run/ocirun/leak; exec "$@"'
    take = """
import sys; sys.path.append(".")
from tests import leaks
leaks.begin()
for thing in leaks.take().values(): print(thing.kind, thing.text)
"""
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-euc", script, "sh", sys.executable, "-c", take],
        capture_output=True,
        text=True,
        check=True,
        cwd=_FRAME.parent,
    )
    seen = [line for line in done.stdout.splitlines() if "leak" in line]

    assert [line.split()[0] for line in seen] == ["mount", "state"], done.stdout
    assert not [thing for thing in leaks.left(before, alone=False, patience=0) if "leak" in thing.text]


@requires("root", "unprivileged")
def test_unprivileged_user_reaches_its_python(unprivileged_user: User) -> None:
    """The user has an id of its own, no groups, and can import what rootless tests need."""
    code = "import os, pytest, pytest_ocirun; print(os.getuid(), os.getgroups(), pytest_ocirun.__version__)"
    done = unprivileged_user.run([unprivileged_user.python, "-c", code])

    assert done.stderr == ""
    assert done.stdout.startswith(f"{unprivileged_user.uid} [] ")


def test_busybox_tarball_holds_a_root(busybox_tarball: Path) -> None:
    """A shell, its links and the directories that a container mounts upon."""
    with tarfile.open(busybox_tarball) as archive:
        names = set(archive.getnames())
        assert archive.getmember("./bin/sh").linkname == "busybox"

    assert {"./bin/busybox", "./proc", "./sys", "./dev", "./tmp", "./etc/passwd"} <= names


@pytest.mark.lane("v2", "rootless")
def test_the_lane_is_what_it_says() -> None:
    """The rootless lane has no root, the v2 lane nothing but cgroup v2 with all its controllers."""
    if lane() == "rootless":
        assert lack("root") is not None
        assert os.getgroups() == []
    if lane() == "v2":
        assert lack("cgroup_v2") is None
        assert lack("cgroup_v1") is not None


def test_probes_answer() -> None:
    """Every probe ends in an answer on this host."""
    assert lack("busybox") is None or "busybox" in str(lack("busybox"))
    assert lack("cgroup") is None or lack("cgroup_v1") is not None
