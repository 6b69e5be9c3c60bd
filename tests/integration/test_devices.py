"""Device nodes: those that every container has, those of the config, and where none is to be made."""

import os
import stat
from pathlib import Path
from typing import Any

import pytest

from pytest_ocirun.errors import KernelRefused
from pytest_ocirun.oci.runtime import Config, Device, IDMapping, Mount
from tests.boxes import Bare, confined, mapping
from tests.requires import requires

pytestmark = [requires("userns", "overlay", "seccomp", "busybox"), pytest.mark.lane("v2")]

SHOW = ("stat", "-c", "%F %t:%T %a %u:%g")
ROOT_ONLY = pytest.param(False, marks=requires("root"))


def with_devices(config: Config, *devices: Device) -> Config:
    """The config with these devices, shown by its program."""
    config.linux.devices = list(devices)
    config.process.args = [*SHOW, *(device.path for device in devices)]
    return config


@pytest.mark.parametrize("user_namespace", [True, ROOT_ONLY])
def test_usual_devices_are_there(bare: Bare, busybox_rootfs: Path, user_namespace: bool) -> None:
    """The six of the specification, of anybody's use, and the links; they work."""
    names = ["null", "zero", "full", "random", "urandom", "tty"]
    script = f"cd /dev; stat -c '%n %t:%T %a' {' '.join(names)}; "
    script += "for l in fd stdin stdout stderr ptmx; do readlink $l; done; "
    script += "head -c 2 zero urandom | wc -c; echo x > null; echo x > full || echo no"
    ran = bare.run(confined(busybox_rootfs, "sh", "-c", script, user_namespace=user_namespace))
    numbers = ["1:3", "1:5", "1:7", "1:8", "1:9", "5:0"]

    assert ran.out.splitlines()[:6] == [f"{name} {number} 666" for name, number in zip(names, numbers, strict=True)]
    assert ran.out.splitlines()[6:11] == [*("/proc/self/fd" + end for end in ("", "/0", "/1", "/2")), "pts/ptmx"]
    assert ran.out.splitlines()[-1] == "no"


@pytest.mark.conforms(*(f"config: $.linux.devices[].type {kind}" for kind in "bcu"))
@requires("root")
@pytest.mark.conforms(
    *(f"config: $.linux.devices[].{name}" for name in ("type", "path", "major", "minor", "fileMode", "uid", "gid"))
)
@pytest.mark.parametrize("user_namespace", [True, False])
@pytest.mark.parametrize("kind", ["c", "u", "b"])
def test_devices_are_as_asked_for(bare: Bare, busybox_rootfs: Path, kind: str, user_namespace: bool) -> None:
    """Number, mode (whatever the umask) and owner, in a user namespace too, where the host has no such path."""
    config = confined(busybox_rootfs, user_namespace=user_namespace)
    config.process.user.umask = 0o777
    device: dict[str, Any] = {"type": kind, "major": 241, "minor": 1003, "uid": 12, "gid": 34}
    with_devices(config, Device(path="/dev/deep/own", file_mode=0o20626, **device), Device(path="/dev/plain", **device))
    name = "block special file" if kind == "b" else "character special file"

    assert bare.run(config).out.splitlines() == [f"{name} f1:3eb 626 12:34", f"{name} f1:3eb 666 12:34"]


@pytest.mark.conforms("config: $.linux.devices[].type p")
@pytest.mark.parametrize("user_namespace", [True, ROOT_ONLY])
def test_named_pipes(bare: Bare, busybox_rootfs: Path, user_namespace: bool) -> None:
    """Type p needs no numbers, and takes some without a meaning."""
    config = confined(busybox_rootfs, user_namespace=user_namespace)
    with_devices(
        config, Device(path="/dev/p", type="p", file_mode=0o600), Device(path="/dev/q", type="p", major=1, minor=2)
    )

    assert bare.run(config).out.splitlines() == ["fifo 0:0 600 0:0", "fifo 0:0 666 0:0"]


@pytest.mark.conforms("config: $.linux.devices")
@requires("root")
@pytest.mark.parametrize("user_namespace", [True, False])
def test_devices_outside_dev_work(bare: Bare, busybox_rootfs: Path, user_namespace: bool) -> None:
    """The path may be anywhere, and opens there."""
    config = confined(busybox_rootfs, user_namespace=user_namespace)
    config = with_devices(config, Device(path="/opt/own/zero", type="c", major=1, minor=5))
    config.process.args = ["sh", "-c", "head -c 3 /opt/own/zero | wc -c"]

    assert bare.run(config).out == "3\n"


@pytest.mark.conforms("config: $.linux.devices")
@requires("root")
def test_a_given_device_replaces_the_usual_one(bare: Bare, busybox_rootfs: Path) -> None:
    """A config that names /dev/null says what mode it has."""
    for user_namespace in (True, False):
        config = confined(busybox_rootfs, user_namespace=user_namespace)
        with_devices(config, Device(path="/dev/null", type="c", major=1, minor=3, file_mode=0o600, uid=7, gid=8))

        assert bare.run(config).out == "character special file 1:3 600 7:8\n"


@pytest.mark.conforms("config: $.linux.devices")
@requires("root")
@pytest.mark.parametrize("there, refused", [((1, 5), False), ((1, 3), True), (None, True)])
def test_an_equal_node_is_kept(bare: Bare, rootfs: Path, there: tuple[int, int] | None, refused: bool) -> None:
    """What the image has at that path must be the same device; its own mode stays, as with runc."""
    path = rootfs / "etc/zero"
    if there is None:
        path.touch()
    else:
        os.mknod(path, stat.S_IFCHR | 0o604, os.makedev(*there))
    path.chmod(0o604)
    config = confined(rootfs, user_namespace=False)
    with_devices(config, Device(path="/etc/zero", type="c", major=1, minor=5, file_mode=0o666))
    if refused:
        with pytest.raises(KernelRefused, match=r"make the device /etc/zero .*File exists"):
            bare.run(config)
    else:
        assert bare.run(config).out == "character special file 1:5 604 0:0\n"


@requires("root")
def test_a_group_that_is_not_mapped_is_an_error(bare: Bare, busybox_rootfs: Path) -> None:
    """An owner that the user namespace lacks cannot be given."""
    config = confined(busybox_rootfs)
    config.linux.gid_mappings = [IDMapping(container_id=0, host_id=mapping().host_id, size=5)]
    config.annotations.pop("org.ocirun.idmap")
    with_devices(config, Device(path="/dev/x", type="c", major=1, minor=5, gid=5))

    with pytest.raises(ValueError, match="id 5 is not mapped"):
        bare.run(config)


@pytest.mark.conforms("config: $.linux.devices")
def test_a_device_that_cannot_be_made_must_be_the_hosts(bare: Bare, busybox_rootfs: Path) -> None:
    """Root makes any node; without root only the host's own at that path can be given, and it is verified."""
    config = with_devices(confined(busybox_rootfs), Device(path="/dev/zero", type="c", major=1, minor=5))
    other = with_devices(confined(busybox_rootfs), Device(path="/dev/zero", type="c", major=1, minor=3))

    assert bare.run(config).out.startswith("character special file 1:5 666")
    if os.geteuid():
        with pytest.raises(KernelRefused, match="is not the device c 1:3"):
            bare.run(other)
    else:
        assert bare.run(other).out.startswith("character special file 1:3 666")


@requires("root")
def test_nodes_leave_nothing_with_the_spawner(bare: Bare, busybox_rootfs: Path) -> None:
    """A zygote can make any number of containers with devices: its small tmpfs does not fill up."""
    devices = [Device(path=f"/dev/own{number}", type="c", major=1, minor=5) for number in range(100)]
    for _ in range(4):
        ran = bare.run(with_devices(confined(busybox_rootfs), *devices))

        assert ran.out.count("character special file 1:5") == 100, ran


@requires("root")
def test_a_bound_dev_is_left_as_it_is(bare: Bare, rootfs: Path, tmp_path: Path) -> None:
    """Who binds a /dev brings the nodes: nothing is made in it, since it would be made on the host."""
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/own").touch()
    tmp_path.chmod(0o755)
    for user_namespace in (True, False):
        config = confined(rootfs, "ls", "/dev", user_namespace=user_namespace)
        config.mounts = [each for each in config.mounts if not each.destination.startswith("/dev")]
        config.mounts.append(Mount(destination="/dev", type="bind", source=str(tmp_path / "dev"), options=["bind"]))
        config.linux.devices = [Device(path=path, type="c", major=1, minor=5) for path in ("/dev/own", "/dev/new")]

        assert bare.run(config).out == "own\n"
    assert os.listdir(tmp_path / "dev") == ["own"]


@requires("root")
@pytest.mark.conforms("config: $.mounts[].options ro")
def test_a_read_only_dev_is_filled_first(bare: Bare, busybox_rootfs: Path) -> None:
    """The tmpfs at /dev has its nodes and links, and then takes no more."""
    config = confined(
        busybox_rootfs, "sh", "-c", "stat -c %t:%T /dev/null; ls /dev/pts; touch /dev/x", user_namespace=False
    )
    next(each for each in config.mounts if each.destination == "/dev").options.append("ro")
    ran = bare.run(config)

    assert ran.out == "1:3\nptmx\n"
    assert "Read-only file system" in ran.err


@requires("root")
@pytest.mark.parametrize("user_namespace", [True, False])
def test_ptmx_is_the_terminals_own(bare: Bare, busybox_rootfs: Path, user_namespace: bool) -> None:
    """A config that lists the host's devices lists it too, and would open the host's terminals."""
    config = confined(busybox_rootfs, "readlink", "/dev/ptmx", user_namespace=user_namespace)
    config.linux.devices = [Device(path="/dev/ptmx", type="c", major=5, minor=2)]

    assert bare.run(config).out == "pts/ptmx\n"


@requires("root")
def test_ptmx_of_the_image_gives_way(bare: Bare, rootfs: Path) -> None:
    """A node in the image's own /dev would open the host's terminals."""
    os.mknod(rootfs / "dev/ptmx", stat.S_IFCHR | 0o666, os.makedev(5, 2))
    config = confined(rootfs, "readlink", "/dev/ptmx", user_namespace=False)
    config.mounts = [each for each in config.mounts if each.destination != "/dev"]

    assert bare.run(config).out == "pts/ptmx\n"


@requires("root")
def test_nodes_made_inside_work_where_the_config_allows_them(bare: Bare, busybox_rootfs: Path) -> None:
    """With CAP_MKNOD the root is not nodev, as with runc: the device cgroup decides then."""
    config = confined(busybox_rootfs, "sh", "-c", "mknod /tmp/z c 1 5; head -c 3 /tmp/z | wc -c", user_namespace=False)
    sets = config.process.capabilities
    assert sets is not None
    sets.bounding, sets.effective, sets.permitted = (["CAP_MKNOD"] for _ in range(3))
    config.linux.seccomp = None

    assert bare.run(config).out == "3\n"
