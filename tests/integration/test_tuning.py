"""Scheduling, I/O priority, CPU affinity, memory policy and personality of real processes."""

import ctypes
import errno
import os
import struct
from pathlib import Path
from typing import Any

import pytest

from pytest_ocirun.errors import ConfigError, KernelRefused, Unsupported
from pytest_ocirun.oci.process import CPUAffinity, IOPriority, Scheduler
from pytest_ocirun.oci.runtime import CPU, Config, MemoryPolicy, Personality, Resources
from tests.boxes import Bare, Ran, confined
from tests.requires import requires

pytestmark = [requires("userns", "overlay", "seccomp", "busybox"), pytest.mark.lane("v2")]

_POLICY = 41  # fields of /proc/PID/stat, counted from 1: proc_pid_stat(5)
_RT_PRIORITY = 40
_NICE = 19


def field(ran: Ran, number: int) -> int:
    """A field of the /proc/PID/stat that a process printed."""
    assert ran.end.code == 0, ran.err
    return int(ran.out.rpartition(")")[2].split()[number - 3])


def unfiltered(rootfs: Path, *args: str) -> Config:
    """A config whose filter lets the tests' system calls through."""
    config = confined(rootfs, *args)
    config.linux.seccomp = None
    return config


@pytest.mark.conforms(
    "config: $.process.scheduler.policy SCHED_OTHER",
    "config: $.process.scheduler.policy SCHED_BATCH",
    "config: $.process.scheduler.policy SCHED_IDLE",
    "config: $.process.scheduler.policy SCHED_DEADLINE",
    "config: $.process.scheduler.nice",
)
@requires("root")
@pytest.mark.conforms("config: $.process.scheduler")
@pytest.mark.parametrize(
    "asked, seen",
    [
        ({"policy": "SCHED_OTHER", "nice": 7}, {_POLICY: 0, _NICE: 7}),
        ({"policy": "SCHED_OTHER", "nice": -7}, {_POLICY: 0, _NICE: -7}),
        ({"policy": "SCHED_BATCH", "nice": -3}, {_POLICY: 3, _NICE: -3}),
        ({"policy": "SCHED_IDLE"}, {_POLICY: 5}),
        ({"policy": "SCHED_DEADLINE", "runtime": 10**7, "deadline": 10**8, "period": 10**8}, {_POLICY: 6}),
        ({"policy": "SCHED_BATCH", "flags": ["SCHED_FLAG_RESET_ON_FORK"]}, {_POLICY: 3}),
    ],
)
def test_scheduler(bare: Bare, busybox_rootfs: Path, asked: dict[str, Any], seen: dict[int, int]) -> None:
    """The init has the policy, though a user namespace of its own gives no right to it; an exec has it too."""
    config = unfiltered(busybox_rootfs, "cat", "/proc/self/stat")
    config.process.scheduler = Scheduler(**asked)
    ran = bare.run(config)

    assert {number: field(ran, number) for number in seen} == seen
    with bare.holder(config) as name:
        ran = bare.exec(name, "cat", "/proc/self/stat")
        assert {number: field(ran, number) for number in seen} == seen


@requires("root")
@pytest.mark.conforms("config: $.process.scheduler")
def test_scheduler_of_an_exec(bare: Bare, busybox_rootfs: Path) -> None:
    """A process of its own may ask for another one than the container's."""
    config = unfiltered(busybox_rootfs)
    config.process.scheduler = Scheduler(policy="SCHED_BATCH")
    with bare.holder(config) as name:
        ran = bare.exec(name, "cat", "/proc/self/stat", scheduler=Scheduler(policy="SCHED_IDLE"))

    assert field(ran, _POLICY) == 5


@pytest.mark.conforms("config: $.process.scheduler.flags SCHED_FLAG_RESET_ON_FORK")
@requires("root")
@pytest.mark.conforms("config: $.process.scheduler")
def test_scheduler_flags_hold(bare: Bare, busybox_rootfs: Path) -> None:
    """With reset-on-fork a child of the process is an ordinary one again."""
    script = "cat /proc/self/stat; cat /proc/$$/stat"
    config = unfiltered(busybox_rootfs, "sh", "-c", script)
    config.process.scheduler = Scheduler(policy="SCHED_OTHER", nice=-5, flags=["SCHED_FLAG_RESET_ON_FORK"])
    child, parent = (int(line.rpartition(")")[2].split()[_NICE - 3]) for line in bare.run(config).out.splitlines())

    assert (child, parent) == (0, -5)


@requires("root")
@pytest.mark.conforms(
    *(f"config: $.process.scheduler.{key}" for key in ("runtime", "deadline", "period")),
    *(f"config: $.process.scheduler.flags SCHED_FLAG_{name}" for name in ("RECLAIM", "DL_OVERRUN")),
)
def test_scheduler_deadline(bare: Bare, busybox_rootfs: Path) -> None:
    """Times and flags as sched_getattr(2) tells them of the init."""
    config = unfiltered(busybox_rootfs, "sleep", "60")
    names = ["SCHED_FLAG_RECLAIM", "SCHED_FLAG_DL_OVERRUN"]
    config.process.scheduler = Scheduler(
        policy="SCHED_DEADLINE", runtime=11 * 10**6, deadline=101 * 10**6, period=103 * 10**6, flags=names
    )
    name = bare.new_id()
    child = bare.create(config, name=name, start=True)
    try:
        attributes = (ctypes.c_char * 48)()
        number = 315 if os.uname().machine == "x86_64" else 275
        status = ctypes.CDLL(None).syscall(number, child.pid, attributes, 48, 0)
    finally:
        bare.end(name, child)
    _size, policy, flags, *_other, runtime, deadline, period = struct.unpack("=IIQiIQQQ", attributes.raw)

    assert (status, policy, flags) == (0, 6, 2 | 4)
    assert (runtime, deadline, period) == (11 * 10**6, 101 * 10**6, 103 * 10**6)


@requires("root")
@pytest.mark.conforms("config: $.process.scheduler")
def test_scheduler_that_is_refused_is_named(bare: Bare, busybox_rootfs: Path) -> None:
    """More time than there is: the kernel's admission control says no, and nothing is left behind."""
    config = unfiltered(busybox_rootfs)
    config.process.scheduler = Scheduler(policy="SCHED_DEADLINE", runtime=10**15, deadline=10**15, period=10**15)

    with pytest.raises(KernelRefused, match="schedule it by SCHED_DEADLINE"):
        bare.run(config)


@pytest.mark.conforms(
    "config: $.process.ioPriority.class IOPRIO_CLASS_RT",
    "config: $.process.ioPriority.class IOPRIO_CLASS_BE",
    "config: $.process.ioPriority.class IOPRIO_CLASS_IDLE",
    "config: $.process.ioPriority.priority",
)
@requires("root")
@pytest.mark.conforms("config: $.process.ioPriority")
@pytest.mark.parametrize(
    "kind, level, shown",
    [
        ("IOPRIO_CLASS_RT", 3, "realtime: prio 3"),
        ("IOPRIO_CLASS_BE", 6, "best-effort: prio 6"),
        ("IOPRIO_CLASS_IDLE", 0, "idle"),
    ],
)
def test_io_priority(bare: Bare, busybox_rootfs: Path, kind: str, level: int, shown: str) -> None:
    """Class and level are the config's, in run and in exec."""
    config = unfiltered(busybox_rootfs, "ionice")
    config.process.io_priority = IOPriority(class_=kind, priority=level)
    with bare.holder(config) as name:
        texts = [bare.run(config).out.strip(), bare.exec(name, "ionice").out.strip()]

    assert texts == [shown, shown]


@pytest.mark.conforms("config: $.process.execCPUAffinity.initial", "config: $.process.execCPUAffinity.final")
@pytest.mark.conforms("config: $.process.execCPUAffinity")
def test_exec_cpu_affinity(bare: Bare, busybox_rootfs: Path) -> None:
    """An exec runs on the CPUs of ``final``; the init, and the spawner, run where they did."""
    own = sorted(os.sched_getaffinity(0))
    if len(own) < 2:
        pytest.skip("this kernel lacks a second CPU")
    config = unfiltered(busybox_rootfs, "grep", "Cpus_allowed_list", "/proc/self/status")
    config.process.exec_cpu_affinity = CPUAffinity(initial=str(own[0]), final=str(own[1]))
    with bare.holder(config) as name:
        execs = [
            bare.exec(name, *config.process.args, exec_cpu_affinity=affinity).out.split()[1]
            for affinity in (None, CPUAffinity(initial=str(own[1])), CPUAffinity(final=f"{own[0]},{own[1]}"))
        ]
        after = bare.run(config).out.split()[1]

    assert execs == [str(own[1]), str(own[1]), f"{own[0]}-{own[1]}" if own[1] == own[0] + 1 else f"{own[0]},{own[1]}"]
    assert after == bare.run(confined(busybox_rootfs, *config.process.args)).out.split()[1] != str(own[0])


@requires("root", "cgroup_v1")
@pytest.mark.conforms("config: $.process.execCPUAffinity")
def test_exec_cpu_affinity_beyond_the_cpuset(bare: Bare, busybox_rootfs: Path) -> None:
    """CPUs that the container's cgroup does not have are an error, not something else."""
    config = confined(busybox_rootfs, resources=Resources(cpu=CPU(cpus="0")))
    with bare.holder(config) as name, pytest.raises(KernelRefused, match="let it run on the CPUs"):
        bare.exec(name, "true", exec_cpu_affinity=CPUAffinity(final="1"))


@pytest.mark.conforms("config: $.linux.personality.domain LINUX", "config: $.linux.personality.domain LINUX32")
@pytest.mark.conforms("config: $.linux.personality")
@pytest.mark.parametrize("domain, shown", [("LINUX32", "00000008\n"), ("LINUX", "00000000\n")])
def test_personality(bare: Bare, busybox_rootfs: Path, domain: str, shown: str) -> None:
    """The program has the domain, in run and in exec."""
    config = unfiltered(busybox_rootfs, "cat", "/proc/self/personality")
    config.linux.personality = Personality(domain=domain)
    with bare.holder(config) as name:
        assert [bare.run(config).out, bare.exec(name, *config.process.args).out] == [shown, shown]


@pytest.mark.conforms(
    "config: $.linux.memoryPolicy.mode MPOL_BIND",
    "config: $.linux.memoryPolicy.mode MPOL_INTERLEAVE",
    "config: $.linux.memoryPolicy.mode MPOL_PREFERRED",
    "config: $.linux.memoryPolicy.mode MPOL_LOCAL",
    "config: $.linux.memoryPolicy.mode MPOL_DEFAULT",
    "config: $.linux.memoryPolicy.flags MPOL_F_STATIC_NODES",
    "config: $.linux.memoryPolicy.flags MPOL_F_RELATIVE_NODES",
    "config: $.linux.memoryPolicy.nodes",
)
@requires("numa")
@pytest.mark.conforms("config: $.linux.memoryPolicy")
@pytest.mark.parametrize(
    "asked, shown",
    [
        ({"mode": "MPOL_BIND", "nodes": "0"}, "bind:0"),
        ({"mode": "MPOL_INTERLEAVE", "nodes": "0-0", "flags": ["MPOL_F_STATIC_NODES"]}, "interleave=static:0"),
        ({"mode": "MPOL_PREFERRED", "nodes": "0", "flags": ["MPOL_F_RELATIVE_NODES"]}, "prefer=relative:0"),
        ({"mode": "MPOL_LOCAL"}, "local"),
        ({"mode": "MPOL_DEFAULT"}, "default"),
    ],
)
def test_memory_policy(bare: Bare, busybox_rootfs: Path, asked: dict[str, Any], shown: str) -> None:
    """Every mapping of the program follows the policy, in run and in exec."""
    config = unfiltered(busybox_rootfs, "head", "-n1", "/proc/self/numa_maps")
    config.linux.memory_policy = MemoryPolicy(**asked)
    with bare.holder(config) as name:
        seen = [bare.run(config).out.split()[1], bare.exec(name, *config.process.args).out.split()[1]]

    assert seen == [shown, shown]


@requires("numa")
@pytest.mark.conforms(
    "config: $.linux.memoryPolicy.mode MPOL_PREFERRED_MANY",
    "config: $.linux.memoryPolicy.mode MPOL_WEIGHTED_INTERLEAVE",
    "config: $.linux.memoryPolicy.flags MPOL_F_NUMA_BALANCING",
)
@pytest.mark.parametrize(
    "asked, shown",
    [
        ({"mode": "MPOL_PREFERRED_MANY", "nodes": "0"}, "prefer (many):0"),
        ({"mode": "MPOL_WEIGHTED_INTERLEAVE", "nodes": "0"}, "weighted interleave:0"),
        ({"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_NUMA_BALANCING"]}, "bind=balancing:0"),
    ],
)
def test_memory_policy_of_newer_kernels(bare: Bare, busybox_rootfs: Path, asked: dict[str, Any], shown: str) -> None:
    """Older ones refuse it at create, by name."""
    config = unfiltered(busybox_rootfs, "head", "-n1", "/proc/self/numa_maps")
    config.linux.memory_policy = MemoryPolicy(**asked)
    try:
        seen = bare.run(config).out
    except (KernelRefused, Unsupported) as error:
        assert asked["mode"] in str(error) or "memoryPolicy" in str(error)  # noqa: PT017 - not what is expected
        pytest.skip(f"this kernel lacks {asked['mode']}, and says so")

    assert f" {shown} " in seen


@pytest.mark.parametrize(
    "change, error, message",
    [
        ({"scheduler": Scheduler(policy="SCHED_ISO")}, Unsupported, "scheduler.policy: Linux has never"),
        ({"scheduler": Scheduler(policy="SCHED_X")}, ConfigError, "scheduler.policy: 'SCHED_X' is none of"),
        ({"scheduler": Scheduler(policy="SCHED_OTHER", nice=20)}, ConfigError, "scheduler.nice: expected -20 to 19"),
        ({"scheduler": Scheduler(policy="SCHED_RR", priority=1, nice=1)}, ConfigError, "scheduler.nice: goes with"),
        ({"scheduler": Scheduler(policy="SCHED_FIFO")}, ConfigError, "scheduler.priority: expected 1 to 99, got 0"),
        ({"scheduler": Scheduler(policy="SCHED_IDLE", priority=5)}, ConfigError, "scheduler.priority: goes with"),
        ({"scheduler": Scheduler(policy="SCHED_RR", priority=5, period=9)}, ConfigError, "scheduler.period: goes"),
        ({"scheduler": Scheduler(policy="SCHED_DEADLINE")}, ConfigError, "scheduler.runtime: expected 1024"),
        (
            {"scheduler": Scheduler(policy="SCHED_DEADLINE", runtime=5000, deadline=4000)},
            ConfigError,
            "scheduler.deadline: expected 5000",
        ),
        (
            {"scheduler": Scheduler(policy="SCHED_DEADLINE", runtime=5000, deadline=6000, period=5500)},
            ConfigError,
            "scheduler.period: expected 6000",
        ),
        (
            {"scheduler": Scheduler(policy="SCHED_OTHER", flags=["SCHED_FLAG_X"])},
            ConfigError,
            r"scheduler.flags\[0\]: 'SCHED_FLAG_X' is none",
        ),
        (
            {"scheduler": Scheduler(policy="SCHED_OTHER", flags=["SCHED_FLAG_RECLAIM"])},
            ConfigError,
            r"scheduler.flags\[0\]: SCHED_FLAG_RECLAIM goes with SCHED_DEADLINE only",
        ),
        ({"io_priority": IOPriority(class_="IOPRIO_CLASS_NONE")}, ConfigError, "ioPriority.class: "),
        ({"io_priority": IOPriority(class_="IOPRIO_CLASS_BE", priority=8)}, ConfigError, "ioPriority.priority: "),
        ({"exec_cpu_affinity": CPUAffinity(final="3-1")}, ConfigError, "execCPUAffinity.final: expected a list"),
        ({"exec_cpu_affinity": CPUAffinity(initial="x")}, ConfigError, "execCPUAffinity.initial: expected a list"),
    ],
)
def test_nonsense_of_a_process(
    bare: Bare, busybox_rootfs: Path, change: dict[str, Any], error: type[Exception], message: str
) -> None:
    """The path stands first, and nothing was made."""
    config = confined(busybox_rootfs)
    for name, value in change.items():
        setattr(config.process, name, value)

    with pytest.raises(error, match=rf"^\$\.process\.{message}"):
        bare.create(config)


@pytest.mark.conforms("config: $.linux.personality.flags")
@pytest.mark.parametrize(
    "change, error, message",
    [
        ({"personality": Personality(domain="BSD")}, ConfigError, "personality.domain: 'BSD' is none"),
        ({"personality": Personality(domain="LINUX", flags=["X"])}, ConfigError, "personality.flags: "),
        ({"memory_policy": MemoryPolicy(mode="MPOL_X")}, ConfigError, "memoryPolicy.mode: "),
        ({"memory_policy": MemoryPolicy(mode="MPOL_BIND")}, ConfigError, "memoryPolicy.nodes: MPOL_BIND needs"),
        ({"memory_policy": MemoryPolicy(mode="MPOL_LOCAL", nodes="0")}, ConfigError, "memoryPolicy.nodes: MPOL_LOCAL"),
        ({"memory_policy": MemoryPolicy(mode="MPOL_BIND", nodes="a")}, ConfigError, "memoryPolicy.nodes: expected"),
        ({"memory_policy": MemoryPolicy(mode="MPOL_BIND", nodes="9999")}, ConfigError, "memoryPolicy.nodes: numbers"),
        (
            {"memory_policy": MemoryPolicy(mode="MPOL_PREFERRED", flags=["MPOL_F_STATIC_NODES"])},
            ConfigError,
            "memoryPolicy.flags: MPOL_PREFERRED without nodes",
        ),
        (
            {
                "memory_policy": MemoryPolicy(
                    mode="MPOL_BIND", nodes="0", flags=["MPOL_F_STATIC_NODES", "MPOL_F_RELATIVE_NODES"]
                )
            },
            ConfigError,
            "memoryPolicy.flags: nodes cannot be both",
        ),
        (
            {"memory_policy": MemoryPolicy(mode="MPOL_INTERLEAVE", nodes="0", flags=["MPOL_F_NUMA_BALANCING"])},
            ConfigError,
            "memoryPolicy.flags: MPOL_F_NUMA_BALANCING goes with",
        ),
        ({"memory_policy": MemoryPolicy(mode="MPOL_BIND", nodes="0,1000")}, Unsupported, "memoryPolicy.nodes: this"),
    ],
)
def test_nonsense_of_a_container(
    bare: Bare, busybox_rootfs: Path, change: dict[str, Any], error: type[Exception], message: str
) -> None:
    """The same for what belongs to the whole container."""
    if "this" in message and not Path("/sys/devices/system/node/has_memory").exists():
        pytest.skip("this kernel lacks memory nodes")
    config = confined(busybox_rootfs)
    for name, value in change.items():
        setattr(config.linux, name, value)

    with pytest.raises(error, match=rf"^\$\.linux\.{message}"):
        bare.create(config)


@pytest.mark.conforms(
    "config: $.process.scheduler.policy SCHED_FIFO",
    "config: $.process.scheduler.policy SCHED_RR",
    "config: $.process.scheduler.priority",
)
@requires("root", "cgroup")
@pytest.mark.conforms("config: $.process.scheduler")
@pytest.mark.parametrize("policy, number", [("SCHED_FIFO", 1), ("SCHED_RR", 2)])
def test_real_time_scheduler(bare: Bare, busybox_rootfs: Path, policy: str, number: int) -> None:
    """Real time, where the cgroup is given some; where it must be and is not, the error says what is missing."""
    grouped = Path("/sys/fs/cgroup/cpu/cpu.rt_runtime_us").exists()
    cpu = CPU(realtime_runtime=10000, realtime_period=1000000) if grouped else CPU()
    config = confined(busybox_rootfs, "cat", "/proc/self/stat", resources=Resources(cpu=cpu))
    config.process.scheduler = Scheduler(policy=policy, priority=7)
    try:
        ran = bare.run(config)
    except KernelRefused as error:
        if grouped or error.errno != errno.EPERM:
            raise
        pytest.skip("this kernel lacks real time in groups of cgroup v2")

    assert (field(ran, _POLICY), field(ran, _RT_PRIORITY)) == (number, 7)
    if grouped:
        config.linux.resources = Resources()
        with pytest.raises(KernelRefused, match=r"schedule it by SCHED_(.|\n)*realtimeRuntime"):
            bare.run(config)
