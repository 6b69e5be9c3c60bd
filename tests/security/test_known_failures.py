"""Failures that other runtimes had and that no other module here is about, each by its number."""

import errno
import fcntl
import json
import os
import platform
import pty
import subprocess
import termios
from pathlib import Path

import pytest

import pytest_ocirun
from pytest_ocirun.errors import ConfigError, HookFailed
from pytest_ocirun.oci.runtime import Hook, Mount
from pytest_ocirun.runtime.remains import remove_tree
from tests.boxes import Bare, confined
from tests.cli.conftest import Cli, Config, cli
from tests.cli.test_rootless import Rootless, rootless
from tests.programs import write_call
from tests.requires import requires
from tests.unprivileged import User as Unprivileged

__all__ = ["cli", "rootless"]
pytestmark = [requires("userns", "overlay", "seccomp", "busybox"), pytest.mark.lane("v2")]

_x86_64 = pytest.mark.skipif(platform.machine() != "x86_64", reason="this kernel lacks x86-64's numbers")
_IOCTL, _TIOCSTI, _HIGH = 16, 0x5412, 1 << 32


@_x86_64
@requires("root")
@pytest.mark.parametrize("number", [_TIOCSTI, _HIGH | _TIOCSTI])
def test_nothing_is_typed_into_the_callers_terminal(cli: Cli, rootfs: Path, number: int) -> None:
    """CVE-2017-5226, CVE-2019-7303: TIOCSTI on an inherited terminal, also with a bit that a filter may overlook."""
    write_call(rootfs / "type", _IOCTL, 0, number, b"x")
    cli.rootfs = rootfs
    cli.write("/type")
    master, slave = pty.openpty()
    typed = subprocess.run(
        cli.command("run", cli.new_id()),
        check=False,
        stdin=slave,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        cwd=cli.bundle,
        preexec_fn=_control_stdin,
    )
    os.set_blocking(slave, False)
    with pytest.raises(BlockingIOError):
        os.read(slave, 1)
    os.close(master)
    os.close(slave)

    assert typed.returncode in (errno.EPERM, errno.EIO), typed.stderr


def _control_stdin() -> None:
    """As a shell's children have it: only another session keeps one of them from typing into it."""
    os.setsid()
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


@requires("root")
@pytest.mark.parametrize("kind", ["net", "ipc", "uts", "pid", "mnt", "cgroup"])
def test_a_namespace_that_cannot_be_made_is_an_error(cli: Cli, kind: str) -> None:
    """CVE-2020-5291: never a container with less isolation than was asked for."""

    def nest(config: Config) -> None:
        spaces = [each for each in config["linux"]["namespaces"] if each["type"] != "cgroup"]
        config["linux"]["namespaces"] = [*spaces, {"type": "user"}, {"type": "cgroup"}]
        config["linux"]["uidMappings"] = [{"containerID": 0, "hostID": 0, "size": 1}]
        config["linux"]["gidMappings"] = [{"containerID": 0, "hostID": 0, "size": 1}]
        del config["linux"]["resources"]

    cli.write("echo", "it ran", edit=nest)
    limit = f"echo 0 > /proc/sys/user/max_{kind}_namespaces"
    script = f'mount -t tmpfs none /run; {limit}; exec "$@" </dev/null'
    command = cli.command("--root", "/run/state", "run", cli.new_id())
    del command[command.index("--root") : command.index("--root") + 2]
    outside = ["unshare", "--user", "--map-root-user", "--mount", "--propagation", "private"]
    done = subprocess.run(
        [*outside, "sh", "-ec", script, "sh", *command], check=False, capture_output=True, text=True, cwd=cli.bundle
    )

    assert done.returncode == 1
    assert "it ran" not in done.stdout
    assert "No space left on device" in done.stderr, done.stderr


@requires("root")
def test_supplementary_groups_are_dropped_where_that_is_allowed(bare: Bare, busybox_rootfs: Path) -> None:
    """CVE-2014-8989: setgroups stays allowed in a user namespace that root made, and the host's groups are gone."""
    config = confined(busybox_rootfs, "sh", "-c", "cat /proc/self/setgroups; grep Groups /proc/self/status")
    os_groups = os.getgroups()
    os.setgroups([4, 24])
    try:
        ran = bare.run(config)
    finally:
        os.setgroups(os_groups)

    assert ran.out.split() == ["allow", "Groups:"]


@requires("unprivileged")
def test_setgroups_is_denied_where_it_must_be(unprivileged_user: Unprivileged) -> None:
    """CVE-2014-8989: who has no right over groups must not drop one that denies access."""
    script = "unshare --user --map-root-user cat /proc/self/setgroups"

    assert unprivileged_user.run(["sh", "-c", script]).stdout.strip() == "deny"


@pytest.mark.parametrize("what", ["directory", "file", "dangling"])
def test_cleaning_up_follows_no_link(tmp_path: Path, what: str) -> None:
    """CVE-2017-1002102, CVE-2024-23652: a directory that is removed may hold links to anywhere."""
    canary = tmp_path / "canary"
    canary.mkdir()
    (canary / "kept").write_text("kept")
    target = {"directory": canary, "file": canary / "kept", "dangling": tmp_path / "nowhere"}[what]
    state = tmp_path / "root/container"
    (state / "inner").mkdir(parents=True)
    (state / "inner/link").symlink_to(target)
    (state / "link").symlink_to(target)
    remove_tree(str(state))

    assert not state.exists()
    assert (canary / "kept").read_text() == "kept"


def test_a_link_in_the_place_of_a_container_is_not_followed(bare: Bare, tmp_path: Path) -> None:
    """CVE-2024-23652: neither when it is looked at nor when it is deleted."""
    (tmp_path / "kept").write_text("kept")
    (bare.root / "linked").symlink_to(tmp_path)
    try:
        with pytest.raises(OSError, match=r"Not a directory|Too many levels"):
            bare.runtime.delete("linked", force=True)
    finally:
        (bare.root / "linked").unlink()

    assert (tmp_path / "kept").read_text() == "kept"


def test_hooks_of_the_host_are_not_found_in_the_image(bare: Bare, rootfs: Path) -> None:
    """CVE-2021-20206: a path of a hook is absolute, and one that runs on the host is resolved there."""
    program = rootfs / "only-in-the-image"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    config = confined(rootfs, "true")
    for kind in ("prestart", "create_runtime", "create_container"):
        setattr(config.hooks, kind, [Hook(path="/only-in-the-image")])
        with pytest.raises(HookFailed, match="/only-in-the-image: No such file or directory"):
            bare.create(config)
        setattr(config.hooks, kind, [Hook(path="../../bin/true")])
        with pytest.raises(ConfigError, match="must be absolute"):
            bare.create(config)
        setattr(config.hooks, kind, [])


@requires("root")
def test_programs_of_the_image_are_not_run_on_the_host(cli: Cli, rootfs: Path, tmp_path: Path) -> None:
    """CVE-2022-1227: ps, state, kill and list work without any help of the image."""
    canary = tmp_path / "canary"
    for name in ("ps", "nsenter", "kill", "newuidmap", "ldconfig"):
        program = rootfs / "bin" / name
        program.unlink(missing_ok=True)
        program.write_text(f"#!/bin/sh\necho {name} >> {canary}\n")
        program.chmod(0o755)
    cli.rootfs = rootfs

    def lead_astray(config: Config) -> None:
        config["process"]["env"] = [f"PATH={rootfs}/bin:/bin"]

    name = cli.running("sleep", "60", edit=lead_astray)
    pid = json.loads(cli.ok("state", name))["pid"]
    works = (
        subprocess.run(["ps", "-ef"], check=False, capture_output=True).returncode == 0
    )  # not where there is no boot time
    table = cli.ok("ps", name) if works else str(pid)
    pids = json.loads(cli.ok("ps", "--format", "json", name))
    cli.ok("list")
    cli.ok("kill", name, "KILL")
    cli.wait_for(name, "stopped")
    cli.ok("delete", name)

    assert str(pid) in table
    assert pids == [pid]
    assert not canary.exists()


def test_shared_objects_end_with_their_container(bare: Bare, busybox_rootfs: Path) -> None:
    """CVE-2024-3056: message queues and shared memory belong to its namespaces, and to no container after it."""
    look_and_leave = "ls /dev/mqueue /dev/shm; touch /dev/mqueue/ocirun-q /dev/shm/ocirun-m"
    seen = []
    for _round in range(2):
        config = confined(busybox_rootfs, "sh", "-c", look_and_leave)
        seen.append(bare.run(config).out.split())

    assert seen == [["/dev/mqueue:", "/dev/shm:"]] * 2
    assert not [path for place in ("/dev/mqueue", "/dev/shm") for path in Path(place).glob("ocirun-*")]


def test_we_ship_no_program_that_changes_its_user() -> None:
    """CVE-2022-47952, CVE-2020-5291: nothing of the package is set-user-id, set-group-id or has capabilities."""
    files = [path for path in Path(pytest_ocirun.__file__).parent.rglob("*") if path.is_file()]

    assert len(files) > 100
    assert [path for path in files if path.stat().st_mode & 0o6000 or "security.capability" in os.listxattr(path)] == []


def test_a_large_environment_arrives_whole_or_not_at_all(bare: Bare, busybox_rootfs: Path) -> None:
    """CVE-2021-43784: no length of a message wraps around; what the kernel cannot take is its error."""
    config = confined(busybox_rootfs, "sh", "-c", "echo ${#BIG} ${#LAST}; ls -l /proc/self/ns | wc -l")
    config.process.env += [f"BIG={'x' * 100_000}", *(f"V{number}=y" for number in range(3000)), "LAST=end"]
    config.mounts.append(Mount(destination="/tmp/" + "d" * 200, type="tmpfs"))
    ran = bare.run(config)

    assert ran.out.split()[:2] == ["100000", "3"]


@requires("root")
@pytest.mark.parametrize("kind", ["fifo", "endless", "loop", "directory", "missing", "nonsense", "device"])
def test_a_hostile_passwd_is_no_home(cli: Cli, rootfs: Path, kind: str) -> None:
    """It can neither hang nor exhaust the runtime (CVE-2024-9676)."""
    path = rootfs / "etc/passwd"
    path.unlink()
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "endless":
        with path.open("wb") as file:
            file.truncate(1 << 40)
    elif kind == "loop":
        path.symlink_to("passwd")
    elif kind == "directory":
        path.mkdir()
    elif kind == "nonsense":
        path.write_bytes(b"\xff\n:::\n1000:1000\nx:x:1000\n\0")
    elif kind == "device":
        path.symlink_to("/dev/zero")
    cli.rootfs = rootfs
    cli.write("/bin/busybox", "env", edit=lambda config: config["process"].update(user={"uid": 1000, "gid": 1}, env=[]))

    assert cli.ok("run", cli.new_id()) == "HOME=/\n"


@pytest.mark.parametrize("own_view", [True, False])
def test_the_hosts_cgroups_are_out_of_a_users_reach(rootless: Rootless, *, own_view: bool) -> None:
    """CVE-2023-25809: without root nothing below /sys/fs/cgroup can be written, with or without a cgroup namespace."""
    rootless.write("sh", "-c", "find /sys/fs/cgroup -type d | while read d; do mkdir $d/ocirun-x && echo made $d; done")
    path = rootless.bundle / "config.json"
    config = json.loads(path.read_text())
    spaces = [each for each in config["linux"]["namespaces"] if each["type"] != "cgroup"]
    config["linux"]["namespaces"] = [*spaces, {"type": "cgroup"}] if own_view else spaces
    path.write_text(json.dumps(config))
    done = rootless("run", f"cgroups-{own_view}")

    assert "made" not in done.stdout
    assert not list(Path("/sys/fs/cgroup").glob("*/ocirun-x"))


_AT_FDCWD = -100
_CALLS: dict[str, tuple[int | bytes, ...]] = {
    "unshare of a user namespace": (272, 0x10000000),
    "clone3": (435, 0, 0),
    "bpf": (321, 0, 0, 0),
    "add_key": (248, b"user\0", b"a\0", b"b\0", 1, -3),
    "keyctl": (250, 0, -3, 0),
    "request_key": (249, 0, 0, 0, 0),
    "perf_event_open": (298, 0, 0, 0, 0, 0),
    "io_uring_setup": (425, 1, 0),
    "userfaultfd": (323, 0),
    "mount": (165, b"none\0", b"/tmp\0", b"tmpfs\0", 0, 0),
    "fsopen": (430, b"tmpfs\0", 0),
    "fsconfig": (431, 0, 0, 0, 0, 0),
    "open_tree": (428, _AT_FDCWD, b"/\0", 1),
    "move_mount": (429, _AT_FDCWD, b"/tmp\0", _AT_FDCWD, b"/mnt\0", 0),
    "mount_setattr": (442, _AT_FDCWD, b"/\0", 0, 0, 0),
    "setns": (308, 0, 0),
    "pivot_root": (155, b"/\0", b"/\0"),
    "socket AF_VSOCK": (41, 40, 1, 0),
    "socket AF_ALG": (41, 38, 5, 0),
    "socket AF_PACKET": (41, 17, 3, 0),
    "kexec_load": (246, 0, 0, 0, 0),
    "init_module": (175, 0, 0, 0),
    "open_by_handle_at": (304, 0, 0, 0),
    "reboot": (169, 0, 0, 0, 0),
    "swapon": (167, 0, 0),
    "quotactl": (179, 0, 0, 0, 0),
    "acct": (163, 0),
}


@_x86_64
def test_calls_that_kernel_bugs_need_are_refused(bare: Bare, rootfs: Path) -> None:
    """CVE-2022-0185, CVE-2020-14386, CVE-2022-0492, the io_uring series and others: each call alone, by its errno.

    The same calls without the filter: some give other answers, so the refusals are the filter's.
    """
    for index, (number, *arguments) in enumerate(_CALLS.values()):
        assert isinstance(number, int)
        write_call(rootfs / f"call-{index}", number, *arguments)
    script = f"for n in $(seq 0 {len(_CALLS) - 1}); do /call-$n; echo $?; done"
    answers = []
    for filtered in (True, False):
        config = confined(rootfs, "sh", "-c", script)
        if not filtered:
            config.linux.seccomp = None
        answers.append([int(word) for word in bare.run(config).out.split()])
    with_filter, without = (dict(zip(_CALLS, codes, strict=True)) for codes in answers)

    refusals = (errno.EPERM, errno.ENOSYS, errno.EAFNOSUPPORT)
    assert {name: code for name, code in with_filter.items() if code not in refusals} == {}
    assert with_filter["clone3"] == errno.ENOSYS
    assert sum(with_filter[name] != without[name] for name in _CALLS) >= 8


@_x86_64
def test_calls_of_other_abis_are_refused(bare: Bare, rootfs: Path) -> None:
    """Rule 13: the numbers of x32 are the same machine's, under another name."""
    write_call(rootfs / "x32", 0x40000000 | 39)
    ran = bare.run(confined(rootfs, "/x32"))

    assert (ran.end.signal, ran.end.code) in ((31, None), (None, errno.ENOSYS), (None, errno.EPERM))
