"""Mounts of type cgroup and cgroup2: what they show, and whether it can be written."""

import time
from pathlib import Path

import pytest

from pytest_ocirun.oci.runtime import Config, Mount
from pytest_ocirun.runtime.cgroups.detect import layout
from tests.boxes import Bare, confined
from tests.requires import requires

pytestmark = [requires("root", "cgroup", "overlay", "busybox"), pytest.mark.lane("v2")]

KIND = layout().kind
NAMESPACES = pytest.mark.parametrize("in_namespace", [True, False], ids=["namespace", "no namespace"])
USERS = pytest.mark.parametrize("user_namespace", [True, False], ids=["user namespace", "host's root"])


def with_cgroups(
    rootfs: Path, script: str, *options: str, in_namespace: bool, user_namespace: bool = True, kind: str = "cgroup"
) -> Config:
    """A container with a cgroup mount that runs a shell script there."""
    config = confined(rootfs, "sh", "-c", f"cd /sys/fs/cgroup || exit 9\n{script}", user_namespace=user_namespace)
    options = ("nosuid", "noexec", "nodev", "relatime", *options)
    config.mounts.append(Mount(destination="/sys/fs/cgroup", type=kind, source="cgroup", options=list(options)))
    if not in_namespace:
        config.linux.namespaces = [each for each in config.linux.namespaces if each.type != "cgroup"]
    return config


@NAMESPACES
@USERS
@pytest.mark.conforms("config: $.mounts[].type cgroup")
def test_each_hierarchy_has_its_directory(
    bare: Bare, busybox_rootfs: Path, in_namespace: bool, user_namespace: bool
) -> None:
    """Named as on the host, with the v2 tree as unified on a hybrid one; on v2 it is the tree itself."""
    config = with_cgroups(busybox_rootfs, "ls", in_namespace=in_namespace, user_namespace=user_namespace)
    ran = bare.run(config)
    names = set(ran.out.split())

    assert ran.err == ""
    if KIND == "v2":
        assert {"cgroup.procs", "memory.max", "pids.max"} <= names
    else:
        expected = {Path(point).name for point in layout().v1.values()} | set(layout().v1)
        expected = {name for name in expected if not name.startswith("name=")}
        assert names == expected | ({"unified"} if KIND == "hybrid" else set())


@NAMESPACES
@USERS
@pytest.mark.conforms("config: $.mounts[].type cgroup")
def test_only_the_containers_own_processes_are_seen(
    bare: Bare, busybox_rootfs: Path, in_namespace: bool, user_namespace: bool
) -> None:
    """In every hierarchy, and never 0, which stands for one outside; its own limit is there to be read."""
    script = (
        "for f in $(find . -maxdepth 2 -name cgroup.procs); do cat $f; done; cat pids.max pids/pids.max 2>/dev/null"
    )
    config = with_cgroups(busybox_rootfs, script, in_namespace=in_namespace, user_namespace=user_namespace)
    config.linux.resources.pids.limit = 77
    seen = bare.run(config).out.split()

    assert seen[-1] == "77"
    assert {int(pid) for pid in seen[:-1]} <= set(range(1, 30))
    assert seen.count("1") == len({*layout().v1.values(), *([layout().v2] if layout().v2 else [])})


@NAMESPACES
@USERS
def test_a_read_only_mount_takes_no_directory(
    bare: Bare, busybox_rootfs: Path, in_namespace: bool, user_namespace: bool
) -> None:
    """Nor a process, in any hierarchy."""
    script = (
        "for d in . */; do test -d $d || continue; mkdir $d/x 2>/dev/null && echo made $d; done\n"
        "for f in $(find . -name cgroup.procs); do (echo 1 >$f) 2>/dev/null && echo moved $f; done; echo end"
    )
    config = with_cgroups(busybox_rootfs, script, "ro", in_namespace=in_namespace, user_namespace=user_namespace)

    assert bare.run(config).out == "end\n"


@NAMESPACES
@pytest.mark.conforms("config: $.mounts[].type cgroup")
def test_a_writable_mount_takes_one(bare: Bare, busybox_rootfs: Path, in_namespace: bool) -> None:
    """Root of the host, in its own cgroup; the end of the container removes what it made there."""
    script = "d=.; test -d pids && d=pids; mkdir $d/x && echo $$ >$d/x/cgroup.procs && cat $d/x/cgroup.procs"
    config = with_cgroups(busybox_rootfs, script, in_namespace=in_namespace, user_namespace=False)
    ran = bare.run(config)

    assert (ran.out, ran.err) == ("1\n", "")


@NAMESPACES
@pytest.mark.conforms("config: $.mounts[].type cgroup2")
def test_a_mount_of_version_2_is_its_tree_alone(bare: Bare, busybox_rootfs: Path, in_namespace: bool) -> None:
    """Also beside version 1, where it holds no controllers; never more of it than the container's own."""
    if layout().v2 is None:
        pytest.skip("this kernel lacks a cgroup v2 mount")
    config = with_cgroups(busybox_rootfs, "cat cgroup.procs", in_namespace=in_namespace, kind="cgroup2")
    seen = bare.run(config).out.split()

    assert "1" in seen
    assert "0" not in seen


@requires("cgroup_v1")
def test_hierarchies_that_share_a_mount_have_links_by_their_single_names(bare: Bare, busybox_rootfs: Path) -> None:
    """As on most hosts of old: cpu and cpuacct lead to cpu,cpuacct. This one may have none that share."""
    together: dict[str, list[str]] = {}
    for controller, point in layout().v1.items():
        together.setdefault(Path(point).name, []).append(controller)
    shared = {each: name for name, members in together.items() for each in members if each != name and "=" not in each}
    config = with_cgroups(busybox_rootfs, "find . -maxdepth 1 -type l -exec readlink {} ';'", in_namespace=False)

    assert sorted(bare.run(config).out.split()) == sorted(shared.values())


@requires("cgroup_v2")
def test_a_container_that_hands_its_controllers_down_takes_an_exec_beside_its_init(
    bare: Bare, busybox_rootfs: Path
) -> None:
    """As one with systemd does; its own cgroup takes no process then."""
    script = "mkdir leaf && echo 1 >leaf/cgroup.procs && echo +pids >cgroup.subtree_control && sleep 60"
    config = with_cgroups(busybox_rootfs, script, in_namespace=True, user_namespace=False)
    name = bare.new_id()
    child = bare.create(config, name=name)
    try:
        bare.runtime.start(name)
        handed = Path(bare.runtime.record(name).cgroup.v2_dir or "", "cgroup.subtree_control")
        deadline = time.monotonic() + 20
        while not handed.read_text(encoding="ascii"):
            assert time.monotonic() < deadline, "it hands nothing down"
            time.sleep(0.01)
        ran = bare.exec(name, "cat", "/proc/self/cgroup")
    finally:
        bare.end(name, child)

    assert (ran.err, ran.out.split(":")[-1]) == ("", "/leaf\n")
