"""The suite's frame: ``requires`` marks, no silent skips in CI, nothing left behind, shared inputs."""

from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from tests import images, leaks, unprivileged
from tests.requires import KERNEL, alone, check_words, lack, lane, requires, strict

_BEFORE = pytest.StashKey[leaks.Snapshot]()
_LEFT = pytest.StashKey[list[leaks.Thing]]()
_NEEDED_BY_FIXTURE = {"debian_tarball": "mmdebstrap", "busybox_rootfs": "busybox", "unprivileged_user": "unprivileged"}


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Refuse unknown words, and leave out what the lane is not for."""
    kept: list[pytest.Item] = []
    dropped: list[pytest.Item] = []
    for item in items:
        for mark in item.iter_markers("requires"):
            try:
                check_words(mark.args)
            except ValueError as error:
                raise pytest.UsageError(f"{item.nodeid}: {error}") from error
        for name in set(getattr(item, "fixturenames", ())) & set(_NEEDED_BY_FIXTURE):
            item.add_marker(requires(_NEEDED_BY_FIXTURE[name]))
        (kept if _in_lane(item) else dropped).append(item)
    if dropped:
        config.hook.pytest_deselected(items=dropped)
        items[:] = kept


def _in_lane(item: pytest.Item) -> bool:
    words = {word for mark in item.iter_markers("requires") for word in mark.args}
    lanes = {name for mark in item.iter_markers("lane") for name in mark.args}
    match lane():
        case "":
            return True
        case "rootless":
            return "root" not in words and ("rootless" in lanes or bool(words & {"userns", "unprivileged"}))
        case "v2":
            return "cgroup_v1" not in words and ("v2" in lanes or bool(words & {"cgroup", "cgroup_v2"}))
        case other:
            raise pytest.UsageError(f"OCIRUN_LANE={other}: known lanes are v2 and rootless")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip, or in CI fail, what this host cannot run."""
    for mark in item.iter_markers("requires"):
        for word in mark.args:
            found = lack(word)
            if found:
                pytest.skip(f"{KERNEL} {word}: {found.why}" if found.kernel else f"needs {word}: {found.why}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """In CI, a skip that is not the kernel's fault is a failure."""
    report = yield
    if not hasattr(report, "wasxfail"):
        _refuse_skip(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """The same for modules that skip themselves."""
    report = yield
    _refuse_skip(report)
    return report


def _refuse_skip(report: pytest.TestReport | pytest.CollectReport) -> None:
    if report.skipped and strict():
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        if KERNEL not in reason:
            report.outcome = "failed"
            report.longrepr = f"{reason}\nA skip is a failure here (CI or OCIRUN_STRICT is set)."


def pytest_sessionstart(session: pytest.Session) -> None:
    """Remember what the host looks like."""
    session.config.stash[_BEFORE] = leaks.begin()


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """A run that leaves something behind has failed."""
    found = session.config.stash[_LEFT] = leaks.left(session.config.stash[_BEFORE], alone=alone())
    if any(thing.certain or alone() for thing in found) and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: "pytest.TerminalReporter", config: pytest.Config) -> None:
    """Name what was left behind."""
    for thing in config.stash.get(_LEFT, []):
        blame = "LEFT BEHIND" if thing.certain or alone() else "new, perhaps of another run"
        terminalreporter.write_line(f"{blame}: {thing.kind} {thing.text}", red=thing.certain or alone())


@pytest.fixture(scope="session")
def debian_tarball() -> Path:
    """A real Debian 12 root file system with its own python3 and python3-pytest (.tar.zst), made once."""
    return images.debian(("python3", "python3-pytest"))


@pytest.fixture(scope="session")
def busybox_rootfs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root file system of one static busybox and its links, as a directory that tests must not change."""
    return images.busybox(tmp_path_factory.mktemp("busybox") / "rootfs")


@pytest.fixture(scope="session")
def busybox_tarball(busybox_rootfs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same as an uncompressed tarball."""
    return images.pack(busybox_rootfs, tmp_path_factory.mktemp("busybox-tar") / "busybox.tar")


@pytest.fixture(scope="session")
def unprivileged_user() -> Iterator[unprivileged.User]:
    """A user without any right, with a Python that it can reach; the same whoever runs the suite."""
    with unprivileged.prepared() as user:
        yield user
