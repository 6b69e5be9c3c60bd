"""update: limits of a container that is there already, in the kernel's own files."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from pytest_ocirun.cli.commands.update import size
from pytest_ocirun.cli.options import Usage
from pytest_ocirun.runtime.cgroups import Cgroup, detect
from tests.cli.conftest import Cli, Config
from tests.requires import lack, requires

pytestmark = [requires("root", "cgroup"), pytest.mark.lane("v2")]

M = 1 << 20
V2 = detect.layout().kind == "v2"


def recorded(cli: Cli, name: str) -> dict[str, Any]:
    """What the state directory keeps of a container."""
    document: dict[str, Any] = json.loads((cli.root / name / "state.json").read_text())
    return document


def limits(cli: Cli, name: str) -> dict[str, int | str]:
    """The limits in force, under their OCI names."""
    return Cgroup.from_paths(recorded(cli, name)["cgroups"]).limits()


def file(cli: Cli, name: str, controller: str, v1: str, v2: str) -> str:
    """The text of a file of its cgroup."""
    dirs = recorded(cli, name)["cgroups"]["dirs"]
    path = f"{dirs['unified']}/{v2}" if V2 else f"{dirs[controller]}/{v1}"
    return Path(path).read_text(encoding="ascii").strip()


def limited(config: Config) -> None:
    """Some limits to begin with."""
    config["linux"]["resources"] |= {
        "memory": {"limit": 64 * M, "swap": 64 * M},
        "cpu": {"quota": 50000, "period": 100000},
    }


FLAGS = [
    (("--cpu-period", "200000"), "cpu", "cpu.cfs_period_us", "cpu.max", "200000", "50000 200000"),
    (("--cpu-quota", "30000"), "cpu", "cpu.cfs_quota_us", "cpu.max", "30000", "30000 100000"),
    (("--cpu-quota=-1",), "cpu", "cpu.cfs_quota_us", "cpu.max", "-1", "max 100000"),
    (("--cpu-burst", "2000"), "cpu", "cpu.cfs_burst_us", "cpu.max.burst", "2000", "2000"),
    (("--cpu-share", "512"), "cpu", "cpu.shares", "cpu.weight", "512", "59"),
    (("--cpu-idle", "1"), "cpu", "cpu.idle", "cpu.idle", "1", "1"),
    (("--cpuset-cpus", "0"), "cpuset", "cpuset.cpus", "cpuset.cpus", "0", "0"),
    (("--cpuset-mems", "0"), "cpuset", "cpuset.mems", "cpuset.mems", "0", "0"),
    (("--memory", "128m"), "memory", "memory.limit_in_bytes", "memory.max", None, None),
    (("--memory", "33554432"), "memory", "memory.limit_in_bytes", "memory.max", str(32 * M), str(32 * M)),
    (("--memory-reservation", "16m"), "memory", "memory.soft_limit_in_bytes", "memory.low", str(16 * M), str(16 * M)),
    (("--pids-limit", "33"), "pids", "pids.max", "pids.max", "33", "33"),
    (("--pids-limit", "-1"), "pids", "pids.max", "pids.max", "max", "max"),
]


@pytest.mark.conforms(*(f"cli: update {name}" for name in sorted({row[0][0].partition("=")[0] for row in FLAGS})))
def test_each_flag_reaches_its_file_and_the_state(cli: Cli) -> None:
    """One running container, one flag after the other; each is kept for the next update to build on."""
    name = cli.running("sleep", "60", edit=limited)
    wrong: list[tuple[object, ...]] = []
    for flags, controller, v1, v2, on_v1, on_v2 in FLAGS:
        if controller == "cpuset" and lack("cpuset"):
            continue
        done = cli("update", *flags, name)
        if on_v1 is None:  # above the limit on memory and swap together
            wrong += [] if done.code == 1 and "memory.swap" in done.err else [(flags, done)]
        elif done.code or done.err:
            wrong.append((flags, done))
        elif (got := file(cli, name, controller, v1, v2)) != (on_v2 if V2 else on_v1):
            wrong.append((flags, got))
        if flags == ("--cpu-quota=-1",):
            cli.ok("update", "--cpu-quota", "50000", "--cpu-period", "100000", name)
        if flags[0] == "--cpu-period":
            cli.ok("update", "--cpu-period", "100000", name)
        if flags[0] == "--cpu-idle":
            cli.ok("update", "--cpu-idle", "0", name)
    kept = recorded(cli, name)["config"]["linux"]["resources"]
    cli.ok("delete", "--force", name)

    assert wrong == []
    assert kept["memory"] == {"limit": 32 * M, "swap": 64 * M, "reservation": 16 * M}
    assert kept["pids"] == {"limit": -1}
    assert kept["cpu"] == {
        "quota": 50000,
        "period": 100000,
        "burst": 2000,
        "shares": 512,
        "idle": 0,
        **({} if lack("cpuset") else {"cpus": "0", "mems": "0"}),
    }


@pytest.mark.conforms("cli: update --memory", "cli: update --memory-swap")
def test_memory_and_swap_go_up_and_down_together(cli: Cli) -> None:
    """On v1 the order of the two writes depends on the direction; swap may not be accounted for on v2."""
    name = cli.running("sleep", "60", edit=limited)
    if "memory.swap" not in limits(cli, name):
        cli.ok("delete", "--force", name)
        pytest.skip("this kernel lacks swap accounting")
    seen = []
    for flags in (
        ("--memory", "256m", "--memory-swap", "512m"),
        ("--memory", "32m", "--memory-swap", "48m"),
        ("--memory-swap", "96m"),
        ("--memory", "-1"),
        ("--memory", "64m", "--memory-swap", "-1"),
        ("--memory", "16m", "--memory-swap", "16m"),
    ):
        cli.ok("update", *flags, name)
        found = limits(cli, name)
        seen.append((found["memory.limit"], found["memory.swap"]))
    cli.ok("delete", "--force", name)

    assert seen == [*((256 * M, 512 * M), (32 * M, 48 * M), (32 * M, 96 * M), (-1, -1), (64 * M, -1), (16 * M, 16 * M))]


@pytest.mark.conforms("cli: update --resources")
@pytest.mark.parametrize("source", ["-", "limits.json"])
def test_limits_are_read_from_a_file_or_standard_input(cli: Cli, source: str) -> None:
    """As linux.resources; 0 is "as it is" for clients that write every member."""
    zeros = {"limit": 0, "reservation": 0, "swap": 0}
    text = json.dumps({"memory": zeros, "cpu": {"quota": 20000, "shares": 0, "cpus": ""}, "pids": {"limit": 21}})
    name = cli.running("sleep", "60", edit=limited)
    (cli.bundle / "limits.json").write_text(text)
    log = ("--log", cli.bundle / "log")
    cli.ok(*log, "update", "--resources", source, "--memory", "16m", name, input=text if source == "-" else "")
    found = limits(cli, name)
    cli.ok("delete", "--force", name)

    assert "--memory is left aside" in (cli.bundle / "log").read_text()
    assert (found["memory.limit"], found["cpu.quota"], found["pids.limit"]) == (64 * M, 20000, 21)


@pytest.mark.conforms("cli: update")
def test_a_paused_container_is_updated(cli: Cli) -> None:
    """Frozen processes do not mind, not even a limit that needs their moving on v1; delete knows where they went."""

    def edit(config: Config) -> None:  # with a cgroup mount it would be in every hierarchy from the start
        config["mounts"] = [mount for mount in config["mounts"] if mount["type"] != "cgroup"]

    name = cli.running("sleep", "60", edit=edit)
    cgroup = Cgroup.from_paths(recorded(cli, name)["cgroups"])
    cgroup.freeze()
    late = () if lack("cpuset") else ("--cpuset-cpus", "0")
    cli.ok("update", "--pids-limit", "12", *late, name)
    cgroup.thaw()
    found = limits(cli, name)
    allowed = Path(f"/proc/{json.loads(cli.ok('state', name))['pid']}/status").read_text(encoding="ascii")
    cli.ok("delete", "--force", name)

    assert found["pids.limit"] == 12
    assert "Cpus_allowed_list:\t0\n" in allowed


def test_what_is_refused_changes_nothing(cli: Cli) -> None:
    """The memory limit that was written before the refused processors is taken back, and the state agrees."""
    name = cli.running("sleep", "60", edit=limited)
    before, kept = limits(cli, name), recorded(cli, name)["config"]
    text = json.dumps({"memory": {"limit": 32 * M}, "pids": {"limit": 5}, "cpu": {"quota": 1}})
    done = cli("update", "--resources", "-", name, input=text)
    after = limits(cli, name)
    still = recorded(cli, name)["config"]
    cli.ok("delete", "--force", name)

    assert done.code == 1
    assert "Invalid argument" in done.err
    assert (after, still) == (before, kept)


NONSENSE = [
    (("--memory", "64q"), "--memory: expected a number of bytes"),
    (("--cpu-quota", "half"), "--cpu-quota: expected a number"),
    (("--cpuset-cpus", "one"), "$.cpu.cpus: expected a list"),
    (("--blkio-weight", "5"), "$.blockIO.weight: expected 10 to 1000"),
    (("--memory", "32m", "--memory-swap", "16m"), "$.memory.swap: "),
    (("--cpu-rt-runtime", "5", "--cpu-rt-period", "0x5"), "--cpu-rt-period: expected a number"),
    (("--resources", "nowhere.json"), "read nowhere.json: No such file"),
    (("--l3-cache-schema", "L3:0=f"), "resctrl"),
    (("--mem-bw-schema", "MB:0=20"), "resctrl"),
]


@pytest.mark.conforms("cli: update --l3-cache-schema", "cli: update --mem-bw-schema")
def test_nonsense_is_named(cli: Cli) -> None:
    """Before anything is written; so is what this machine lacks."""
    name = cli.running("sleep", "60")
    wrong = []
    for args, message in NONSENSE:
        done = cli("update", *args, name)
        if done.code != 1 or message not in done.err:
            wrong.append((args, done))
    cli.ok("delete", "--force", name)

    assert wrong == []


@requires("cgroup_v1")
@pytest.mark.conforms("cli: update --cpu-rt-runtime", "cli: update --cpu-rt-period", "cli: update --blkio-weight")
def test_flags_of_cgroup_v1_alone(cli: Cli) -> None:
    """Real-time shares; and a block weight where a scheduler has one, otherwise an error that names its file."""
    name = cli.running("sleep", "60")
    cli.ok("update", "--cpu-rt-period", "100000", "--cpu-rt-runtime", "2000", name)
    shares = [file(cli, name, "cpu", f"cpu.rt_{part}_us", "") for part in ("runtime", "period")]
    weighed = cli("update", "--blkio-weight", "300", name)
    cli.ok("delete", "--force", name)

    assert shares == ["2000", "100000"]
    assert weighed.code == 0 or "blkio.weight): there is no such file" in weighed.err


def test_only_what_lives_is_updated(cli: Cli) -> None:
    """A stopped container has no limits any more; one that never was has none either."""
    name = cli.running("true")
    cli.wait_for(name, "stopped")
    stopped, unknown = cli("update", "--pids-limit", "9", name), cli("update", "--pids-limit", "9", "nobody")
    cli.ok("delete", name)

    assert "it is stopped" in stopped.err
    assert "container does not exist" in unknown.err


@pytest.mark.conforms("cli: update --kernel-memory", "cli: update --kernel-memory-tcp")
def test_limits_that_the_kernel_lost_are_taken_with_a_warning(cli: Cli) -> None:
    """As runc does; the log names them."""
    name = cli.running("sleep", "60")
    log = cli.bundle / "log"
    done = cli("--log", log, "update", "--kernel-memory", "32m", "--kernel-memory-tcp=16m", name)
    cli.ok("delete", "--force", name)

    assert (done.code, done.err) == (0, "")
    assert "memory.kernelTCP: does nothing" in log.read_text()


@requires("runc")
def test_every_flag_of_runc_is_there(cli: Cli) -> None:
    """By runc's own help; runc 1.4 adds a burst and idle."""
    theirs = subprocess.run(["runc", "update", "--help"], capture_output=True, text=True, check=True).stdout
    names = {word for word in theirs.replace(",", " ").split() if word.startswith("--")}
    ours = cli.ok("update", "--help")

    assert [name for name in names if name not in ours] == []
    assert {"--cpu-burst", "--cpu-idle"} <= set(ours.split())


@pytest.mark.parametrize(
    "text, number", [("1", 1), ("1k", 1024), ("512M", 512 * M), ("1.5g", 1536 * M), ("2GiB", 2048 * M), ("-1", -1)]
)
def test_sizes_are_read_as_people_write_them(text: str, number: int) -> None:
    """Powers of 1024, as docker and runc read them."""
    assert size(text, "--memory") == number


@pytest.mark.parametrize("text", ["", "-2", "m", "1.m", "1mm", "0x10", "1 m", "\u0661"])
def test_other_sizes_are_refused(text: str) -> None:
    """A typing error must not become a limit."""
    with pytest.raises(Usage):
        size(text, "--memory")
