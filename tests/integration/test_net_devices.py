"""Network devices of the host that a container is given: name, addresses, state, and what becomes of failures."""

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from pytest_ocirun.errors import ConfigError, KernelRefused
from pytest_ocirun.oci.runtime import Config, Namespace, NetDevice
from tests.boxes import Bare, confined
from tests.requires import requires

pytestmark = [
    requires("root", "userns", "overlay", "seccomp", "busybox", "iproute2", "veth"),
    pytest.mark.lane("v2"),
    pytest.mark.conforms("config: $.linux.netDevices"),
]


def ip(*args: str) -> str:
    """What ip(8) prints."""
    return subprocess.run(["ip", *args], check=True, capture_output=True, text=True).stdout


def link(name: str) -> dict[str, Any]:
    """What ip(8) knows of a device here."""
    found: list[dict[str, Any]] = json.loads(ip("-json", "address", "show", "dev", name))
    return found[0]


@pytest.fixture
def pair() -> Iterator[tuple[str, str]]:
    """Two devices that are each other's peer, with names that nobody else has."""
    names = (f"oa{os.getpid() % 10**8}", f"ob{os.getpid() % 10**8}")
    ip("link", "add", names[0], "type", "veth", "peer", "name", names[1])
    try:
        yield names
    finally:
        for name in names:  # gone already where a container took it along
            subprocess.run(["ip", "link", "delete", name], check=False, capture_output=True)


def given(rootfs: Path, *args: str, devices: dict[str, str]) -> Config:
    """A config with network devices: the name here, and there."""
    config = confined(rootfs, *args)
    config.linux.net_devices = {name: NetDevice(name=inside) for name, inside in devices.items()}
    return config


@pytest.mark.conforms("config: $.linux.netDevices.*.name")
def test_a_device_comes_with_name_addresses_and_state(bare: Bare, busybox_rootfs: Path, pair: tuple[str, str]) -> None:
    """Renamed, up, with its permanent global addresses, its MTU and its hardware address, and with no others."""
    device, peer = pair
    ip("link", "set", device, "mtu", "1400", "address", "02:00:00:00:00:07")
    ip("address", "add", "192.0.2.7/24", "broadcast", "192.0.2.255", "dev", device)
    ip("address", "add", "192.0.2.8/24", "label", f"{device}:x", "dev", device)
    ip("address", "add", "198.51.100.1/32", "scope", "link", "dev", device)
    ip("-6", "address", "add", "2001:db8::7/64", "nodad", "dev", device)
    ip("-6", "address", "add", "2001:db8::8/64", "valid_lft", "1000", "preferred_lft", "1000", "dev", device)
    ip("link", "set", peer, "up")
    ran = bare.run(given(busybox_rootfs, "ip", "address", "show", "dev", "eth0", devices={device: "eth0"}))
    words = ran.out.split()

    assert ran.end.code == 0, ran.err
    assert [word for key, word in pairwise(words) if key == "inet"] == ["192.0.2.7/24", "192.0.2.8/24"]
    assert [w for k, w in pairwise(words) if k == "inet6" and w[:4] != "fe80"] == ["2001:db8::7/64"]
    assert {"eth0:x", "1400", "02:00:00:00:00:07", "192.0.2.255"} <= set(words)
    assert "UP" in words[2].strip("<>").split(",")


def test_a_device_keeps_its_name(bare: Bare, busybox_rootfs: Path, pair: tuple[str, str]) -> None:
    """Without a new name it keeps its own; its peer stays here, and goes with it in the end."""
    device, peer = pair
    config = given(busybox_rootfs, devices={device: ""})
    with bare.holder(config) as name:
        ran = bare.exec(name, "ls", "/sys/class/net")
        assert ran.out.split() == ["lo", device]
        assert "link_netnsid" in link(peer)
        with pytest.raises(subprocess.CalledProcessError):
            link(device)


def test_a_devices_name_can_be_numbered(bare: Bare, busybox_rootfs: Path, pair: tuple[str, str]) -> None:
    """The kernel puts a number for %d."""
    config = given(busybox_rootfs, "ls", "/sys/class/net", devices=dict.fromkeys(pair, "eth%d"))

    assert bare.run(config).out.split() == ["eth0", "eth1", "lo"]


def test_a_device_for_a_joined_namespace(bare: Bare, busybox_rootfs: Path, pair: tuple[str, str]) -> None:
    """It arrives in the namespace of the config's path, that of the host's root, though the container has its own."""
    with _network() as path:
        config = given(busybox_rootfs, "ip", "-o", "link", devices={pair[0]: "net1"})
        config.mounts = [each for each in config.mounts if each.type != "sysfs"]  # the kernel wants both for that
        config.linux.namespaces = [each for each in config.linux.namespaces if each.type != "network"]
        config.linux.namespaces.append(Namespace(type="network", path=path))
        ran = bare.run(config)

    assert [line.split()[1].partition("@")[0].rstrip(":") for line in ran.out.splitlines()] == ["lo", "net1"]


@contextmanager
def _network() -> Iterator[str]:
    with subprocess.Popen(["unshare", "--net", "sh", "-c", "echo; exec sleep 60"], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            yield f"/proc/{process.pid}/ns/net"
        finally:
            process.kill()


def test_a_name_that_is_taken_there(bare: Bare, busybox_rootfs: Path, pair: tuple[str, str]) -> None:
    """An error, and the device that was moved before is back here with its address and up."""
    device, peer = pair
    ip("address", "add", "192.0.2.7/24", "dev", device)
    with pytest.raises(KernelRefused, match=f"move {peer} as lo: File exists"):
        bare.run(given(busybox_rootfs, devices={device: "eth0", peer: "lo"}))
    found = link(device)

    assert [each["local"] for each in found["addr_info"] if each["family"] == "inet"] == ["192.0.2.7"]
    assert "UP" in found["flags"]
    assert link(peer)["ifname"] == peer


@pytest.mark.parametrize(
    "devices, message",
    [
        ({"nosuch0": "eth0"}, r'\["nosuch0"\]: the runtime\'s network namespace has no such device'),
        ({"lo": "lo1"}, r'\["lo"\]: every network namespace has its own'),
        ({"a/b": ""}, r'\["a/b"\]: no name of a device'),
        ({"lo": "eth:0"}, r'\["lo"\].name: no name of a device'),
        ({"lo": "sixteen-letters-"}, r'\["lo"\].name: a device\'s name has 1 to 15 bytes'),
    ],
)
def test_devices_that_cannot_be_given(bare: Bare, busybox_rootfs: Path, devices: dict[str, str], message: str) -> None:
    """Refused before anything is made, with the path."""
    with pytest.raises(ConfigError, match=rf"^\$\.linux\.netDevices{message}"):
        bare.run(given(busybox_rootfs, devices=devices))


def test_devices_that_would_have_one_name(bare: Bare, busybox_rootfs: Path, pair: tuple[str, str]) -> None:
    """Two cannot be called the same."""
    with pytest.raises(ConfigError, match="is given to another device already"):
        bare.run(given(busybox_rootfs, devices=dict.fromkeys(pair, "eth0")))


def test_devices_without_a_network_namespace(bare: Bare, busybox_rootfs: Path, pair: tuple[str, str]) -> None:
    """There is nowhere to move them to."""
    config = given(busybox_rootfs, devices={pair[0]: "eth0"})
    config.linux.namespaces = [each for each in config.linux.namespaces if each.type != "network"]

    with pytest.raises(ConfigError, match="needs a namespace of type network"):
        bare.run(config)
