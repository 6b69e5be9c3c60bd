"""Cgroups on the real kernel: limits hold, counters name causes, kills spare none, removal takes ours."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import pytest_ocirun
from pytest_ocirun.errors import ContainerExists, KernelRefused, Unsupported
from pytest_ocirun.linux import sched
from pytest_ocirun.oci.codec import decode
from pytest_ocirun.oci.runtime import Resources
from pytest_ocirun.runtime.cgroups import Cgroup, Manager, tree, v2
from pytest_ocirun.runtime.cgroups.detect import Layout, layout, manager
from pytest_ocirun.runtime.cgroups.none import NullCgroup
from pytest_ocirun.runtime.cgroups.setting import Setting
from tests.requires import requires

pytestmark = requires("root", "cgroup")

M = 1024 * 1024
PACKAGE_PARENT = str(Path(pytest_ocirun.__file__).parents[1])
BOMB = "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass\n"
HOG = "held = []\nwhile True: held.append(bytearray(1 << 20))\n"


def resources(**document: Any) -> Resources:
    """``linux.resources`` as a config would give them."""
    return decode(Resources, document)


def tops(found: Layout) -> list[str]:
    """Every hierarchy's mount point, once."""
    return list(dict.fromkeys([*found.v1.values(), *([found.v2] if found.v2 else [])]))


def existing(name: str) -> list[str]:
    """The cgroups of that name, in any hierarchy."""
    return [f"{top}/{name}" for top in tops(layout()) if os.path.isdir(f"{top}/{name}")]


@pytest.fixture(params=["as it is", "v1 alone"] if layout().kind == "hybrid" else ["as it is"])
def managed(request: pytest.FixtureRequest) -> Manager:
    """The machine's own manager; on a hybrid machine also one that does not know of its v2 tree."""
    found = layout()
    return manager(found if request.param == "as it is" else Layout(found.v1, None, None))


@pytest.fixture
def name() -> Iterator[str]:
    """A cgroup's name that nobody else uses; afterwards nothing of it may exist."""
    name = f"ocirun-test-{uuid.uuid4().hex[:12]}"
    yield name
    left = existing(name)
    for path in left:
        for pid in tree.processes(path):
            os.kill(pid, signal.SIGKILL)
        tree.remove_all([path], 5)
    assert left == []


@pytest.fixture
def processes() -> Iterator[list[subprocess.Popen[bytes]]]:
    """Processes to kill and reap at the end, whatever happened."""
    started: list[subprocess.Popen[bytes]] = []
    yield started
    for process in started:
        process.kill()
        process.wait(10)
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                stream.close()


def start(
    processes: list[subprocess.Popen[bytes]], cgroup: Cgroup, *args: str, **options: Any
) -> subprocess.Popen[bytes]:
    """Run a program that joins by itself before it becomes the program."""

    def join() -> None:
        for path in cgroup.join_files():
            with open(path, "w", encoding="ascii") as file:
                file.write("0")

    process = subprocess.Popen(args, preexec_fn=join, **options)  # noqa: PLW1509 - single-threaded
    processes.append(process)
    return process


def python(
    processes: list[subprocess.Popen[bytes]], cgroup: Cgroup, program: str, **options: Any
) -> subprocess.Popen[bytes]:
    """The same with a Python program."""
    return start(processes, cgroup, sys.executable, "-I", "-S", "-c", program, **options)


def wait_for(condition: Callable[[], bool], seconds: float = 10) -> None:
    """Ask until it is so."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.005)


def test_limits_are_in_force_and_read_back(managed: Manager, name: str) -> None:
    """What limits() says is what was asked, and the kernel's own file agrees."""
    wanted = resources(
        memory={"limit": 64 * M, "reservation": 32 * M}, pids={"limit": 50}, cpu={"quota": 50000, "period": 200000}
    )
    cgroup = managed.create(f"/{name}/leaf", "x", wanted)
    try:
        got = cgroup.limits()
        files = [f"{path}/pids.max" for path in cgroup.paths["dirs"].values()]
        raw = [Path(path).read_text(encoding="ascii").strip() for path in files if os.path.exists(path)]
    finally:
        cgroup.remove()

    assert {key: got[key] for key in ("memory.limit", "memory.reservation", "pids.limit")} == {
        "memory.limit": 64 * M,
        "memory.reservation": 32 * M,
        "pids.limit": 50,
    }
    assert (got["cpu.quota"], got["cpu.period"]) == (50000, 200000)
    assert got.get("memory.swap", 64 * M) == 64 * M
    assert raw == ["50"]


def test_limits_can_be_changed_up_and_down(managed: Manager, name: str) -> None:
    """Raising memory above the old bound on memory plus swap is a matter of order on v1."""
    cgroup = managed.create(f"/{name}", "x", resources(memory={"limit": 32 * M}))
    seen = []
    try:
        for limit in (128 * M, 16 * M, 64 * M):
            cgroup.limit(resources(memory={"limit": limit}))
            seen.append(cgroup.limits()["memory.limit"])
    finally:
        cgroup.remove()

    assert seen == [128 * M, 16 * M, 64 * M]


def test_a_shared_weight_is_set(managed: Manager, name: str) -> None:
    """2048 shares are twice the default on v1, and more than weight 100 on v2."""
    cgroup = managed.create(f"/{name}", "x", resources(cpu={"shares": 2048}))
    try:
        got = cgroup.limits()
    finally:
        cgroup.remove()

    assert got.get("cpu.shares", 2048) == 2048
    assert int(got.get("cpu.weight", 101)) > 100
    assert {"cpu.shares", "cpu.weight"} & set(got)


@requires("cgroup_v1")
def test_a_cpuset_is_copied_down_to_the_leaf(managed: Manager, name: str, processes: list[Any]) -> None:
    """Without cpus and mems on the way down, joining is ENOSPC."""
    cgroup = managed.create(f"/{name}/a/b", "x", resources(cpu={"cpus": "0"}))
    try:
        process = start(processes, cgroup, "grep", "Cpus_allowed_list", "/proc/self/status", stdout=subprocess.PIPE)
        output, _ = process.communicate(timeout=10)
    finally:
        cgroup.remove()

    assert output.split()[-1] == b"0"


def test_a_process_that_eats_its_memory_is_killed_and_counted(
    managed: Manager, name: str, processes: list[Any]
) -> None:
    """The counter tells this SIGKILL from any other."""
    cgroup = managed.create(f"/{name}", "x", resources(memory={"limit": 48 * M}))
    try:
        before = cgroup.counters()
        status = python(processes, cgroup, HOG).wait(60)
        after = cgroup.counters()
    finally:
        cgroup.remove()

    assert status == -signal.SIGKILL
    assert (before.oom_kills, after.oom_kills) == (0, 1)
    assert after.memory_peak is None or 32 * M < after.memory_peak <= 48 * M
    assert after.cpu_usage_us


def test_refused_forks_are_counted_though_they_happen_in_an_exec(
    managed: Manager, name: str, processes: list[Any]
) -> None:
    """The container's limit holds for the cgroups of single execs below it."""
    program = (
        "import os\n"
        "for _ in range(20):\n"
        "    try:\n"
        "        if not os.fork(): break\n"
        "    except OSError: pass\n"
        "os.read(0, 1)\n"
    )
    cgroup = managed.create(f"/{name}", "x", resources(pids={"limit": 5}))
    child = cgroup.child("exec")
    try:
        process = python(processes, child, program, stdin=subprocess.PIPE)
        wait_for(lambda: len(child.processes()) == 5 and cgroup.counters().pids_refused == 16)
        counted = len(cgroup.processes())
        process.communicate(timeout=10)
        process.wait(10)
    finally:
        cgroup.kill()
        cgroup.remove()

    assert counted == 5


def test_a_fork_bomb_in_an_exec_dies_and_the_container_lives(managed: Manager, name: str, processes: list[Any]) -> None:
    """kill() of the exec's cgroup leaves none of its processes and all others."""
    cgroup = managed.create(f"/{name}", "x", resources(pids={"limit": 200}, cpu={"quota": 100000}))
    child = cgroup.child("exec")
    try:
        bystander = start(processes, cgroup, "sleep", "60")
        bomb = python(processes, child, BOMB)
        wait_for(lambda: len(child.processes()) > 100)
        child.kill()
        empty = child.wait_empty(20)
        status = bomb.wait(10)
        survivors = cgroup.processes()
        child.remove()
    finally:
        cgroup.kill()
        bystander.wait(10)
        cgroup.remove()

    assert empty
    assert status == -signal.SIGKILL
    assert survivors == [bystander.pid]


def test_killing_a_container_reaches_the_cgroups_below_it(managed: Manager, name: str, processes: list[Any]) -> None:
    """Those of execs, and those below them."""
    cgroup = managed.create(f"/{name}", "x", None)
    child = cgroup.child("exec")
    deeper = child.child("deeper")
    try:
        started = [start(processes, place, "sleep", "60") for place in (cgroup, child, deeper)]
        listed = cgroup.processes()
        cgroup.kill()
        statuses = [process.wait(10) for process in started]
    finally:
        cgroup.kill()
        cgroup.remove()

    assert listed == sorted(process.pid for process in started)
    assert statuses == [-signal.SIGKILL] * 3


def test_a_kernel_without_cgroup_kill_is_served_by_the_freezer(name: str, processes: list[Any]) -> None:
    """The older way to kill on v2 leaves none of a fork bomb either."""
    found = layout()
    if found.v2 is None:
        pytest.skip("this kernel lacks a cgroup v2 mount")
    cgroup = manager(found).create(f"/{name}", "x", resources(pids={"limit": 200}))
    child = cgroup.child("exec")
    directory = child.paths["dirs"]["unified"]
    try:
        python(processes, child, BOMB)
        wait_for(lambda: len(child.processes()) > 100)
        v2.kill_frozen(directory)
        left = tree.processes(directory)
    finally:
        cgroup.kill()
        cgroup.remove()

    assert left == []


def test_frozen_processes_stand_still_and_go_on(managed: Manager, name: str, processes: list[Any]) -> None:
    """No tick of processor time is used between freeze and thaw."""
    cgroup = managed.create(f"/{name}", "x", resources(cpu={"quota": 50000}))
    try:
        python(processes, cgroup, "while True: pass")
        wait_for(lambda: (cgroup.counters().cpu_usage_us or 0) > 50000)
        cgroup.freeze()
        first = cgroup.counters().cpu_usage_us
        time.sleep(0.1)
        second = cgroup.counters().cpu_usage_us
        cgroup.thaw()
        wait_for(lambda: (cgroup.counters().cpu_usage_us or 0) > (second or 0) + 20000)
    finally:
        cgroup.kill()
        cgroup.remove()

    assert first == second


def test_a_frozen_container_can_be_killed(managed: Manager, name: str, processes: list[Any]) -> None:
    """v1 must thaw for that."""
    cgroup = managed.create(f"/{name}", "x", None)
    try:
        process = start(processes, cgroup, "sleep", "60")
        cgroup.freeze()
        cgroup.kill()
        status = process.wait(10)
    finally:
        cgroup.remove()

    assert status == -signal.SIGKILL


def test_removal_waits_for_processes_that_are_ending(managed: Manager, name: str, processes: list[Any]) -> None:
    """Right after the kill, nothing reaped yet."""
    cgroup = managed.create(f"/{name}", "x", resources(memory={"limit": 256 * M}))
    for _ in range(8):
        python(processes, cgroup, "held = bytearray(8 << 20)\nimport time; time.sleep(60)")
    wait_for(lambda: len(cgroup.processes()) == 8)
    cgroup.kill()
    cgroup.remove()

    assert existing(name) == []


def test_removal_spares_living_processes_and_names_them(managed: Manager, name: str, processes: list[Any]) -> None:
    """remove() is not kill()."""
    cgroup = managed.create(f"/{name}", "x", None)
    process = start(processes, cgroup, "sleep", "60")
    try:
        with pytest.raises(KernelRefused, match=str(process.pid)) as caught:
            cgroup.remove(timeout=0.05)

        assert caught.value.errno == errno.EBUSY
        assert process.poll() is None
    finally:
        cgroup.kill()
        process.wait(10)
        cgroup.remove()


def test_removing_twice_is_fine(managed: Manager, name: str) -> None:
    """A forced delete may come after a crash in the middle of one."""
    cgroup = managed.create(f"/{name}", "x", None)
    cgroup.remove()
    cgroup.remove()

    assert existing(name) == []


def test_a_refused_value_is_named_and_leaves_nothing(managed: Manager, name: str) -> None:
    """A quota below a millisecond is EINVAL, after directories have been made."""
    with pytest.raises(KernelRefused, match=r"cpu\.quota.* 1 .*ocirun-test.*Invalid argument") as caught:
        managed.create(f"/{name}/leaf", "x", resources(memory={"limit": 32 * M}, cpu={"quota": 1}))

    assert caught.value.errno == errno.EINVAL
    assert caught.value.hint
    assert existing(name) == []


def test_a_value_that_does_not_hold_is_an_error(managed: Manager, name: str) -> None:
    """What is read back differs from what was expected: both are named."""
    cgroup = managed.create(f"/{name}", "x", None)
    dirs = cgroup.paths["dirs"]
    setting = Setting("pids.limit", 8, "pids", "pids.max", "7", expected="8")
    try:
        with pytest.raises(KernelRefused, match=r"pids\.limit to 8 .*pids\.max.*reads back '7'"):
            setting.write(dirs.get("pids") or dirs["unified"])
    finally:
        cgroup.remove()


def test_a_cgroup_that_was_there_before_survives_with_its_processes(
    managed: Manager, name: str, processes: list[Any]
) -> None:
    """It is used and limited, but neither killed nor removed."""
    foreign = [f"{top}/{name}" for top in tops(layout())]
    for path in foreign:
        os.mkdir(path)
    try:
        cgroup = managed.create(f"/{name}", "x", None)
        sleeper = start(processes, cgroup, "sleep", "60")
        with pytest.raises(Unsupported, match="was there before"):
            cgroup.kill()
        cgroup.remove()
        left = [path for path in foreign if os.path.isdir(path)]
        alive = sleeper.poll() is None
    finally:
        for process in processes:
            process.kill()
            process.wait(10)
        tree.remove_all(foreign, 5)

    assert left == foreign
    assert alive


def test_a_left_over_empty_cgroup_of_the_same_id_is_replaced(managed: Manager, name: str) -> None:
    """Its old limits do not reach the new container."""
    try:
        managed.create(None, name, resources(pids={"limit": 3}))
        cgroup = managed.create(None, name, resources(memory={"limit": 32 * M}))
        limit = cgroup.limits()["pids.limit"]
        cgroup.remove()
    finally:
        managed.prune()

    assert limit == -1
    assert existing(f"ocirun/{name}") == []


def test_an_id_whose_cgroup_is_in_use_is_refused(managed: Manager, name: str, processes: list[Any]) -> None:
    """And the container that uses it is unharmed."""
    cgroup = managed.create(None, name, resources(pids={"limit": 3}))
    try:
        process = start(processes, cgroup, "sleep", "60")
        with pytest.raises(ContainerExists, match=str(process.pid)):
            managed.create(None, name, None)
        limit, alive = cgroup.limits()["pids.limit"], process.poll() is None
    finally:
        cgroup.kill()
        cgroup.remove()
        managed.prune()

    assert (limit, alive) == (3, True)


def test_another_process_restores_and_ends_a_cgroup(managed: Manager, name: str, processes: list[Any]) -> None:
    """From nothing but the JSON of its paths."""
    cgroup = managed.create(f"/{name}/leaf", "x", resources(pids={"limit": 9}))
    process = start(processes, cgroup, "sleep", "60")
    program = (
        "import json, sys; sys.path.append(sys.argv[1])\n"
        "from pytest_ocirun.runtime.cgroups import Cgroup\n"
        "cgroup = Cgroup.from_paths(json.loads(sys.argv[2]))\n"
        "print(json.dumps([cgroup.limits()['pids.limit'], cgroup.processes()]))\n"
        "cgroup.kill(); cgroup.wait_empty(10); cgroup.remove()\n"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", program, PACKAGE_PARENT, json.dumps(cgroup.paths)],
        capture_output=True,
        check=False,
        text=True,
        timeout=30,
    )

    assert done.stderr == ""
    assert json.loads(done.stdout) == [9, [process.pid]]
    assert process.wait(10) == -signal.SIGKILL
    assert existing(name) == []


def test_membership_is_asked_of_every_hierarchy(managed: Manager, name: str, processes: list[Any]) -> None:
    """A process that joined only one of v1's hierarchies is not held."""
    cgroup = managed.create(f"/{name}", "x", None)
    try:
        process = subprocess.Popen(["sleep", "60"])
        processes.append(process)
        before = cgroup.holds(process.pid)
        files = cgroup.join_files()
        for path in files[:-1]:
            tree.join(path, process.pid)
        partly = cgroup.holds(process.pid)
        cgroup.join(process.pid)
        after = cgroup.holds(process.pid)
    finally:
        cgroup.kill()
        cgroup.remove()

    assert (before, partly, after) == (False, False, True)


def test_a_child_must_be_new_and_plainly_named(managed: Manager, name: str) -> None:
    """Two execs never share a cgroup by accident."""
    cgroup = managed.create(f"/{name}", "x", None)
    try:
        cgroup.child("one")
        with pytest.raises(KernelRefused, match="it exists"):
            cgroup.child("one")
        with pytest.raises(ValueError, match="single path component"):
            cgroup.child("../two")
    finally:
        cgroup.remove()


@requires("cgroup_v2")
def test_a_process_can_be_born_inside(name: str) -> None:
    """v2_dir is for CLONE_INTO_CGROUP, also where pids.limit 0 lets nothing but the first process in."""
    cgroup = manager().create(f"/{name}", "x", resources(pids={"limit": 0}))
    try:
        fd = os.open(cgroup.v2_dir or "", os.O_RDONLY | os.O_DIRECTORY)
        pid, pidfd = sched.clone3(0, cgroup=fd)
        if pid == 0:
            os.read(os.pipe()[0], 1)
        os.close(fd)
        os.close(pidfd)
        held = cgroup.holds(pid)
        cgroup.kill()
        _, status = os.waitpid(pid, 0)
    finally:
        cgroup.remove()

    assert held
    assert os.waitstatus_to_exitcode(status) == -signal.SIGKILL


def test_many_processes_make_and_remove_below_the_shared_parent_at_once(name: str) -> None:
    """The shared parent comes and goes under their feet."""
    program = (
        "import sys; sys.path.append(sys.argv[1])\n"
        "from pytest_ocirun.runtime.cgroups import detect\n"
        "managed = detect.manager()\n"
        "for turn in range(30):\n"
        "    cgroup = managed.create(None, f'{sys.argv[2]}-{turn}', None)\n"
        "    cgroup.child('exec')\n"
        "    cgroup.remove()\n"
        "    managed.prune()\n"
    )
    started = [
        subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", program, PACKAGE_PARENT, f"{name}-{number}"], stderr=subprocess.PIPE
        )
        for number in range(4)
    ]
    errors = [process.communicate(timeout=60)[1].decode() for process in started]

    assert errors == [""] * 4


def test_a_controller_that_is_not_mounted_is_named() -> None:
    """Asked for and not to be had: an error before anything is made."""
    found = layout()
    managed = manager(Layout({"pids": found.v1["pids"]}, None, None)) if found.v1 else manager(Layout({}, None, None))

    with pytest.raises(Unsupported, match=r"cannot set memory\.limit.*mounted") as caught:
        managed.create(None, "ocirun-test-x", resources(memory={"limit": M}))

    assert "mount -t cgroup" in (caught.value.hint or "")


def in_mount_namespace(shell: str) -> dict[str, Any]:
    """Run ``shell`` in a private mount namespace, then ask what can be had there, and for a null cgroup."""
    program = (
        "import json, sys; sys.path.append(sys.argv[1])\n"
        "from pytest_ocirun.runtime.cgroups import detect\n"
        "found = detect.manager().availability()\n"
        "none = detect.manager().create(None, 'ocirun-test-x', None, allow_none=True)\n"
        "print(json.dumps({'kind': detect.layout().kind, 'none': type(none).__name__,\n"
        "    **{name: refusal and [refusal.reason, refusal.hint] for name, refusal in found.items()}}))\n"
    )
    arguments = [sys.executable, program, PACKAGE_PARENT]
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-euc", f'{shell}\nexec "$0" -I -S -c "$@"', *arguments],
        capture_output=True,
        check=False,
        text=True,
        timeout=30,
    )
    assert done.stderr == ""
    return dict(json.loads(done.stdout))


def test_a_read_only_cgroup_file_system_is_told_apart() -> None:
    """As inside another container."""
    answer = in_mount_namespace(
        "\n".join(f"mount --bind {top} {top}; mount -o remount,bind,ro {top}" for top in tops(layout()))
    )

    assert answer["none"] == NullCgroup.__name__
    for controller in ("memory", "pids", "cpu"):
        reason, hint = answer[controller]
        assert "read-only" in reason
        assert "container" in hint


def test_no_cgroup_file_system_at_all_is_told_apart() -> None:
    """The mount points are covered."""
    answer = in_mount_namespace("mount -t tmpfs none /sys/fs/cgroup")

    assert answer["kind"] == "none"
    assert answer["none"] == NullCgroup.__name__
    assert "no cgroup hierarchy is mounted" in answer["memory"][0]
