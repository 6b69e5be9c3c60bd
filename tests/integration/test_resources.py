"""Every limit of linux.resources in the kernel's own files; what a kernel lacks is refused by name."""

import glob
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import pytest_ocirun
from pytest_ocirun.errors import KernelRefused, Unsupported
from pytest_ocirun.oci.codec import decode
from pytest_ocirun.oci.runtime import IntelRdt, Resources
from pytest_ocirun.runtime.cgroups import Cgroup, Manager, resctrl, tree
from pytest_ocirun.runtime.cgroups.detect import Layout, layout, manager
from tests.boxes import Bare, confined
from tests.requires import lack, requires

pytestmark = [requires("root", "cgroup"), pytest.mark.lane("v2")]

M = 1 << 20
FOUND = layout()
V2 = FOUND.kind == "v2"
PACKAGE_PARENT = str(Path(pytest_ocirun.__file__).parents[1])


def disk() -> str:
    """The numbers of a disk of this machine."""
    for path in sorted(glob.glob("/sys/block/*/dev")):
        if not path.split("/")[3].startswith(("loop", "ram", "zram")):
            return Path(path).read_text(encoding="ascii").strip()
    pytest.skip("this kernel lacks a disk that can be throttled")


MAJOR, MINOR = map(int, disk().split(":"))
DISK = {"major": MAJOR, "minor": MINOR}


@pytest.fixture
def name() -> Iterator[str]:
    """A cgroup's name that nobody else uses; afterwards nothing of it may exist."""
    name = f"ocirun-test-{uuid.uuid4().hex[:12]}"
    yield name
    tops = {*FOUND.v1.values(), *([FOUND.v2] if FOUND.v2 else [])}
    left = [f"{top}/{name}" for top in tops if os.path.isdir(f"{top}/{name}")]
    tree.remove_all(left, 5)
    assert left == []


def resources(**document: Any) -> Resources:
    """``linux.resources`` as a config would give them."""
    return decode(Resources, document)


def text(cgroup: Cgroup, v1: str, v2: str) -> str | None:
    """The text of a file of the cgroup, whichever controller has it; None if there is none."""
    for directory in cgroup.paths["dirs"].values():
        path = f"{directory}/{v2 if V2 else v1}"
        if os.path.exists(path):
            return Path(path).read_text(encoding="ascii").strip()
    return None


NONE = ""
"""Where one version has no such limit: an error there."""

MADE = [
    ({"memory": {"limit": 64 * M}}, "memory.limit_in_bytes", str(64 * M), "memory.max", str(64 * M)),
    ({"memory": {"limit": -1}}, "memory.limit_in_bytes", str(2**63 - 4096), "memory.max", "max"),
    (
        {"memory": {"limit": 64 * M, "swap": 96 * M}},
        "memory.memsw.limit_in_bytes",
        str(96 * M),
        "memory.swap.max",
        str(32 * M),
    ),
    ({"memory": {"reservation": 8 * M}}, "memory.soft_limit_in_bytes", str(8 * M), "memory.low", str(8 * M)),
    ({"memory": {"kernelTCP": 4 * M}}, "memory.kmem.tcp.limit_in_bytes", str(4 * M), "cgroup.type", "domain"),
    ({"memory": {"kernel": 4 * M}}, "cgroup.clone_children", "0", "cgroup.type", "domain"),
    ({"memory": {"swappiness": 7}}, "memory.swappiness", "7", NONE, NONE),
    ({"memory": {"disableOOMKiller": True}}, "memory.oom_control", "oom_kill_disable 1", NONE, NONE),
    ({"memory": {"useHierarchy": True}}, "memory.use_hierarchy", "1", "cgroup.type", "domain"),
    ({"cpu": {"shares": 512}}, "cpu.shares", "512", "cpu.weight", "59"),
    ({"cpu": {"quota": 20000, "period": 40000}}, "cpu.cfs_quota_us", "20000", "cpu.max", "20000 40000"),
    ({"cpu": {"quota": 20000, "period": 40000}}, "cpu.cfs_period_us", "40000", "cpu.max", "20000 40000"),
    ({"cpu": {"quota": 20000, "burst": 5000}}, "cpu.cfs_burst_us", "5000", "cpu.max.burst", "5000"),
    ({"cpu": {"idle": 1}}, "cpu.idle", "1", "cpu.idle", "1"),
    ({"cpu": {"realtimeRuntime": 3000, "realtimePeriod": 50000}}, "cpu.rt_runtime_us", "3000", NONE, NONE),
    ({"cpu": {"realtimeRuntime": 3000, "realtimePeriod": 50000}}, "cpu.rt_period_us", "50000", NONE, NONE),
    ({"cpu": {"cpus": "0"}}, "cpuset.cpus", "0", "cpuset.cpus", "0"),
    ({"cpu": {"mems": "0"}}, "cpuset.mems", "0", "cpuset.mems", "0"),
    ({"pids": {"limit": 17}}, "pids.max", "17", "pids.max", "17"),
    ({"pids": {"limit": -1}}, "pids.max", "max", "pids.max", "max"),
    ({"pids": {"limit": 0}}, "pids.max", "1", "pids.max", "1"),
    (
        {"blockIO": {"throttleReadBpsDevice": [{**DISK, "rate": M}]}},
        *("blkio.throttle.read_bps_device", f"{MAJOR}:{MINOR} {M}"),
        *("io.max", f"{MAJOR}:{MINOR} rbps={M} wbps=max riops=max wiops=max"),
    ),
    (
        {"blockIO": {"throttleWriteBpsDevice": [{**DISK, "rate": M}]}},
        *("blkio.throttle.write_bps_device", f"{MAJOR}:{MINOR} {M}"),
        *("io.max", f"{MAJOR}:{MINOR} rbps=max wbps={M} riops=max wiops=max"),
    ),
    (
        {"blockIO": {"throttleReadIOPSDevice": [{**DISK, "rate": 90}]}},
        *("blkio.throttle.read_iops_device", f"{MAJOR}:{MINOR} 90"),
        *("io.max", f"{MAJOR}:{MINOR} rbps=max wbps=max riops=90 wiops=max"),
    ),
    (
        {"blockIO": {"throttleWriteIOPSDevice": [{**DISK, "rate": 90}]}},
        *("blkio.throttle.write_iops_device", f"{MAJOR}:{MINOR} 90"),
        *("io.max", f"{MAJOR}:{MINOR} rbps=max wbps=max riops=max wiops=90"),
    ),
]


def claims(rows: list[Any]) -> list[str]:
    """The fields that a table of documents names."""
    found = dict.fromkeys(f"{group}.{field}" for row in rows for group in row[0] for field in row[0][group])
    inner = [
        f"blockIO.{field}[].{key}" for row in rows for field in row[0].get("blockIO", ()) for key in (*DISK, "rate")
    ]
    return [f"config: $.linux.resources.{field}" for field in (*found, *inner)]


@pytest.mark.conforms(*claims(MADE))
@pytest.mark.parametrize("document, v1, on_v1, v2, on_v2", MADE, ids=[str(row[0]) for row in MADE])
def test_each_limit_reaches_its_file(
    name: str, document: dict[str, Any], v1: str, on_v1: str, v2: str, on_v2: str
) -> None:
    """As the kernel reads it back."""
    if V2 and v2 == NONE:
        with pytest.raises(Unsupported, match=r"cannot set \w+\.\w+ to .*: cgroup v2 has no such limit"):
            manager().create(f"/{name}", "x", resources(**document))
        return
    if "cpuset" in v2 and lack("cpuset"):
        with pytest.raises(Unsupported, match="cpuset"):
            manager().create(f"/{name}", "x", resources(**document))
        return
    cgroup = manager().create(f"/{name}", "x", resources(**document))
    try:
        got = text(cgroup, v1, v2)
    finally:
        cgroup.remove()
    if got is None and v2 == "memory.swap.max":
        pytest.skip("this kernel lacks swap accounting")

    assert got is not None
    assert got.splitlines()[0] == (on_v2 if V2 else on_v1)


@pytest.mark.conforms(
    "config: $.linux.resources.blockIO.weightDevice[].major",
    "config: $.linux.resources.blockIO.weightDevice[].minor",
    "config: $.linux.resources.blockIO.weightDevice[].weight",
)
@pytest.mark.conforms("config: $.linux.resources.blockIO.weight", "config: $.linux.resources.blockIO.weightDevice")
def test_block_weights_need_a_scheduler_that_has_them(name: str) -> None:
    """BFQ's files where they are; without them an error that names the file."""
    throttle = resources(blockIO={"throttleReadBpsDevice": [{**DISK, "rate": 0}]})
    cgroup = manager().create(f"/{name}", "x", throttle)
    try:
        names = ("blkio.bfq.weight", "blkio.weight", "io.bfq.weight", "io.weight")
        there = [file for file in names if text(cgroup, file, file) is not None]
        if there:
            cgroup.limit(resources(blockIO={"weight": 300}))
            assert (text(cgroup, there[0], there[0]) or "").splitlines()[0].split()[-1] in ("300", "2930")
        else:
            with pytest.raises(Unsupported, match=r"cannot set blockIO\.weight to 300 .*no such file"):
                cgroup.limit(resources(blockIO={"weight": 300}))
        with pytest.raises((Unsupported, KernelRefused), match=r"cannot set blockIO\.weightDevice to 4000:9 400"):
            cgroup.limit(resources(blockIO={"weightDevice": [{"major": 4000, "minor": 9, "weight": 400}]}))
    finally:
        cgroup.remove()


@pytest.mark.conforms(
    "config: $.linux.resources.hugepageLimits[].pageSize", "config: $.linux.resources.hugepageLimits[].limit"
)
@pytest.mark.conforms("config: $.linux.resources.hugepageLimits")
def test_huge_pages_are_limited_where_the_kernel_can(name: str) -> None:
    """Also by the v2 tree of a hybrid host; rounded down to whole pages; otherwise an error that names hugetlb."""
    asked = resources(hugepageLimits=[{"pageSize": "2MB", "limit": 5 * M}])
    top = "" if FOUND.v2 is None else Path(f"{FOUND.v2}/cgroup.controllers").read_text(encoding="ascii")
    if "hugetlb" not in FOUND.v1 and "hugetlb" not in top:
        with pytest.raises(Unsupported, match="hugetlb"):
            manager().create(f"/{name}", "x", asked)
        return
    cgroup = manager().create(f"/{name}", "x", asked)
    try:
        directory = next(path for path in cgroup.paths["dirs"].values() if glob.glob(f"{path}/hugetlb.2MB.*"))
        values = [Path(path).read_text(encoding="ascii").strip() for path in glob.glob(f"{directory}/hugetlb.2MB.*max")]
        values += [
            Path(path).read_text(encoding="ascii").strip() for path in glob.glob(f"{directory}/*.limit_in_bytes")
        ]
    finally:
        cgroup.remove()

    assert values == [str(4 * M)] * len(values)
    assert values


@pytest.mark.conforms("config: $.linux.resources.rdma")
@pytest.mark.parametrize(
    "document, controller",
    [
        ({"network": {"classID": 1048577}}, "net_cls"),
        ({"network": {"priorities": [{"name": "lo", "priority": 3}]}}, "net_prio"),
        ({"rdma": {"mlx5_1": {"hcaHandles": 3}}}, "rdma"),
        ({"unified": {"misc.max": "res_a 1"}}, "misc"),
    ],
)
def test_a_controller_that_is_not_there_is_named(name: str, document: dict[str, Any], controller: str) -> None:
    """Asked for and not to be had is an error before anything is made; not asked for, nobody misses it."""
    if controller in FOUND.v1:
        pytest.skip(f"this kernel lacks nothing: {controller} is mounted")
    with pytest.raises(Unsupported) as caught:
        manager().create(f"/{name}", "x", resources(**document))

    assert controller in str(caught.value) or next(iter(document)) in str(caught.value)
    manager().create(f"/{name}", "x", resources(**{key: type(value)() for key, value in document.items()})).remove()


@pytest.mark.conforms(
    "config: $.linux.resources.network.priorities[].name", "config: $.linux.resources.network.priorities[].priority"
)
@pytest.mark.conforms("config: $.linux.resources.network", "config: $.linux.resources.network.classID")
@pytest.mark.conforms("config: $.linux.resources.network.priorities")
def test_network_limits_where_their_controllers_are(name: str) -> None:
    """In a mount namespace of its own, as few hosts mount these hierarchies."""
    program = (
        "import json, sys; sys.path.append(sys.argv[1])\n"
        "from pytest_ocirun.oci.codec import decode\n"
        "from pytest_ocirun.oci.runtime import Resources\n"
        "from pytest_ocirun.runtime.cgroups.detect import layout, manager\n"
        "asked = {'classID': 1048577}\n"
        "if 'net_prio' in layout().v1: asked['priorities'] = [{'name': 'lo', 'priority': 3}]\n"
        "cgroup = manager().create('/' + sys.argv[2], 'x', decode(Resources, {'network': asked}))\n"
        "dirs = cgroup.paths['dirs']\n"
        "print(open(dirs['net_cls'] + '/net_cls.classid').read().strip())\n"
        "if 'net_prio' in dirs: print('lo 3' in open(dirs['net_prio'] + '/net_prio.ifpriomap').read().split('\\n'))\n"
        "cgroup.remove()\n"
    )
    script = (
        "mount -t tmpfs none /mnt; mkdir /mnt/a /mnt/net; cd /mnt\n"
        "have=$(awk '$2 == 0 && /^net_/ {print $1}' /proc/cgroups | paste -sd,)\n"
        'test -n "$have" && mount -t cgroup -o "$have" cgroup /mnt/net || exit 9\n'
        'status=0; python=$1; shift; "$python" -I -S -c "$@" || status=$?\n'
        # A hierarchy outlives its last mount as long as the kernel is busy ending a cgroup of it.
        "for try in $(seq 100); do\n"
        "    umount /mnt/net; sleep 0.05\n"
        "    awk '/^net_cls/ && $2 == 0 {exit 1}' /proc/cgroups || exit $status\n"
        '    mount -t cgroup -o "$have" cgroup /mnt/net\n'
        "done; exit 8"
    )
    if V2:
        pytest.skip("this kernel lacks cgroup v1 mounts beside its v2")
    python = [sys.executable, program, PACKAGE_PARENT, name]
    if "net_cls" in FOUND.v1:
        command = [python[0], "-I", "-S", "-c", *python[1:]]
    else:
        command = ["unshare", "--mount", "sh", "-euc", script, "sh", *python]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    if done.returncode == 9:
        pytest.skip("this kernel lacks net_cls and net_prio")

    assert done.stderr == ""
    assert done.stdout.split() in (["1048577"], ["1048577", "True"])


@pytest.mark.conforms("config: $.linux.resources.unified")
def test_unified_is_written_as_it_is_on_v2(name: str) -> None:
    """Whatever the file, a line at a time, after the limits with names of their own."""
    if not V2:
        with pytest.raises(Unsupported, match=r"unified\['memory.high'\]: cgroup v2 has no memory controller here"):
            manager().create(f"/{name}", "x", resources(unified={"memory.high": "1000000"}))
        return
    asked = resources(
        unified={
            "memory.high": str(48 * M),
            "pids.max": "9",
            "io.max": f"{MAJOR}:{MINOR} rbps=4096\n{MAJOR}:{MINOR} wiops=9",
        },
        pids={"limit": 5},
    )
    cgroup = manager().create(f"/{name}", "x", asked)
    try:
        seen = [text(cgroup, "", file) for file in ("memory.high", "pids.max", "io.max")]
    finally:
        cgroup.remove()

    assert seen == [str(48 * M), "9", f"{MAJOR}:{MINOR} rbps=4096 wbps=max riops=max wiops=9"]


@pytest.mark.conforms("config: $.linux.resources.unified")
def test_unified_reaches_the_tree_of_a_hybrid_host(name: str) -> None:
    """The core files are there, whichever controllers are."""
    if FOUND.v2 is None:
        pytest.skip("this kernel lacks a cgroup v2 mount")
    cgroup = manager().create(f"/{name}", "x", resources(unified={"cgroup.max.depth": "3"}))
    try:
        directory = cgroup.paths["dirs"]["unified"]
        seen = Path(f"{directory}/cgroup.max.depth").read_text(encoding="ascii").strip()
    finally:
        cgroup.remove()

    assert seen == "3"


@pytest.mark.conforms("config: $.linux.resources.memory.checkBeforeUpdate")
def test_a_memory_limit_below_the_use_is_refused_if_asked(name: str) -> None:
    """On v1 by the kernel itself; on v2, where it would kill, before anything is written."""
    cgroup = manager().create(f"/{name}", "x", resources(memory={"limit": 128 * M}))
    program = "import sys; held = bytearray(40 << 20); print(1, flush=True); sys.stdin.read()"
    try:
        with subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            preexec_fn=lambda: cgroup.join(os.getpid()),  # noqa: PLW1509 - single-threaded
        ) as process:
            assert process.stdout
            process.stdout.readline()
            with pytest.raises(KernelRefused, match=r"cannot set memory\.(limit|swap)"):
                cgroup.limit(resources(memory={"limit": 8 * M, "checkBeforeUpdate": True}), undo=True)
            limit = cgroup.limits()["memory.limit"]
            alive = process.poll() is None
            process.communicate(b"")
    finally:
        cgroup.remove()

    assert (limit, alive) == (128 * M, True)


@requires("cgroup_v1")
@pytest.mark.conforms("config: $.linux.resources.memory.useHierarchy")
def test_no_hierarchy_cannot_be_had(name: str) -> None:
    """Linux 5.11 and later count what is below a cgroup in it, and refuse to do otherwise."""
    if Path("/sys/fs/cgroup/memory/memory.use_hierarchy").read_text(encoding="ascii").strip() == "0":
        pytest.skip("this kernel lacks nothing: it can do without hierarchy")
    with pytest.raises(KernelRefused, match=r"memory\.useHierarchy to false"):
        manager().create(f"/{name}", "x", resources(memory={"useHierarchy": False}))


def test_bursts_and_quotas_go_up_and_down_in_any_order(name: str) -> None:
    """The kernel takes no burst above the quota, old or new."""
    cgroup = manager().create(f"/{name}", "x", resources(cpu={"quota": 20000, "burst": 10000}))
    try:
        for quota, burst in ((5000, 5000), (50000, 40000), (2000, 0), (-1, 9000), (9000, 8000)):
            cgroup.limit(resources(cpu={"quota": quota, "period": 100000, "burst": burst}))
            assert text(cgroup, "cpu.cfs_burst_us", "cpu.max.burst") == str(burst)
    finally:
        cgroup.remove()


@requires("cgroup_v1")
def test_real_time_shares_are_made_room_for_above(name: str) -> None:
    """Two containers below one parent get theirs; a third asks for more than there is."""
    made = []
    try:
        for number in range(2):
            asked = resources(cpu={"realtimeRuntime": 100000, "realtimePeriod": 1000000})
            made.append(manager().create(f"/{name}/{number}", "x", asked))
        above = Path(f"/sys/fs/cgroup/cpu/{name}/cpu.rt_runtime_us").read_text(encoding="ascii")
        with pytest.raises(KernelRefused, match=r"cpu\.realtimeRuntime"):
            manager().create(f"/{name}/2", "x", resources(cpu={"realtimeRuntime": 950000, "realtimePeriod": 1000000}))
    finally:
        for cgroup in reversed(made):
            cgroup.remove()

    assert 200000 <= int(above) < 210000


def test_an_update_that_is_refused_takes_back_all_it_wrote(name: str) -> None:
    """Of every kind of file."""
    first = resources(memory={"limit": 64 * M}, pids={"limit": 9}, cpu={"shares": 512, "quota": 40000})
    cgroup = manager().create(f"/{name}", "x", first)
    more = {} if V2 else {"disableOOMKiller": True, "swappiness": 3}
    change = resources(
        memory={"limit": 32 * M, **more},
        pids={"limit": 3},
        cpu={"shares": 2048, "quota": -1, "burst": 0, "cpus": "" if lack("cpuset") else "0"},
        blockIO={
            "throttleReadBpsDevice": [{**DISK, "rate": M}],
            "throttleWriteBpsDevice": [{"major": 4000, "minor": 9, "rate": M}],
        },
    )
    files = [*FILES_V1, "blkio.throttle.read_bps_device", "io.max", "cpu.max", "memory.max"]
    try:
        before = [text(cgroup, file, file) for file in files]
        with pytest.raises(KernelRefused, match="throttleWriteBpsDevice to 4000:9"):
            cgroup.limit(change, undo=True)
        after = [text(cgroup, file, file) for file in files]
        rates = text(cgroup, "blkio.throttle.read_bps_device", "io.max")
    finally:
        cgroup.remove()

    assert [
        (file, old, new) for file, old, new in zip(files, before, after, strict=True) if old not in (None, new)
    ] == []
    assert rates == ""


FILES_V1 = (
    "memory.limit_in_bytes",
    "memory.oom_control",
    "memory.swappiness",
    "pids.max",
    "cpu.shares",
    "cpu.cfs_quota_us",
)


@requires("cgroup_v1")
def test_a_limit_of_a_hierarchy_that_was_not_joined_is_joined_late() -> None:
    """All processes move, whatever forks meanwhile; the end removes that directory too."""
    managed: Manager = manager(Layout(FOUND.v1, FOUND.v2, None))
    cgroup = managed.create(None, f"test-late-{uuid.uuid4().hex[:8]}", None)
    try:
        with subprocess.Popen(
            ["sh", "-c", "while :; do sleep 0.01; done"],
            preexec_fn=lambda: cgroup.join(os.getpid()),  # noqa: PLW1509 - single-threaded
        ) as process:
            cgroup.limit(resources(cpu={"cpus": "0"}))
            directory = cgroup.paths["dirs"]["cpuset"]
            held = cgroup.holds(process.pid)
            cgroup.kill()
    finally:
        cgroup.remove()

    assert held
    assert not os.path.exists(directory)


@requires("overlay", "busybox")
@pytest.mark.conforms("config: $.linux.intelRdt")
def test_intel_rdt_is_refused_where_it_is_not_and_joined_where_it_is(
    bare: Bare, busybox_rootfs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Few machines have resctrl, so a plain directory stands in for it: who is to be in the class is written there."""
    config = confined(busybox_rootfs, "true")
    config.linux.intel_rdt = IntelRdt(clos_id="gold")
    if not any(" - resctrl " in line for line in Path("/proc/self/mountinfo").read_text().splitlines()):
        with pytest.raises(Unsupported, match=r"\$\.linux\.intelRdt: no resctrl file system is mounted"):
            bare.run(config)
    (tmp_path / "gold").mkdir()
    tasks = tmp_path / "gold/tasks"
    tasks.touch()
    monkeypatch.setattr(resctrl, "mount_point", lambda: str(tmp_path))
    with bare.holder(config) as name:
        joined = tasks.read_text(encoding="ascii")
        init = bare.runtime.record(name).init[0]
        tasks.write_text("", encoding="ascii")
        ran = bare.exec(name, "true")
        again = tasks.read_text(encoding="ascii")

    assert joined == str(init)
    assert ran.end.code == 0
    assert again.isdigit()
    assert tasks.exists()
