"""Intel RDT: groups and schemata, on a directory in resctrl's place; few machines have the file system."""

from pathlib import Path

import pytest

from pytest_ocirun.errors import ConfigError, KernelRefused, Unsupported
from pytest_ocirun.oci.runtime import IntelRdt
from pytest_ocirun.runtime.cgroups import Cgroup, resctrl
from pytest_ocirun.runtime.cgroups.none import NullCgroup

HAS_NONE = not any(" - resctrl " in line for line in Path("/proc/self/mountinfo").read_text().splitlines())


@pytest.fixture
def top(tmp_path: Path) -> Path:
    """A top with one group that has a schema."""
    (tmp_path / "gold").mkdir()
    (tmp_path / "gold/schemata").write_text("    L3:0=0ff;1=00f\n    MB:0=100;1=20\n")
    (tmp_path / "schemata").write_text("L3:0=fff;1=fff\n")
    return tmp_path


@pytest.mark.conforms("config: $.linux.intelRdt.memBwSchema")
@pytest.mark.conforms("config: $.linux.intelRdt.schemata", "config: $.linux.intelRdt.l3CacheSchema")
@pytest.mark.parametrize(
    "cache, bandwidth, free, written",
    [
        ("L3:0=f", "", [], ["L3:0=f"]),
        ("L3:0=f", "MB:0=20", [], ["L3:0=f", "MB:0=20"]),
        ("MB:0=50\nL3:0=f", "MB:0=20", [], ["L3:0=f", "MB:0=20"]),
        ("", "MB:0=20", [], ["MB:0=20"]),
        ("L3:0=f", "", ["L2:0=1", "L3:0=1"], ["L3:0=f", "L2:0=1", "L3:0=1"]),
    ],
)
def test_the_order_of_schemata(cache: str, bandwidth: str, free: list[str], written: list[str]) -> None:
    """The free ones last; memory bandwidth's own replaces such lines among the cache's."""
    rdt = IntelRdt(l3_cache_schema=cache, mem_bw_schema=bandwidth, schemata=free)

    assert resctrl.lines(rdt) == written


@pytest.mark.conforms("config: $.linux.intelRdt.closID")
def test_a_group_that_is_there_must_have_the_schema(top: Path) -> None:
    """Written in another way it is the same; it is not removed at the end."""
    same = resctrl.find(str(top), "box", IntelRdt(clos_id="gold", l3_cache_schema="L3:0=FF;1=f"))
    same.remove()
    with pytest.raises(ConfigError, match="L3:1 is f, not ff"):
        resctrl.find(str(top), "box", IntelRdt(clos_id="gold", l3_cache_schema="L3:0=ff;1=ff"))
    bare = resctrl.find(str(top), "box", IntelRdt(clos_id="gold"))

    assert (same.path, same.made, bare.path) == (f"{top}/gold", False, f"{top}/gold")
    assert (top / "gold").is_dir()


def test_a_group_without_schema_must_be_there(top: Path) -> None:
    """Somebody made it beforehand, or the name is wrong."""
    with pytest.raises(ConfigError, match=r"closID: there is no .*/silver"):
        resctrl.find(str(top), "box", IntelRdt(clos_id="silver"))


def test_without_a_name_the_container_gets_a_group_of_its_own(top: Path) -> None:
    """With a monitoring group below it where that is asked for; both go with the container."""
    group = resctrl.find(str(top), "box", IntelRdt())
    tasks = group.tasks()
    with pytest.raises(ConfigError, match="is there already"):
        resctrl.find(str(top), "box", IntelRdt())
    group.remove()

    assert (group.made, tasks) == (True, [f"{top}/box/tasks"])
    assert not (top / "box").exists()


def test_the_top_is_a_group_too(top: Path) -> None:
    """Its name is a slash; it stays."""
    group = resctrl.find(str(top), "box", IntelRdt(clos_id="/"))
    group.remove()

    assert (group.path, group.made, top.is_dir()) == (str(top), False, True)


@pytest.mark.conforms("config: $.linux.intelRdt.enableMonitoring")
def test_monitoring_has_a_group_below(top: Path) -> None:
    """Named by the container, so that several of one class can be told apart."""
    (top / "gold/mon_groups").mkdir()
    group = resctrl.find(str(top), "box", IntelRdt(clos_id="gold", enable_monitoring=True))
    tasks, there = group.tasks(), (top / "gold/mon_groups/box").is_dir()
    group.remove()

    assert tasks == [f"{top}/gold/tasks", f"{top}/gold/mon_groups/box/tasks"]
    assert (there, (top / "gold/mon_groups/box").exists()) == (True, False)


def test_what_cannot_be_written_leaves_no_group(top: Path) -> None:
    """A plain directory has no file of schemata: the group that was made goes."""
    with pytest.raises(KernelRefused, match=r"cannot set \$\.linux\.intelRdt \(write 'L3:0=f'"):
        resctrl.find(str(top), "box", IntelRdt(l3_cache_schema="L3:0=f"))

    assert not (top / "box").exists()


def test_a_cgroup_keeps_its_group_over_processes(top: Path) -> None:
    """From the JSON of its paths; what is below it shares the group and does not remove it."""
    group = resctrl.find(str(top), "box", IntelRdt())
    cgroup = resctrl.Classed(NullCgroup(), group)
    again = Cgroup.from_paths(cgroup.paths)
    again.child("exec").remove()
    kept = (top / "box").is_dir()
    again.remove()

    assert again.join_files() == [f"{top}/box/tasks"]
    assert again.v2_dir is None
    assert (kept, (top / "box").exists()) == (True, False)


@pytest.mark.skipif(not HAS_NONE, reason="this kernel lacks nothing")
@pytest.mark.conforms("config: $.linux.intelRdt")
def test_without_resctrl_it_is_refused() -> None:
    """Naming what is missing."""
    with pytest.raises(Unsupported, match=r"\$\.linux\.intelRdt: no resctrl file system is mounted"):
        resctrl.mount_point()
