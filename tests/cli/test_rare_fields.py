"""What few configs ask for, from the command line: the fields themselves are tested one by one in tests/integration."""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Cli
from tests.requires import requires

pytestmark = requires("root", "busybox", "timens", "numa", "veth", "iproute2")


@pytest.fixture
def device() -> Iterator[str]:
    """A network device of the host."""
    names = (f"oc{os.getpid() % 10**8}", f"od{os.getpid() % 10**8}")
    subprocess.run(["ip", "link", "add", names[0], "type", "veth", "peer", "name", names[1]], check=True)
    subprocess.run(["ip", "address", "add", "192.0.2.9/24", "dev", names[0]], check=True)
    yield names[0]
    subprocess.run(["ip", "link", "delete", names[1]], check=False, capture_output=True)


def _ask_for_all(config: dict[str, Any], device: str) -> None:
    config["process"] |= {
        "scheduler": {"policy": "SCHED_BATCH", "nice": 4},
        "ioPriority": {"class": "IOPRIO_CLASS_BE", "priority": 3},
        "execCPUAffinity": {"final": str(min(os.sched_getaffinity(0)))},
    }
    config["linux"] |= {
        "personality": {"domain": "LINUX32"},
        "memoryPolicy": {"mode": "MPOL_BIND", "nodes": "0"},
        "timeOffsets": {"monotonic": {"secs": 5000}},
        "netDevices": {device: {"name": "eth7"}},
        "sysctl": {"net/ipv4/ip_forward": "1"},
    }
    config["linux"]["namespaces"].append({"type": "time"})


_LOOK = """
set -- $(cat /proc/self/stat); echo nice ${19} policy ${41}
ionice; cat /proc/self/personality /proc/sys/net/ipv4/ip_forward
head -n1 /proc/self/numa_maps | cut -d' ' -f2
cat /proc/self/timens_offsets | head -n1 | tr -s ' '
ip -o -4 address show dev eth7 | tr -s ' ' | cut -d' ' -f4
"""
_SEEN = ["nice 4 policy 3", "best-effort: prio 3", "00000008", "1", "bind:0", "monotonic 5000 0", "192.0.2.9/24"]


@pytest.mark.conforms(
    "config: $.process.scheduler", "config: $.process.ioPriority", "config: $.linux.personality",
    "config: $.linux.memoryPolicy", "config: $.linux.timeOffsets", "config: $.linux.netDevices",
)  # fmt: skip
@pytest.mark.parametrize("own_users", [False, True])
def test_all_at_once(cli: Cli, device: str, own_users: bool) -> None:
    """In create and start, and in exec, with and without a user namespace."""

    def edit(config: dict[str, Any]) -> None:
        _ask_for_all(config, device)
        if own_users:
            config["linux"]["namespaces"].append({"type": "user"})
            for key in ("uidMappings", "gidMappings"):
                config["linux"][key] = [{"containerID": 0, "hostID": 0x7D000000, "size": 65536}]

    script = _LOOK + "sleep 60"
    name = cli.new_id()
    cli.write("sh", "-c", script, edit=edit)
    with (cli.bundle / "out").open("w+") as out:
        run = cli.command("run", "--detach", name)
        subprocess.run(run, check=True, stdin=subprocess.DEVNULL, stdout=out, stderr=out, cwd=cli.bundle)
    cpus = "grep Cpus_allowed_list /proc/self/status"
    executed = cli.ok("exec", name, "sh", "-c", f"{_LOOK}{cpus}").splitlines()
    ran = Path(cli.bundle / "out").read_text().splitlines()
    cli.ok("delete", "--force", name)

    assert ran == _SEEN
    assert executed == [*_SEEN, f"Cpus_allowed_list:\t{min(os.sched_getaffinity(0))}"]


@pytest.mark.conforms("config: $.linux.netDevices")
@pytest.mark.parametrize("spoil", ["program", "mount"])
def test_a_device_comes_back_when_the_creation_fails(cli: Cli, device: str, spoil: str) -> None:
    """It was in the container's namespace already, and would end with it; with its address, and up."""

    def edit(config: dict[str, Any]) -> None:
        config["linux"]["netDevices"] = {device: {"name": "eth7"}}
        if spoil == "mount":
            config["mounts"].append({"destination": "/x", "type": "nosuch", "source": "x"})

    cli.write("/nosuch" if spoil == "program" else "true", edit=edit)
    done = cli("create", cli.new_id())
    shown = subprocess.run(["ip", "-o", "-4", "address", "show", "dev", device], check=True, capture_output=True)

    assert done.code == 1
    assert b"192.0.2.9/24" in shown.stdout
    assert (Path("/sys/class/net") / device / "operstate").read_text() == "lowerlayerdown\n"


@pytest.mark.conforms("cli: --debug")
def test_each_is_told(cli: Cli, device: str) -> None:
    """With --debug every step is a sentence before it is done."""
    cli.write("true", edit=lambda config: _ask_for_all(config, device))
    done = cli("--debug", "run", cli.new_id())

    assert done.code == 0
    for sentence in (
        "schedule it by SCHED_BATCH",
        "order its input and output by IOPRIO_CLASS_BE, level 3",
        "take the personality LINUX32",
        "take memory by MPOL_BIND",
        "set the monotonic clock 5000 s and 0 ns ahead",
        "move the network devices",
        "set the sysctl net/ipv4/ip_forward to 1",
    ):
        assert sentence in done.err


@pytest.mark.conforms("config: $.linux.namespaces[].path", "config: $.linux.uidMappings")
@pytest.mark.parametrize("own_users", [False, True])
def test_another_containers_namespaces(cli: Cli, own_users: bool) -> None:
    """All but that of mounts by path, with the mappings that the user namespace has; an exec is in them too."""
    maps = [{"containerID": 0, "hostID": 0x7D000000, "size": 65536}] if own_users else []
    kinds = {"pid": "pid", "network": "net", "ipc": "ipc", "uts": "uts", "cgroup": "cgroup", "time": "time"}
    kinds |= {"user": "user"} if own_users else {}

    def first(config: dict[str, Any]) -> None:
        config["linux"]["namespaces"] = [{"type": kind} for kind in {"mount", *kinds}]
        config["linux"] |= {"uidMappings": maps, "gidMappings": maps, "timeOffsets": {"boottime": {"secs": 7000}}}

    name = cli.running("sleep", "60", edit=first)
    pid = json.loads(cli.ok("state", name))["pid"]
    wanted = sorted(os.readlink(f"/proc/{pid}/ns/{file}") for file in kinds.values())

    def second(config: dict[str, Any]) -> None:
        first(config)
        del config["linux"]["timeOffsets"], config["hostname"]
        for each in config["linux"]["namespaces"]:
            if each["type"] in kinds:
                each["path"] = f"/proc/{pid}/ns/{kinds[each['type']]}"

    look = "".join(f"readlink /proc/self/ns/{file}; " for file in kinds.values())
    other = cli.new_id()
    cli.write("sh", "-c", "echo runs; exec sleep 60", edit=second)
    # In front: who joins a pid namespace from outside holds up its end until reaped, which the host's init may delay.
    with cli.popen("run", other) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "runs\n"
        seen = cli.ok("exec", other, "sh", "-c", look)
        cli.ok("kill", other, "KILL")
    cli.ok("delete", "--force", name)

    assert sorted(seen.split()) == wanted
