"""The wait for the kernel that is begun ahead of a move between cgroups."""

import os
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
