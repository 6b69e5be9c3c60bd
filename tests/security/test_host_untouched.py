"""What a container's life changes on the host: nothing outside its own state directory and cgroup."""

import os
import re
import signal
import stat
import time
from pathlib import Path

import pytest

from pytest_ocirun.engine.container import Container
from pytest_ocirun.errors import OcirunError
from pytest_ocirun.oci.runtime import Mount, Namespace
from pytest_ocirun.runtime import place
from pytest_ocirun.runtime.cgroups.detect import manager
from tests.boxes import Bare, Launch, confined
from tests.requires import requires

pytestmark = [requires("userns", "overlay", "seccomp", "busybox"), pytest.mark.lane("v2")]


def mounts_but_other_tests() -> list[str]:
    """The host's mounts without those of real clients, whose tests another lane may be running."""
    lines = Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if "/var/tmp/ocirun-" not in line]


def superblocks() -> list[tuple[str, str, str]]:
    """Mount point, mount options and superblock options of what the host shares with every container."""
    found = []
    for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines():
        left, _, right = line.partition(" - ")
        fields, (kind, _source, options) = left.split(), right.split(" ", 2)
        if kind in ("proc", "sysfs", "cgroup", "cgroup2", "mqueue", "devpts", "devtmpfs"):
            found.append((fields[4], fields[5], options))
    return found


@pytest.mark.parametrize("user_namespace", [True, pytest.param(False, marks=requires("root"))])
@pytest.mark.parametrize("read_only", [True, False])
def test_superblocks_of_the_host_stay_as_they_are(
    bare: Bare, busybox_rootfs: Path, user_namespace: bool, read_only: bool
) -> None:
    """A read-only /sys or /proc inside does not remount the host's: flags are the mount's, not the superblock's."""
    before = superblocks()
    config = confined(busybox_rootfs, "true", user_namespace=user_namespace)
    for mount in config.mounts:
        if read_only and mount.destination in ("/sys", "/proc", "/dev/pts", "/dev/mqueue"):
            mount.options = [*(option for option in mount.options if option != "rw"), "ro"]

    assert bare.run(config).end.code == 0
    assert superblocks() == before


def test_mounts_of_the_host_stay_as_they_are(launch: Launch, tmp_path: Path) -> None:
    """No mount of a container, its image or its zygote shows in our mount namespace."""
    before = mounts_but_other_tests()
    box = launch(overlays=(tmp_path,))
    box.exec(["true"])

    assert mounts_but_other_tests() == before


def test_mounts_of_the_host_do_not_show_inside(box: Container) -> None:
    """After the pivot nothing of the old root is left: every mount lies below the container's own root."""
    result = box.exec(["cat", "/proc/self/mountinfo"])
    places = [line.split()[4] for line in result.stdout.splitlines()]

    assert {place.split("/")[1] for place in places} <= {"", "proc", "sys", "dev"}
    assert places.count("/") == 1


def test_no_abstract_socket_of_ours(bare: Bare, busybox_rootfs: Path) -> None:
    """Neither we, nor the zygote, nor a container has an abstract or a listening network socket.

    CVE-2020-15257, CVE-2021-4024.
    """
    with bare.holder(confined(busybox_rootfs)) as name:
        process = bare.spawner._process
        assert process is not None
        pids = [os.getpid(), process.pid, bare.runtime.state(name)["pid"]]
        inodes = {found[1] for pid in pids for link in links(pid) if (found := re.fullmatch(r"socket:\[(\d+)\]", link))}
        unix = Path("/proc/net/unix").read_text(encoding="utf-8").splitlines()[1:]
        ours = [line for line in unix if line.split()[6] in inodes]
        listening = [line for line in tcp() if line.split()[9] in inodes]

    assert ours, "no socket of ours was seen: the test shows nothing"
    assert [line for line in ours if "@" in line] == []
    assert listening == []


def links(pid: int) -> list[str]:
    """Where the fds of a process lead."""
    found = []
    for fd in os.listdir(f"/proc/{pid}/fd"):
        try:
            found.append(os.readlink(f"/proc/{pid}/fd/{fd}"))
        except FileNotFoundError:
            continue
    return found


def tcp() -> list[str]:
    """Every TCP and UDP socket of our network namespace."""
    names = ("tcp", "tcp6", "udp", "udp6")
    return [
        line
        for name in names
        if os.path.exists(f"/proc/net/{name}")
        for line in Path(f"/proc/net/{name}").read_text(encoding="ascii").splitlines()[1:]
    ]


def test_state_is_nobody_elses(bare: Bare, busybox_rootfs: Path) -> None:
    """A container's directory is 0700, its files 0600, whatever the umask.

    CVE-2021-41091, CVE-2021-21284, CVE-2021-41103.
    """
    mask = os.umask(0)
    try:
        name = bare.new_id()
        child = bare.create(confined(busybox_rootfs), name=name)
    finally:
        os.umask(mask)
    folder = bare.root / name
    modes = {path.name: stat.S_IMODE(path.lstat().st_mode) for path in folder.iterdir() if path.is_file()}
    top = stat.S_IMODE(folder.stat().st_mode)
    bare.end(name, child)

    assert top == 0o700
    assert modes
    assert set(modes.values()) == {0o600}, modes


@pytest.mark.parametrize("spoil", ["writable", "link"])
def test_a_state_root_that_others_may_change_is_refused(tmp_path: Path, busybox_rootfs: Path, spoil: str) -> None:
    """Nobody can have prepared the directory that we trust."""
    root = tmp_path / "state"
    if spoil == "writable":
        root.mkdir()
        root.chmod(0o777)
    else:
        (tmp_path / "elsewhere").mkdir()
        (tmp_path / "elsewhere").chmod(0o777)
        root.symlink_to(tmp_path / "elsewhere")
    bare = Bare(root)
    try:
        with pytest.raises(OcirunError, match=r"state directory|zygote"):
            bare.run(confined(busybox_rootfs))
    finally:
        bare.close()


@requires("root", "cgroup")
def test_a_place_in_one_hierarchy_does_not_stand_for_all() -> None:
    """The check before a process is let go fails when one of the cgroups does not count it (CVE-2025-47291)."""
    cgroup = manager().create(None, f"test-{os.getpid()}", None)
    files = cgroup.join_files()
    pid = os.fork()
    if not pid:
        signal.pause()
        os._exit(0)
    try:
        for path in files[:-1]:
            Path(path).write_text(str(pid), encoding="ascii")
        if len(files) > 1:
            with pytest.raises(PermissionError, match="counts the new process in another cgroup"):
                place.verify(pid, {os.path.dirname(path) for path in files})
        Path(files[-1]).write_text(str(pid), encoding="ascii")
        place.verify(pid, {os.path.dirname(path) for path in files})
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        cgroup.remove()


@requires("root", "cgroup")
def test_a_container_without_pid_namespace_leaves_nobody(bare: Bare, busybox_rootfs: Path) -> None:
    """Where the death of the init does not end the others, deletion does."""
    config = confined(busybox_rootfs, "sh", "-c", "setsid sleep 61 & setsid sleep 62 & sleep 63", user_namespace=False)
    config.linux.namespaces = [each for each in config.linux.namespaces if each.type != "pid"]
    name = bare.new_id()
    child = bare.create(config, name=name)
    bare.runtime.start(name)
    cgroup = bare.runtime.record(name).cgroup
    deadline = time.monotonic() + 5
    while len(cgroup.processes()) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    pids = cgroup.processes()
    began = time.monotonic()
    bare.runtime.delete(name, force=True)
    took = time.monotonic() - began
    child.close()

    assert len(pids) >= 3
    assert took < 2
    assert [pid for pid in pids if os.path.exists(f"/proc/{pid}") and "sleep" in command(pid)] == []


def command(pid: int) -> str:
    """The command line of a process, empty if it is gone or a zombie."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(encoding="utf-8")
    except OSError:
        return ""


def test_no_namespace_is_shared_in_silence(bare: Bare, busybox_rootfs: Path) -> None:
    """A namespace to join that is not there is an error, not the host's instead."""
    config = confined(busybox_rootfs)
    config.linux.namespaces = [each for each in config.linux.namespaces if each.type != "network"]
    config.linux.namespaces.append(Namespace(type="network", path="/no/such/namespace"))

    with pytest.raises(OcirunError, match="/no/such/namespace"):
        bare.run(config)


@requires("root")
def test_a_cgroup_mount_shows_only_the_containers_own(bare: Bare, busybox_rootfs: Path) -> None:
    """A mount of cgroups shows no other cgroup of the host, and nothing in it can be written (CVE-2023-25809)."""
    find = "find /sys/fs/cgroup"
    script = f"{find} -type d | head -50; {find} -name cgroup.procs | while read f; do echo 1 > $f; done"
    config = confined(busybox_rootfs, "sh", "-c", script)
    options = ["nosuid", "noexec", "nodev", "relatime", "ro"]
    config.mounts.append(Mount(destination="/sys/fs/cgroup", type="cgroup", source="cgroup", options=options))
    ran = bare.run(config)

    assert "/ocirun" not in ran.out
    assert "system.slice" not in ran.out
    assert ran.err
    assert ran.err.count("Read-only file system") == len(ran.err.splitlines())
