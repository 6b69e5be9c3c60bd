"""What a process finds itself to be: as the container's own program and as an exec, from the engine's defaults."""

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_ocirun.engine.container import Container
from pytest_ocirun.errors import ConfigError, KernelRefused
from pytest_ocirun.oci.process import User
from tests.boxes import PATH, Bare, Launch, confined, mapping, shell
from tests.requires import requires

pytestmark = [requires("userns", "overlay", "seccomp", "busybox"), pytest.mark.lane("v2")]

Inside = Callable[[str], str]


@pytest.fixture(params=["run", "exec"])
def inside(request: pytest.FixtureRequest, bare: Bare, busybox_rootfs: Path) -> Inside:
    """What a script prints as the container's program, or as an exec into the engine's container."""
    if request.param == "exec":
        box = request.getfixturevalue("box")
        return lambda script: shell(box, script)

    def run(script: str) -> str:
        ran = bare.run(confined(busybox_rootfs, "sh", "-euc", script))
        assert (ran.end.code, ran.err) == (0, ""), ran
        return ran.out.strip()

    return run


def status(text: str) -> dict[str, str]:
    """A /proc/PID/status by key."""
    return dict(line.split(":\t", 1) for line in text.splitlines())


def test_container_root_is_not_host_root(box: Container) -> None:
    """Uid 0 inside is, on the host, an id of the container's own, or the caller's (rule 12)."""
    seen = status(Path(f"/proc/{box.pid}/status").read_text(encoding="utf-8"))
    inner, outer, _count = shell(box, "cat /proc/self/uid_map").split()
    owner = os.geteuid() or int(outer)

    assert inner == "0"
    assert owner > 0
    assert {seen["Uid"], seen["Gid"]} == {"\t".join([str(owner)] * 4)}


@requires("root")
def test_two_containers_share_no_host_id(launch: Launch) -> None:
    """Each has a range of its own, so a signal or a per-user limit of one cannot meet the other."""
    first, second = (shell(launch(), "cat /proc/self/uid_map").split() for _ in range(2))
    starts = sorted(int(row[1]) for row in (first, second))

    assert starts[0] + int(first[2]) <= starts[1]


def test_no_capabilities_in_any_set(inside: Inside) -> None:
    """All five sets are empty, the inheritable one too (CVE-2022-24769, CVE-2022-29162, CVE-2022-27650)."""
    seen = status(inside("cat /proc/self/status"))

    assert [seen[f"Cap{name}"] for name in ("Inh", "Prm", "Eff", "Bnd", "Amb")] == ["0" * 16] * 5


def test_no_new_privileges_and_a_filter(inside: Inside) -> None:
    """no_new_privs is set and a seccomp filter is loaded (rules 12, 13)."""
    seen = status(inside("cat /proc/self/status"))

    assert [seen[name] for name in ("NoNewPrivs", "Seccomp")] == ["1", "2"]
    assert int(seen["Seccomp_filters"]) >= 1


def test_every_namespace_is_new(box: Container) -> None:
    """User, pid, mount, network, ipc, uts and cgroup namespaces all differ from ours (rule 12)."""
    kinds = ("user", "pid", "mnt", "net", "ipc", "uts", "cgroup")
    theirs = shell(box, f"for kind in {' '.join(kinds)}; do readlink /proc/self/ns/$kind; done").split()
    ours = [os.readlink(f"/proc/self/ns/{kind}") for kind in kinds]

    assert [kind for kind, a, b in zip(kinds, theirs, ours, strict=True) if a == b] == []


def test_exec_is_in_the_namespaces_of_the_init(bare: Bare, busybox_rootfs: Path) -> None:
    """An exec cannot end up half inside: all its namespaces are the container's."""
    kinds = ("user", "pid", "mnt", "net", "ipc", "uts", "cgroup")
    show = f"for kind in {' '.join(kinds)}; do readlink /proc/self/ns/$kind; done"
    config = confined(busybox_rootfs, "sh", "-c", f"({show}) > /tmp/part; mv /tmp/part /tmp/init; sleep 60")
    name = bare.new_id()
    child = bare.create(config, name=name)
    try:
        bare.runtime.start(name)
        ran = bare.exec(
            name,
            "sh",
            "-c",
            f"for i in $(seq 500); do [ -e /tmp/init ] && break; sleep 0.01; done; cat /tmp/init; {show}",
        )
    finally:
        bare.end(name, child)
    lines = ran.out.splitlines()

    assert (len(lines), lines[:7]) == (14, lines[7:])


def test_environment_is_exactly_what_was_given(
    bare: Bare, busybox_rootfs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing of the host's environment comes along (CVE-2021-3602, CVE-2020-14370)."""
    monkeypatch.setenv("OCIRUN_CANARY", "secret")
    config = confined(busybox_rootfs, "/bin/busybox", "env")
    config.process.env = ["A=1", "B=two words=x", "EMPTY="]

    assert bare.run(config).out.splitlines() == ["A=1", "B=two words=x", "EMPTY="]


def test_exec_environment_is_the_containers_and_what_was_given(launch: Launch, monkeypatch: pytest.MonkeyPatch) -> None:
    """An exec sees the container's variables, with those of the call on top, and no other."""
    monkeypatch.setenv("OCIRUN_CANARY", "secret")
    box = launch(env={"PATH": PATH, "A": "1"})
    seen = box.exec(["env"], env={"A": "2", "B": "3"}).stdout

    assert sorted(seen.split()) == ["A=2", "B=3", f"PATH={PATH}"]


def test_only_stdio_is_open(inside: Inside) -> None:
    """No fd of ours leaks in (CVE-2016-8649, CVE-2024-21626); 3 is the listing's own."""
    seen = inside("exec ls /proc/self/fd").split()

    assert seen == ["0", "1", "2", "3"]


def test_holder_has_only_null_devices(box: Container) -> None:
    """Nor does pid 1, which lives as long as the container."""
    seen = shell(box, "for fd in /proc/1/fd/*; do echo ${fd##*/} $(readlink $fd); done")

    assert seen.splitlines() == ["0 /dev/null", "1 /dev/null", "2 /dev/null"]


def test_agreed_fds_and_no_others(launch: Launch) -> None:
    """A fd that was passed on purpose arrives at its number, alone."""
    read, write = os.pipe()
    try:
        box = launch("sh", "-c", "exec ls /proc/self/fd >&7", fds={7: write})
        end = box.wait(10)
        seen = os.read(read, 100).split()
    finally:
        os.close(read)
        os.close(write)

    assert (end.code, seen) == (0, [b"0", b"1", b"2", b"3", b"7"])


def test_own_session_and_no_terminal(inside: Inside) -> None:
    """The process leads a session of its own without a controlling terminal (CVE-2017-5226)."""
    pid, _comm, _state, _parent, group, session, terminal = inside("exec cat /proc/self/stat").split()[:7]

    assert (group, session, terminal) == (pid, pid, "0")


def test_own_session_keyring(box: Container) -> None:
    """The caller's session keyring is left behind; the filter refuses keyctl besides."""
    seen = shell(box, "cat /proc/keys 2>/dev/null || true")

    assert seen == ""


@requires("root")
def test_supplementary_groups_are_gone(inside: Inside) -> None:
    """The process has the groups that were asked for: none.

    CVE-2022-36109, CVE-2023-25173, CVE-2022-2989, CVE-2022-2990.
    """
    seen = status(inside("cat /proc/self/status"))["Groups"]

    assert seen.strip() == ""


@requires("root")
def test_numeric_user_is_never_a_name(bare: Bare, rootfs: Path) -> None:
    """A passwd entry named 1000 with uid 0 does not make uid 1000 root (CVE-2016-3697)."""
    (rootfs / "etc/passwd").write_text("1000:x:0:0::/:/bin/sh\nroot:x:0:0::/:/bin/sh\n", encoding="ascii")
    (rootfs / "etc/group").write_text("1000:x:0:\n", encoding="ascii")
    config = confined(rootfs, "grep", "-E", "^(Uid|Gid|Groups|CapEff)", "/proc/self/status")
    config.process.user = User(uid=1000, gid=1000, additional_gids=[1001])
    seen = status(bare.run(config).out)

    assert seen == {"Uid": "1000\t" * 3 + "1000", "Gid": "1000\t" * 3 + "1000", "Groups": "1001 ", "CapEff": "0" * 16}


@pytest.mark.parametrize("user", [-1, 2**32 - 1, 2**32, 2**64, (0, -1), (-1, 0), "0", "root", True, (0, 0, 0), (1,)])
def test_a_user_that_is_none_is_refused(box: Container, user: object) -> None:
    """An id that the kernel takes for "leave it" or cuts short never means root (CVE-2024-40635, CVE-2026-30892)."""
    with pytest.raises(ConfigError, match="user"):
        box.exec(["id"], user=user)  # type: ignore[arg-type]


@pytest.mark.parametrize("user", [(-1, 0), (0, 2**32 - 1), (2**40, 0)])
def test_a_container_of_such_a_user_is_refused(launch: Launch, user: tuple[int, int]) -> None:
    """Nor as the user of the container itself."""
    with pytest.raises(ConfigError, match="user"):
        launch(user=user)


@pytest.mark.parametrize("user", [(2**32 - 1, 0), (0, 2**32 - 1), (2**32 - 1, 2**32 - 1)])
def test_what_means_unchanged_to_the_kernel_is_not_root(bare: Bare, rootfs: Path, user: tuple[int, int]) -> None:
    """Should such an id get past every check before, the process itself notices that nothing changed."""
    with bare.holder(confined(rootfs)) as name, pytest.raises(KernelRefused, match="the kernel made it uid 0"):
        bare.exec(name, "id", user=User(uid=user[0], gid=user[1]))


@pytest.mark.parametrize("uid", [65536, 2**31, 2**32 - 2])
def test_a_user_beyond_the_map_is_refused(box: Container, uid: int) -> None:
    """An id that the container does not have is an error, not another id."""
    with pytest.raises(KernelRefused, match=f"become uid {uid}"):
        box.exec(["id"], user=uid)


def test_masked_and_read_only_paths_hold(bare: Bare, rootfs: Path) -> None:
    """Files read as empty, directories list nothing, kernel parameters cannot be written (rule 14)."""
    script = """
        for path in /proc/kcore /proc/keys /proc/timer_list /proc/sched_debug /proc/latency_stats; do
            [ -e $path ] || continue
            [ "$(head -c 1 $path | wc -c)" = 0 ] || echo readable: $path
        done
        for path in /proc/acpi /proc/scsi /proc/asound /sys/firmware /sys/devices/virtual/powercap; do
            [ -e $path ] || continue
            [ -z "$(ls -A $path)" ] || echo listed: $path
            ! touch $path/x 2>/dev/null || echo writable: $path
        done
        ! echo 1 > /proc/sys/kernel/shmmni || echo written: sysctl
        ! echo h > /proc/sysrq-trigger || echo written: sysrq
        ! mkdir /sys/x || echo written: sys
        ! mkdir /sys/fs/cgroup/x || echo written: cgroup
    """
    ran = bare.run(confined(rootfs, "sh", "-c", script))

    assert (ran.out, ran.end.code) == ("", 0)
    assert len(ran.err.splitlines()) == 4, ran.err
    assert "shmmni: Read-only file system" in ran.err
    assert "'/sys/x': Read-only file system" in ran.err


def test_read_only_root_is_read_only(bare: Bare, rootfs: Path) -> None:
    """Every place of a read-only root refuses a write, also as root."""
    config = confined(rootfs, "sh", "-c", "for d in / /etc /bin /tmp /root; do touch $d/x && echo $d; done")
    config.root.readonly = True
    ran = bare.run(config)

    assert ran.out == ""
    assert ran.err.count("Read-only file system") == 5


def test_devices_are_the_agreed_ones(box: Container) -> None:
    """/dev holds the harmless devices, and they work."""
    names = shell(box, "ls /dev").split()
    use = "head -c 4 /dev/urandom | wc -c; head -c 3 /dev/zero | wc -c; echo x > /dev/null; cat /dev/null"

    assert set(names) == {
        *("fd", "full", "mqueue", "null", "ptmx", "pts", "random", "shm"),
        *("stderr", "stdin", "stdout", "tty", "urandom", "zero"),
    }
    assert shell(box, use).split() == ["4", "3"]


@pytest.mark.parametrize("attempt", ["mount -t tmpfs none /mnt", "unshare -U true", "chroot / true", "hostname evil"])
def test_what_needs_privilege_is_refused(box: Container, attempt: str) -> None:
    """No mounts, no nested namespaces, no chroot, no renaming (rule 13)."""
    result = box.exec(["sh", "-c", f"mkdir -p /mnt; {attempt}"])

    assert result.exit_code
    assert re.search("not permitted|not implemented|denied", result.stderr), result.stderr


def test_the_holder_cannot_be_ended_from_inside(box: Container) -> None:
    """SIGKILL and SIGTERM to pid 1 from inside do nothing: only the host ends a container."""
    shell(box, "kill -9 1; kill 1; kill -STOP 1; sleep 0.05")

    assert box.poll() is None
    assert shell(box, "echo alive") == "alive"


def test_mapping_is_what_the_kernel_has(bare: Bare, busybox_rootfs: Path) -> None:
    """The maps read back are the config's, uid and gid."""
    ran = bare.run(confined(busybox_rootfs, "cat", "/proc/self/uid_map", "/proc/self/gid_map"))
    own = mapping()
    row = [0, own.host_id if not os.geteuid() else 0, own.size]

    assert [list(map(int, line.split())) for line in ran.out.splitlines()] == [row, row]
