"""The layout of cgroup hierarchies, told from the text of /proc."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import pytest_ocirun
from pytest_ocirun.errors import ConfigError
from pytest_ocirun.runtime.cgroups import Cgroup
from pytest_ocirun.runtime.cgroups.detect import layout, manager, restore
from pytest_ocirun.runtime.cgroups.none import NullCgroup

V2 = "32 25 0:28 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"
TMPFS = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n"
V1 = (
    TMPFS + "32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw shared:9 - cgroup cgroup rw,cpu,cpuacct\n"
    "35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
    "39 31 0:36 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n"
    "40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd\n"
)
UNIFIED = "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"


@pytest.mark.parametrize(
    "mountinfo, expected",
    [
        (V2, "v2"),
        (V1, "v1"),
        (V1 + UNIFIED, "hybrid"),
        (TMPFS, "none"),
        ("", "none"),
        (TMPFS + "40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd\n" + V2, "v2"),
    ],
)
def test_kind_follows_from_the_mounts(mountinfo: str, expected: str) -> None:
    """Named v1 hierarchies limit nothing, so they do not make a layout v1."""
    assert layout(mountinfo, "0::/\n").kind == expected


def test_controllers_that_share_a_hierarchy_share_its_mount_point() -> None:
    """cpu,cpuacct is one mount; xattr is an option and no controller."""
    found = layout(V1, "")

    assert found.v1 == {
        "cpu": "/sys/fs/cgroup/cpu,cpuacct",
        "cpuacct": "/sys/fs/cgroup/cpu,cpuacct",
        "memory": "/sys/fs/cgroup/memory",
        "pids": "/sys/fs/cgroup/pids",
        "name=systemd": "/sys/fs/cgroup/systemd",
    }


@pytest.mark.parametrize(
    "root, own, expected",
    [
        ("/", "0::/\n", "/sys/fs/cgroup"),
        ("/", "9:name=systemd:/x\n0::/user.slice/run-1.scope\n", "/sys/fs/cgroup/user.slice/run-1.scope"),
        ("/docker/abc", "0::/docker/abc/sub\n", "/sys/fs/cgroup/sub"),
        ("/docker/abc", "0::/docker/abc\n", "/sys/fs/cgroup"),
        ("/docker/abc", "0::/docker/abcdef\n", None),
        ("/", "0::/../sibling\n", None),
        ("/", "0::/gone (deleted)\n", None),
        ("/", "", None),
    ],
)
def test_own_cgroup_is_found_below_a_mount_that_shows_a_part(root: str, own: str, expected: str | None) -> None:
    """A container sees its own sub-tree mounted, and the path of it in /proc from further up."""
    assert layout(V2.replace(" / ", f" {root} ", 1), own).own_v2 == expected


def test_of_mounts_on_one_point_the_last_is_seen() -> None:
    """A container's part of the hierarchy may be bound over the whole."""
    found = layout(V2 + V2.replace(" / ", " /docker/abc ", 1), "0::/docker/abc/sub\n")

    assert found.own_v2 == "/sys/fs/cgroup/sub"


def test_octal_escapes_in_mount_points_are_undone() -> None:
    """A space is written as a backslash and 040."""
    assert layout(V2.replace("/sys/fs/cgroup", "/a\\040b\\134c"), "0::/\n").v2 == "/a b\\c"


def test_without_cgroups_every_limit_is_refused_with_a_fix() -> None:
    """Nothing mounted: the refusal says what is missing and what to do."""
    refused = manager(layout("", "")).availability()

    assert set(refused) == {"memory", "pids", "cpu", "cpuset"}
    assert all(found and "no cgroup hierarchy" in found.reason and "mount" in found.hint for found in refused.values())


def test_null_cgroup_survives_json() -> None:
    """What state.json keeps of no cgroup gives no cgroup."""
    paths = json.loads(json.dumps(NullCgroup().paths))

    assert isinstance(Cgroup.from_paths(paths), NullCgroup)


@pytest.mark.parametrize(
    "paths",
    [
        {},
        {"version": "v3", "dirs": {}, "made": []},
        {"version": "v2", "dirs": {}, "made": []},
        {"version": "v2", "dirs": {"unified": "relative"}, "made": []},
        {"version": "v2", "dirs": {"unified": "/sys/fs/cgroup/../../../etc"}, "made": []},
        {"version": "v2", "dirs": {"unified": "/etc/ssh"}, "made": ["/etc/ssh"]},
        {"version": "v2", "dirs": {"unified": "/sys/fs/cgroup"}, "made": ["/sys/fs/cgroup"]},
        {"version": "v1", "dirs": {"pids": 7}, "made": [], "tracker": "pids"},
        {"version": "v1", "dirs": {}, "made": [], "tracker": "pids"},
        {"version": "v1", "dirs": None, "made": [], "tracker": "pids"},
    ],
)
def test_restoring_refuses_what_is_no_cgroup_of_ours(paths: dict[str, object]) -> None:
    """A state file must not make us remove or kill elsewhere."""
    with pytest.raises(ConfigError):
        restore(paths)


def test_nothing_slow_is_imported() -> None:
    """Every start of the command line loads this; signal costs 7 ms, typing and dataclasses more."""
    program = (
        "import sys; sys.path.append(sys.argv[1])\n"
        "from pytest_ocirun.runtime.cgroups import delegate, detect, none, v1, v2\n"
        "detect.availability()\n"
        "print(*sys.modules)\n"
    )
    parent = Path(pytest_ocirun.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", program, parent], capture_output=True, check=True, text=True
    )
    slow = {"signal", "enum", "typing", "dataclasses", "pathlib", "re", "ctypes", "subprocess", "logging"}

    assert slow.isdisjoint(done.stdout.split())
