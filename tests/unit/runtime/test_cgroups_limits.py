"""OCI resources become files and values."""

from typing import Any

import pytest

from pytest_ocirun.errors import ConfigError, Unsupported
from pytest_ocirun.oci.codec import decode
from pytest_ocirun.oci.runtime import Resources
from pytest_ocirun.runtime.cgroups import limit_cpu, limits
from pytest_ocirun.runtime.cgroups.setting import Setting

PAGE = limits.PAGE
M = 1024 * 1024


def written(settings: list[Setting]) -> list[tuple[str, str]]:
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
    assert limit_cpu.weight(shares) == weight


def test_weight_never_falls() -> None:
    """More shares are never less weight."""
    weights = [limit_cpu.weight(shares) for shares in range(2, 262145, 97)]

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


DISK = {"major": 8, "minor": 0}


@pytest.mark.conforms(
    "config: $.linux.resources.rdma.*.hcaHandles",
    "config: $.linux.resources.rdma.*.hcaObjects",
    "config: $.linux.resources.blockIO.leafWeight",
    "config: $.linux.resources.blockIO.weightDevice[].leafWeight",
    "config: $.linux.resources.network.priorities",
)
@pytest.mark.parametrize(
    "document, v1, v2",
    [
        ({"memory": {"swappiness": 0}}, [("memory.swappiness", "0")], None),
        ({"memory": {"disableOOMKiller": True}}, [("memory.oom_control", "1")], None),
        ({"memory": {"disableOOMKiller": False}}, [("memory.oom_control", "0")], []),
        ({"memory": {"useHierarchy": False}}, [("memory.use_hierarchy", "0")], None),
        ({"memory": {"useHierarchy": True}}, [("memory.use_hierarchy", "1")], []),
        ({"memory": {"kernel": M, "kernelTCP": M}}, [("memory.kmem.tcp.limit_in_bytes", str(M))], []),
        ({"cpu": {"burst": 1000}}, [("cpu.cfs_burst_us", "1000")], [("cpu.max.burst", "1000")]),
        ({"cpu": {"idle": 1}}, [("cpu.idle", "1")], [("cpu.idle", "1")]),
        (
            {"cpu": {"realtimeRuntime": 5000, "realtimePeriod": 100000}},
            [("cpu.rt_period_us", "100000"), ("cpu.rt_runtime_us", "5000")],
            None,
        ),
        ({"blockIO": {"weight": 10}}, [("blkio.bfq.weight", "10")], [("io.bfq.weight", "10")]),
        ({"blockIO": {"weight": 0}}, [], []),
        ({"blockIO": {"leafWeight": 10}}, [("blkio.leaf_weight", "10")], None),
        (
            {"blockIO": {"weightDevice": [{**DISK, "weight": 500}]}},
            [("blkio.bfq.weight_device", "8:0 500")],
            [("io.bfq.weight", "8:0 500")],
        ),
        ({"blockIO": {"weightDevice": [{**DISK, "leafWeight": 50}]}}, [("blkio.leaf_weight_device", "8:0 50")], None),
        (
            {
                "blockIO": {
                    "throttleReadBpsDevice": [{**DISK, "rate": 4096}],
                    "throttleWriteBpsDevice": [{**DISK, "rate": 0}],
                    "throttleReadIOPSDevice": [{**DISK, "rate": 7}],
                    "throttleWriteIOPSDevice": [{**DISK, "rate": 8}],
                }
            },
            [
                ("blkio.throttle.read_bps_device", "8:0 4096"),
                ("blkio.throttle.write_bps_device", "8:0 0"),
                ("blkio.throttle.read_iops_device", "8:0 7"),
                ("blkio.throttle.write_iops_device", "8:0 8"),
            ],
            [("io.max", f"8:0 {word}") for word in ("rbps=4096", "wbps=max", "riops=7", "wiops=8")],
        ),
        (
            {"hugepageLimits": [{"pageSize": "2MB", "limit": 5 * M}]},
            [(f"hugetlb.2MB.{kind}limit_in_bytes", str(5 * M)) for kind in ("rsvd.", "")],
            [(f"hugetlb.2MB.{kind}max", str(5 * M)) for kind in ("rsvd.", "")],
        ),
        (
            {"network": {"classID": 1048577, "priorities": [{"name": "eth0", "priority": 5}]}},
            [("net_cls.classid", "1048577"), ("net_prio.ifpriomap", "eth0 5")],
            None,
        ),
        (
            {"rdma": {"mlx5_1": {"hcaHandles": 3, "hcaObjects": 10000}, "rxe": {"hcaObjects": 7}}},
            [("rdma.max", "mlx5_1 hca_handle=3 hca_object=10000"), ("rdma.max", "rxe hca_object=7")],
            [("rdma.max", "mlx5_1 hca_handle=3 hca_object=10000"), ("rdma.max", "rxe hca_object=7")],
        ),
        (
            {"unified": {"memory.high": "1000", "cgroup.max.depth": "2"}},
            None,
            [("memory.high", "1000"), ("cgroup.max.depth", "2")],
        ),
    ],
)
def test_each_rare_limit_has_its_file_and_value_or_is_refused_by_name(
    document: dict[str, Any], v1: list[tuple[str, str]] | None, v2: list[tuple[str, str]] | None
) -> None:
    """None: that version of cgroups has no such thing, and says so instead of forgetting it."""
    resources = decode(Resources, document)
    for wanted, settings in ((v1, limits.settings_v1), (v2, limits.settings_v2)):
        if wanted is None:
            with pytest.raises(Unsupported, match=f"cannot set {next(iter(document))}"):
                settings(resources)
        else:
            assert written(settings(resources)) == wanted


@pytest.mark.parametrize("weight, even", [(10, 1), (100, 910), (500, 4950), (1000, 10000)])
def test_block_weights_are_mapped_evenly_without_bfq(weight: int, even: int) -> None:
    """As runc does it."""
    (setting,) = limits.settings_v2(decode(Resources, {"blockIO": {"weight": weight}}))

    assert setting.otherwise is not None
    assert (setting.otherwise.file, setting.otherwise.value) == ("io.weight", f"default {even}")


def test_empty_objects_ask_for_nothing() -> None:
    """Clients write them whether they mean something or not."""
    document = {"blockIO": {}, "memory": {"disableOOMKiller": False}, "hugepageLimits": [], "unified": {}}

    assert limits.controllers(limits.settings_v1(decode(Resources, document))) == []
