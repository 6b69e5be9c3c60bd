"""Limits, device rules and updates: each test runs against ocirun and against runc, so a difference is a failure.

cgroup v1 only: there every value that is written can be read back as it is, and runc 1.1 knows nothing newer on v2.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from pytest_ocirun.runtime.cgroups.detect import layout
from tests.cli.conftest import Cli, Config
from tests.requires import requires

pytestmark = requires("root", "runc", "cgroup_v1")

M = 1 << 20
LIMITS: dict[str, Any] = {
    "memory": {"limit": 64 * M, "swap": 96 * M, "reservation": 32 * M, "swappiness": 7, "disableOOMKiller": True},
    "cpu": {"shares": 512, "quota": 30000, "period": 60000, "cpus": "0", "mems": "0"},
    "pids": {"limit": 41},
}
FILES = {
    "memory.limit_in_bytes": str(64 * M),
    "memory.memsw.limit_in_bytes": str(96 * M),
    "memory.soft_limit_in_bytes": str(32 * M),
    "memory.swappiness": "7",
    "memory.oom_control": "oom_kill_disable 1",
    "cpu.shares": "512",
    "cpu.cfs_quota_us": "30000",
    "cpu.cfs_period_us": "60000",
    "cpuset.cpus": "0",
    "cpuset.mems": "0",
    "pids.max": "41",
}


def limited(config: Config) -> None:
    """All of them."""
    config["linux"]["resources"] |= LIMITS


def directories(either: Cli, name: str) -> dict[str, str]:
    """Controller to the container's cgroup, as the kernel counts its init."""
    pid = json.loads(either.ok("state", name))["pid"]
    found = {}
    for line in Path(f"/proc/{pid}/cgroup").read_text(encoding="utf-8").splitlines():
        _, controllers, path = line.split(":", 2)
        for controller in controllers.split(","):
            if controller in layout().v1:
                found[controller] = layout().v1[controller] + path
    return found


def values(either: Cli, name: str, *files: str) -> dict[str, str]:
    """The first line of each file."""
    dirs = directories(either, name)
    paths = {file: f"{dirs[file.partition('.')[0]]}/{file}" for file in files}
    return {file: Path(path).read_text(encoding="ascii").splitlines()[0] for file, path in paths.items()}


def test_limits_of_a_config(either: Cli) -> None:
    """The kernel's files hold the same."""
    name = either.running("sleep", "60", edit=limited)
    found = values(either, name, *FILES)
    either.ok("delete", "--force", name)

    assert found == FILES


@pytest.mark.parametrize(
    "rules, more",
    [
        ([], set()),
        ([{"allow": False, "access": "rwm"}], set()),
        ([{"allow": True, "type": "c", "major": 10, "minor": 229, "access": "rw"}], {"c 10:229 rw"}),
        (
            [
                {"allow": False, "access": "rwm"},
                {"allow": True, "type": "b", "major": 240, "access": "r"},
                {"allow": True, "type": "b", "major": 241, "minor": 3, "access": "rwm"},
                {"allow": False, "type": "b", "major": 241, "minor": 3, "access": "w"},
            ],
            {"b 240:* r", "b 241:3 rm"},
        ),
        ([{"allow": True, "access": "rwm"}], None),
    ],
)
def test_device_rules(either: Cli, rules: list[dict[str, Any]], more: set[str] | None) -> None:
    """The kernel keeps the same list; runc 1.1 gives /dev/net/tun to everybody, newer ones do not."""
    name = either.running("sleep", "60", edit=lambda config: config["linux"].update(resources={"devices": rules}))
    text = Path(directories(either, name)["devices"], "devices.list").read_text(encoding="ascii")
    either.ok("delete", "--force", name)
    usual = {f"c {numbers} rwm" for numbers in ("1:3", "1:5", "1:7", "1:8", "1:9", "5:0", "5:2", "136:*")}

    wanted = {"a *:* rwm"} if more is None else usual | more | {"c *:* m", "b *:* m"}
    assert set(text.splitlines()) - {"c 10:200 rwm"} == wanted


@pytest.mark.parametrize(
    "flags, changed",
    [
        (("--memory", "33554432"), {"memory.limit_in_bytes": str(32 * M)}),
        (
            ("--memory", "128m", "--memory-swap", "256m"),
            {"memory.limit_in_bytes": str(128 * M), "memory.memsw.limit_in_bytes": str(256 * M)},
        ),
        (("--memory-reservation", "16777216"), {"memory.soft_limit_in_bytes": str(16 * M)}),
        (("--cpu-share", "2048"), {"cpu.shares": "2048"}),
        (("--cpu-quota", "20000"), {"cpu.cfs_quota_us": "20000"}),
        (("--cpu-quota=-1",), {"cpu.cfs_quota_us": "-1"}),
        (
            ("--cpu-period", "50000", "--cpu-quota", "25000"),
            {"cpu.cfs_period_us": "50000", "cpu.cfs_quota_us": "25000"},
        ),
        (("--cpuset-cpus", "0-1"), {"cpuset.cpus": "0-1"}),
        (("--pids-limit", "77"), {"pids.max": "77"}),
        (("--pids-limit", "-1"), {"pids.max": "max"}),
    ],
)
def test_update(either: Cli, flags: tuple[str, ...], changed: dict[str, str]) -> None:
    """What a flag names is changed, and nothing else."""
    name = either.running("sleep", "60", edit=limited)
    either.ok("update", *flags, name)
    found = values(either, name, *FILES)
    either.ok("delete", "--force", name)

    assert found == FILES | changed


@pytest.mark.parametrize("paused", [False, True])
def test_update_of_resources(either: Cli, paused: bool) -> None:
    """From standard input, with zeros for what stays; in a paused container too."""
    text = json.dumps(
        {
            "memory": {"limit": 0, "reservation": 8 * M, "swap": 0, "kernel": 0, "kernelTCP": 0},
            "cpu": {"shares": 0, "quota": 10000, "period": 0, "realtimeRuntime": 0, "realtimePeriod": 0, "cpus": ""},
            "blockIO": {"weight": 0},
        }
    )
    name = either.running("sleep", "60", edit=limited)
    if paused:
        either.ok("pause", name)
    either.ok("update", "--resources", "-", name, input=text)
    found, status = values(either, name, *FILES), either.status(name)
    either.ok("delete", "--force", name)

    assert found == FILES | {"memory.soft_limit_in_bytes": str(8 * M), "cpu.cfs_quota_us": "10000"}
    assert status == ("paused" if paused else "running")


@pytest.mark.parametrize("words", [("--memory", "many"), ("--cpu-quota", "x"), ("--resources", "nowhere.json")])
def test_updates_that_make_no_sense(either: Cli, words: tuple[str, ...]) -> None:
    """Status 1, and the container goes on with what it had."""
    name = either.running("sleep", "60", edit=limited)
    code = either("update", *words, name).code
    found = values(either, name, *FILES)
    either.ok("delete", "--force", name)

    assert (code, found) == (1, FILES)


def test_what_a_cgroup_mount_shows(either: Cli) -> None:
    """The same directories; its own limit is read in it."""
    either.write("sh", "-c", "cd /sys/fs/cgroup; ls; cat pids/pids.max", edit=limited)
    seen = either.ok("run", either.new_id()).split()

    assert seen[-1] == "41"
    assert set(seen[:-1]) - {"unified"} == {Path(point).name for point in layout().v1.values()}


def test_a_cgroups_path_is_taken_from_the_top(either: Cli) -> None:
    """In every hierarchy; the parents that were made for it stay with runc, and go with ours."""
    name = either.new_id()
    either.write("sleep", "60", edit=lambda config: config["linux"].update(cgroupsPath=f"/{name}/inner"))
    assert either.quiet("run", "--detach", name) == 0
    found = directories(either, name)
    either.ok("delete", "--force", name)
    left = [path for path in {Path(each).parent for each in found.values()} if path.is_dir()]
    for path in left:
        path.rmdir()
    unified = Path(layout().v2 or "/nowhere", name)
    if unified.is_dir():
        unified.rmdir()

    assert all(path.endswith(f"/{name}/inner") for path in found.values())
    assert {"memory", "pids", "cpu", "devices", "freezer"} <= set(found)
