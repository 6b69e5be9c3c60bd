"""The wait for the kernel that is begun ahead of a move between cgroups."""

import os
import signal
import time
from pathlib import Path

import pytest

from pytest_ocirun.runtime.cgroups.grace import Helper
from tests.requires import requires


@requires("root", "cgroup_v1")
def test_the_helper_stays_where_it_is_and_is_gone_in_the_end() -> None:
    """It moves itself to its own cgroups; afterwards there is nobody to wait for."""
    helper = Helper()
    pid = helper._pid
    places = Path(f"/proc/{pid}/cgroup").read_text(encoding="utf-8")
    helper.end()
    helper.end()

    assert pid > 0
    assert places == Path("/proc/self/cgroup").read_text(encoding="utf-8")
    with pytest.raises(ChildProcessError):
        os.waitpid(pid, 0)


@requires("root", "cgroup_v1")
def test_a_caller_that_ignores_the_end_of_children_is_no_problem() -> None:
    """The kernel reaps the helper then, and nobody else is hit or waited for."""
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        helper = Helper()
        helper.stop()
        time.sleep(0.05)
        helper.end()
    finally:
        signal.signal(signal.SIGCHLD, before)

    assert helper._pidfd == -1
