"""OCI resources become files and values."""

from typing import Any

import pytest

from pytest_ocirun.errors import ConfigError, Unsupported
from pytest_ocirun.oci.codec import decode
from pytest_ocirun.oci.runtime import Resources
from pytest_ocirun.runtime.cgroups import limits

PAGE = limits.PAGE
M = 1024 * 1024


def written(settings: list[limits.Setting]) -> list[tuple[str, str]]:
    """What goes where."""
    return [(setting.file, setting.value) for setting in settings]


@pytest.mark.parametrize(
    "document, v1, v2",
    [
        ({}, [], []),
        (
            {"memory": {"limit": 64 * M}},
            [("memory.limit_in_bytes", str(64 * M)), ("memory.memsw.limit_in_bytes", str(64 * M))],
            [("memory.max", str(64 * M)), ("memory.swap.max", "0")],
        ),
        (
            {"memory": {"limit": 64 * M, "swap": 96 * M}},
            [("memory.limit_in_bytes", str(64 * M)), ("memory.memsw.limit_in_bytes", str(96 * M))],
            [("memory.max", str(64 * M)), ("memory.swap.max", str(32 * M))],
        ),
        (
            {"memory": {"limit": 64 * M, "swap": -1}},
            [("memory.limit_in_bytes", str(64 * M)), ("memory.memsw.limit_in_bytes", "-1")],
            [("memory.max", str(64 * M)), ("memory.swap.max", "max")],
        ),
        (
            {"memory": {"limit": -1}},
            [("memory.limit_in_bytes", "-1"), ("memory.memsw.limit_in_bytes", "-1")],
            [("memory.max", "max")],
        ),
        (
            {"memory": {"reservation": 32 * M}},
            [("memory.soft_limit_in_bytes", str(32 * M))],
            [("memory.low", str(32 * M))],
        ),
        ({"pids": {"limit": 50}}, [("pids.max", "50")], [("pids.max", "50")]),
        ({"pids": {"limit": -1}}, [("pids.max", "max")], [("pids.max", "max")]),
        ({"pids": {"limit": 0}}, [("pids.max", "1")], [("pids.max", "1")]),
        ({"cpu": {"shares": 1024}}, [("cpu.shares", "1024")], [("cpu.weight", "100")]),
        ({"cpu": {"shares": 0}}, [], []),
        ({"cpu": {"shares": 1}}, [("cpu.shares", "2")], [("cpu.weight", "1")]),
        (
            {"cpu": {"quota": 50000, "period": 200000}},
            [("cpu.cfs_period_us", "200000"), ("cpu.cfs_quota_us", "50000")],
            [("cpu.max", "50000 200000")],
        ),
        ({"cpu": {"quota": 50000}}, [("cpu.cfs_quota_us", "50000")], [("cpu.max", "50000 100000")]),
        ({"cpu": {"quota": -1}}, [("cpu.cfs_quota_us", "-1")], [("cpu.max", "max 100000")]),
        ({"cpu": {"period": 50000}}, [("cpu.cfs_period_us", "50000")], [("cpu.max", "max 50000")]),
        (
            {"cpu": {"cpus": "0-1", "mems": "0"}},
            [("cpuset.cpus", "0-1"), ("cpuset.mems", "0")],
            [("cpuset.cpus", "0-1"), ("cpuset.mems", "0")],
        ),
    ],
)
def test_each_limit_has_its_file_and_value(
    document: dict[str, Any], v1: list[tuple[str, str]], v2: list[tuple[str, str]]
) -> None:
    """The order is the order of writing."""
    resources = decode(Resources, document)

    assert written(limits.settings_v1(resources)) == v1
    assert written(limits.settings_v2(resources)) == v2


def test_no_resources_is_no_limit() -> None:
    """A config without linux.resources asks for nothing."""
    assert limits.settings_v1(None) == limits.settings_v2(None) == []


def test_memory_is_expected_in_whole_pages() -> None:
    """The kernel rounds down, which is no broken promise."""
    resources = decode(Resources, {"memory": {"limit": 64 * M + 1}})

    assert limits.settings_v1(resources)[0].expected == str(64 * M)
    assert limits.settings_v2(resources)[0].expected == str(64 * M)


def test_swap_may_be_unaccounted_only_when_not_asked_for() -> None:
    """The swap bound that comes with a memory limit is optional, one that was asked for is not."""
    implied = decode(Resources, {"memory": {"limit": M}})
    asked = decode(Resources, {"memory": {"limit": M, "swap": M}})

    assert [setting.optional for setting in limits.settings_v2(implied)] == [False, True]
    assert [setting.optional for setting in limits.settings_v2(asked)] == [False, False]


def test_controllers_are_named_once_in_order() -> None:
    """Whoever makes the cgroup enables these."""
    resources = decode(Resources, {"cpu": {"quota": 5000, "shares": 2, "cpus": "0"}, "memory": {"limit": M}})

    assert limits.controllers(limits.settings_v2(resources)) == ["memory", "cpu", "cpuset"]


@pytest.mark.parametrize("shares, weight", [(2, 1), (1024, 100), (262144, 10000), (0, 1), (10**9, 10000)])
def test_weight_meets_the_ends_and_the_default(shares: int, weight: int) -> None:
    """The curve goes through (2, 1), (1024, 100) and (262144, 10000)."""
    assert limits.weight(shares) == weight


def test_weight_never_falls() -> None:
    """More shares are never less weight."""
    weights = [limits.weight(shares) for shares in range(2, 262145, 97)]

    assert weights == sorted(weights)


@pytest.mark.parametrize(
    "document, fragment",
    [
        ({"memory": {"limit": 0}}, "memory.limit is 0"),
        ({"memory": {"limit": -2}}, "memory.limit is -2"),
        ({"memory": {"swap": M}}, "without a memory.limit"),
        ({"memory": {"limit": 2 * M, "swap": M}}, "below memory.limit"),
        ({"memory": {"reservation": -5}}, "memory.reservation is -5"),
        ({"pids": {"limit": -2}}, "pids.limit is -2"),
        ({"cpu": {"shares": -1}}, "cpu.shares is -1"),
        ({"cpu": {"quota": 0}}, "cpu.quota is 0"),
        ({"cpu": {"period": 0}}, "cpu.period is 0"),
        ({"cpu": {"cpus": "zero"}}, "cpu.cpus is 'zero'"),
    ],
)
def test_values_out_of_range_are_refused_by_name(document: dict[str, Any], fragment: str) -> None:
    """Before anything is made."""
    resources = decode(Resources, document)

    for settings in (limits.settings_v1, limits.settings_v2):
        with pytest.raises(ConfigError, match=fragment):
            settings(resources)


@pytest.mark.parametrize(
    "document, name",
    [
        ({"memory": {"swappiness": 0}}, "memory.swappiness"),
        ({"memory": {"disableOOMKiller": True}}, "memory.disable_oom_killer"),
        ({"cpu": {"burst": 1000}}, "cpu.burst"),
        ({"cpu": {"realtimeRuntime": 1000}}, "cpu.realtime_runtime"),
        ({"blockIO": {"weight": 10}}, "block_io"),
        ({"hugepageLimits": [{"pageSize": "2MB", "limit": 0}]}, "hugepage_limits"),
        ({"unified": {"memory.high": "1"}}, "unified"),
    ],
)
def test_what_is_not_implemented_is_refused_and_not_ignored(document: dict[str, Any], name: str) -> None:
    """Accepting and forgetting a limit would be a lie."""
    with pytest.raises(Unsupported, match=name):
        limits.settings_v2(decode(Resources, document))


def test_empty_objects_ask_for_nothing() -> None:
    """Clients write them whether they mean something or not."""
    document = {"blockIO": {}, "memory": {"disableOOMKiller": False}, "hugepageLimits": [], "unified": {}}

    assert limits.settings_v1(decode(Resources, document)) == []
