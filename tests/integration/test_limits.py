"""Limits of the engine's containers: they hold, they are told apart, and the kernel reads them back."""

import os
import re
import signal
from pathlib import Path

import pytest

from pytest_ocirun.engine.request import Limits
from tests.boxes import Launch, M, shell
from tests.requires import requires

pytestmark = [requires("userns", "overlay", "seccomp", "busybox"), pytest.mark.lane("v2")]

HOG = "x=$(head -c 200000000 /dev/zero | tr '\\0' x); echo survived"


def limits(
    *, memory: int | None = 128 * M, pids: int | None = 50, cpus: float | None = None, disk: int = 8 * M
) -> Limits:
    """Limits, small ones."""
    return Limits(memory=memory, pids=pids, cpus=cpus, disk=disk)


@requires("root", "cgroup")
def test_out_of_memory_is_named(launch: Launch) -> None:
    """What takes more memory than the limit is killed by the kernel, and the result says why; the box lives."""
    box = launch(limits=limits(memory=32 * M, disk=4 * M))
    result = box.exec(["sh", "-c", HOG])

    assert (result.oom_killed, "survived" in result.stdout) == (True, False)
    assert "memory" in result.describe()
    assert box.counters().oom_kills >= 1
    assert shell(box, "echo alive") == "alive"
    assert box.exec(["sh", "-c", "exit 1"]).oom_killed is False


@requires("root", "cgroup")
def test_the_limit_on_processes_holds(launch: Launch) -> None:
    """Not more than so many processes at one time, and the refusals are counted."""
    box = launch(limits=limits(pids=20))
    result = box.exec(["sh", "-c", "for i in $(seq 40); do sleep 5 & done"], timeout=10)

    assert result.exit_code
    assert re.search("fork|Resource temporarily unavailable", result.stderr)
    assert box.counters().pids_limit_hits >= 1


@requires("root", "cgroup")
def test_processor_time_is_limited(launch: Launch) -> None:
    """A tenth of a processor: half a second of wall time gives about 50 ms of work."""
    box = launch(limits=limits(cpus=0.1))
    result = box.exec(["sh", "-c", "while :; do :; done"], timeout=1.0)
    ticks = box._cgroup.counters().cpu_usage_us

    assert result.timed_out
    assert ticks is not None
    assert ticks < 400_000


@requires("root", "cgroup")
def test_limits_are_read_back(launch: Launch) -> None:
    """The kernel's own files hold what was asked for, and every process is counted there (CVE-2025-47291)."""
    box = launch(limits=limits(memory=64 * M, pids=33, cpus=0.5))
    got = box._cgroup.limits()
    result = box.exec(["sh", "-c", "sleep 5 & sleep 0.2"])

    assert {key: got[key] for key in ("memory.limit", "pids.limit", "cpu.quota", "cpu.period")} == {
        "memory.limit": 64 * M,
        "pids.limit": 33,
        "cpu.quota": 50000,
        "cpu.period": 100000,
    }
    assert result.ok
    assert box.pid in box._cgroup.processes()
    assert len(box._cgroup.processes()) == 2


@requires("root", "cgroup")
def test_every_hierarchy_counts_every_process(launch: Launch) -> None:
    """Init and exec are in the container's cgroup in each hierarchy that limits it, not only in one."""
    box = launch()
    ours = Path(f"/proc/{box.pid}/cgroup").read_text(encoding="utf-8").splitlines()
    placed = {line.split(":")[1] for line in ours if line.split(":", 2)[2].endswith(f"/ocirun/{box.id}")}
    wanted = {"memory", "pids", "cpu"}
    found = {name for names in placed for name in names.split(",")}

    assert wanted <= found or placed == {""}, ours


def test_a_container_cannot_leave_or_loosen_its_cgroup(launch: Launch) -> None:
    """No cgroup file system is there to be written, and none can be mounted."""
    box = launch()
    result = box.exec(["sh", "-c", "ls -A /sys/fs/cgroup; grep cgroup /proc/self/mounts; mount -t cgroup2 x /mnt"])

    assert result.stdout == ""
    assert result.exit_code


@pytest.mark.parametrize("place", ["/", "/etc", "/tmp", "/root"])
def test_the_disk_is_bounded(launch: Launch, place: str) -> None:
    """Writing more than ``disk`` ends in "No space left on device", wherever it is written."""
    box = launch(limits=limits(disk=4 * M))
    result = box.exec(["sh", "-c", f"dd if=/dev/zero of={place}/big bs=64k count=100; wc -c < {place}/big"])

    assert "No space left on device" in result.stderr
    assert 3 * M < int(result.stdout) <= 4 * M
    assert result.oom_killed is False


def test_all_places_share_one_bound(launch: Launch, tmp_path: Path) -> None:
    """The root, /tmp and the tree's overlay together cannot hold more than ``disk``."""
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "file").write_text("host", encoding="ascii")
    tmp_path.chmod(0o755)
    for writable in (True, False):
        box = launch(limits=limits(disk=4 * M), overlays=(tree,), writable_root=writable)
        places = ["/root" if not writable else "/etc", "/tmp", "/var/tmp", "/run", str(tree)]
        fill = "; ".join(f"head -c 2000000 /dev/zero > {place}/big || echo full {place}" for place in places)
        result = box.exec(["sh", "-c", f"{fill}; cat {' '.join(f'{place}/big' for place in places)} | wc -c"])

        assert result.stdout.count("full") == 3, result.stdout
        assert int(result.stdout.split()[-1]) <= 4 * M
    assert os.listdir(tree) == ["file"]


def test_inodes_are_bounded(launch: Launch) -> None:
    """A million empty files do not fit either."""
    box = launch(limits=limits(disk=4 * M))
    result = box.exec(["sh", "-c", "i=0; while : > /tmp/f$i; do i=$((i + 1)); done; echo $i"], timeout=30)
    made = box.exec(["sh", "-c", "ls /tmp | wc -l"]).stdout

    assert "No space left on device" in result.stderr
    assert 500 < int(made) <= 1024


def test_a_full_disk_is_not_out_of_memory(launch: Launch) -> None:
    """Each has its own name: the disk's bound below the memory's gives ENOSPC, no kill."""
    box = launch(limits=limits(memory=64 * M, disk=16 * M))
    result = box.exec(["sh", "-c", "dd if=/dev/zero of=/tmp/big bs=64k count=500"])

    assert (result.signal, result.oom_killed, box.counters().oom_kills) == (None, False, 0)
    assert "No space" in result.stderr


@requires("root", "cgroup")
def test_a_killed_init_is_not_called_out_of_memory(launch: Launch) -> None:
    """SIGKILL alone is no sign of it: only the kernel's counter is."""
    box = launch("sh", "-c", "kill -STOP $$; sleep 60")
    box.kill()

    assert box.wait(10).signal == signal.SIGKILL
    assert box.counters().oom_kills == 0
