"""Namespaces: new ones, joined ones, what is named and set in them."""

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pytest_ocirun.engine.container import Container
from pytest_ocirun.errors import ConfigError, KernelRefused, Unsupported
from pytest_ocirun.linux.sched import NS_FILES
from pytest_ocirun.oci.runtime import Config, IDMapping, Namespace, TimeOffset
from pytest_ocirun.runtime.validate import validate
from tests.boxes import Bare, confined, mapping, shell
from tests.requires import requires

pytestmark = [requires("userns", "overlay", "seccomp", "busybox"), pytest.mark.lane("v2")]


def without(config: Config, *kinds: str) -> Config:
    """The config without namespaces of these types."""
    config.linux.namespaces = [each for each in config.linux.namespaces if each.type not in kinds]
    return config


def system_mounts() -> list[str]:
    """Mounts that no other test changes meanwhile, with their propagation."""
    lines = Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line.split()[4].startswith(("/proc", "/sys", "/dev")) or " / / " in line]


@contextmanager
def unshared(*flags: str) -> Iterator[int]:
    """The pid of a process in new namespaces."""
    with subprocess.Popen(["unshare", *flags, "sh", "-c", "echo; exec sleep 60"], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            yield process.pid
        finally:
            for child in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text(encoding="ascii").split():
                os.kill(int(child), 9)
            process.kill()


@pytest.mark.conforms("config: $.hostname", "config: $.domainname")
def test_host_name_is_the_containers(bare: Bare, busybox_rootfs: Path) -> None:
    """The names of the config are set inside and nowhere else."""
    before = os.uname().nodename
    config = confined(busybox_rootfs, "cat", "/proc/sys/kernel/hostname", "/proc/sys/kernel/domainname")
    config.hostname, config.domainname = "inside", "example.org"

    assert bare.run(config).out.split() == ["inside", "example.org"]
    assert os.uname().nodename == before


def test_the_network_is_loopback_alone(box: Container) -> None:
    """One interface, up, with its addresses; a connection to itself works, any other place is unreachable."""
    names = shell(box, "ls /sys/class/net")
    talk = "echo hello | nc -l -p 4000 & sleep 0.1; nc 127.0.0.1 4000 < /dev/null"

    assert names == "lo"
    assert shell(box, "cat /sys/class/net/lo/operstate; grep -c . /proc/net/route") == "unknown\n1"
    assert box.exec(["sh", "-c", talk], timeout=10).stdout == "hello\n"
    assert box.exec(["nc", "-w", "1", "192.0.2.1", "80"]).exit_code


def test_pids_start_at_one(box: Container) -> None:
    """The container sees its own processes, the holder as pid 1, and none of the host's."""
    seen = shell(box, "for p in /proc/[0-9]*; do read -r name < $p/comm; echo ${p#/proc/} $name; done").splitlines()

    assert seen[0].split()[0] == "1"
    assert [line.split()[1] for line in seen[1:]] == ["sh"]


def test_ipc_objects_are_the_containers(box: Container) -> None:
    """No shared memory of the host shows, and message queues are its own."""
    assert shell(box, "tail -n +2 /proc/sysvipc/shm; ls /dev/mqueue; ls /dev/shm") == ""


@pytest.mark.conforms("config: $.linux.sysctl")
def test_kernel_parameters_of_its_namespaces(bare: Bare, busybox_rootfs: Path) -> None:
    """Sysctls of the container's own namespaces are set, the host's stay."""
    before = Path("/proc/sys/net/ipv4/ip_forward").read_text(encoding="ascii")
    config = confined(busybox_rootfs, "cat", "/proc/sys/net/ipv4/ip_forward", "/proc/sys/kernel/shmmni")
    config.linux.sysctl = {"net.ipv4.ip_forward": "1", "kernel.shmmni": "17"}
    if os.geteuid():
        del config.linux.sysctl["kernel.shmmni"]
    ran = bare.run(config)

    assert ran.out.split()[0] == "1"
    assert os.geteuid() or ran.out.split()[1] == "17"
    assert Path("/proc/sys/net/ipv4/ip_forward").read_text(encoding="ascii") == before


@pytest.mark.parametrize("name", ["kernel.core_pattern", "vm.overcommit_memory", "kernel.hostname", "fs.file-max"])
@pytest.mark.conforms("config: $.linux.sysctl")
def test_kernel_parameters_of_the_machine_are_refused(bare: Bare, busybox_rootfs: Path, name: str) -> None:
    """What belongs to no namespace would change the whole machine."""
    config = confined(busybox_rootfs)
    config.linux.sysctl = {name: "1"}

    with pytest.raises((ConfigError, Unsupported), match="sysctl"):
        bare.run(config)


@requires("root")
@pytest.mark.conforms("config: $.linux.namespaces[].path")
@pytest.mark.parametrize("own_users", [False, True])
@pytest.mark.parametrize(
    "kind, flag",
    [
        ("network", "--net"),
        ("ipc", "--ipc"),
        ("uts", "--uts"),
        ("cgroup", "--cgroup"),
        pytest.param("time", "--time", marks=requires("timens")),
    ],
)
def test_a_namespace_can_be_joined_by_path(
    bare: Bare, busybox_rootfs: Path, kind: str, flag: str, own_users: bool
) -> None:
    """The container is in the namespace that the config names, also if it has a user namespace of its own."""
    name = {"network": "net"}.get(kind, kind)
    with unshared(flag) as pid:
        own = "time_for_children" if kind == "time" else name
        config = without(confined(busybox_rootfs, "readlink", f"/proc/self/ns/{name}", user_namespace=own_users), kind)
        config.mounts = [each for each in config.mounts if each.type not in ("sysfs", "mqueue")]
        if kind == "uts":
            config.hostname = ""
        config.linux.namespaces.append(Namespace(type=kind, path=f"/proc/{pid}/ns/{own}"))
        ran = bare.run(config)

        assert (ran.out.strip(), ran.err) == (os.readlink(f"/proc/{pid}/ns/{own}"), "")


@requires("root")
@pytest.mark.conforms("config: $.linux.namespaces[].path")
def test_a_mount_namespace_can_be_joined(bare: Bare, busybox_rootfs: Path) -> None:
    """The container's root is made there and becomes everybody's root, as with runc; the runtime's mounts stay."""
    before = system_mounts()
    with unshared("--mount", "--propagation", "private") as pid:
        config = confined(busybox_rootfs, "readlink", "/proc/self/ns/mnt", user_namespace=False)
        config = without(config, "mount")
        config.linux.namespaces.append(Namespace(type="mount", path=f"/proc/{pid}/ns/mnt"))
        ran = bare.run(config)

        assert (ran.out.strip(), ran.err) == (os.readlink(f"/proc/{pid}/ns/mnt"), "")
        assert Path(f"/proc/{pid}/root/bin/busybox").exists()
    assert system_mounts() == before


@pytest.mark.conforms("config: $.linux.namespaces[].path")
def test_the_hosts_mount_namespace_cannot_be_joined(bare: Bare, busybox_rootfs: Path) -> None:
    """Its root would be the container's for every process of the machine."""
    config = without(confined(busybox_rootfs), "mount")
    config.linux.namespaces.append(Namespace(type="mount", path=f"/proc/{os.getpid()}/ns/mnt"))
    with pytest.raises(ConfigError, match="is the host's: its root would be replaced"):
        validate(config)  # alone, since a container that is made all the same would do it


@pytest.mark.conforms(*(f"config: $.linux.namespaces[].type {kind}" for kind in sorted(NS_FILES)))
@requires("root")
@pytest.mark.conforms("config: $.linux.namespaces[].type")
@pytest.mark.parametrize("kind", [*sorted(NS_FILES.keys() - {"time"}), pytest.param("time", marks=requires("timens"))])
def test_a_namespace_of_each_type(bare: Bare, busybox_rootfs: Path, kind: str) -> None:
    """What the config lists is new; what it leaves out is the runtime's."""
    file = NS_FILES[kind]
    config = confined(busybox_rootfs, "readlink", f"/proc/self/ns/{file}", user_namespace=kind == "user")
    if kind == "time":
        config.linux.namespaces.append(Namespace(type="time"))
    own = os.readlink(f"/proc/self/ns/{file}")
    seen = bare.run(config).out.strip()

    assert seen.startswith(f"{file}:[")
    assert seen != own
    if kind in ("mount", "user"):  # a container without one of its own: not made; tested above
        return
    config.hostname = config.hostname if kind != "uts" else ""
    config.mounts = [each for each in config.mounts if each.type not in ("sysfs", "mqueue")]
    assert bare.run(without(config, kind)).out.strip() == own


@pytest.mark.conforms(
    "config: $.linux.timeOffsets boottime",
    "config: $.linux.timeOffsets monotonic",
    "config: $.linux.timeOffsets.*.secs",
    "config: $.linux.timeOffsets.*.nanosecs",
)
@requires("timens")
@pytest.mark.conforms("config: $.linux.timeOffsets")
@pytest.mark.parametrize("own_users", [pytest.param(False, marks=requires("root")), True])
def test_time_offsets(bare: Bare, busybox_rootfs: Path, own_users: bool) -> None:
    """The clocks of run and exec are that far ahead of the host's, or behind."""
    config = confined(busybox_rootfs, "cat", "/proc/uptime", "/proc/self/timens_offsets", user_namespace=own_users)
    config.linux.namespaces.append(Namespace(type="time"))
    config.linux.time_offsets = {"boottime": TimeOffset(secs=10**6, nanosecs=5), "monotonic": TimeOffset(secs=-1)}
    before = time.clock_gettime(time.CLOCK_BOOTTIME)
    with bare.holder(config) as name:
        outs = [bare.run(config).out.split(), bare.exec(name, *config.process.args).out.split()]
    after = time.clock_gettime(time.CLOCK_BOOTTIME)

    for out in outs:
        assert before - 0.02 <= float(out[0]) - 10**6 <= after + 0.02
        assert out[2:] == ["monotonic", "-1", "0", "boottime", "1000000", "5"]


@requires("timens")
@pytest.mark.conforms("config: $.linux.timeOffsets")
def test_time_offsets_that_are_refused_are_named(bare: Bare, busybox_rootfs: Path) -> None:
    """A clock before its own beginning, which the kernel cannot show."""
    config = confined(busybox_rootfs)
    config.linux.namespaces.append(Namespace(type="time"))
    config.linux.time_offsets = {"boottime": TimeOffset(secs=-(10**12))}

    with pytest.raises(KernelRefused, match="set the clocks of the time namespace"):
        bare.run(config)


@requires("root")
@pytest.mark.conforms("config: $.linux.namespaces[].path")
def test_a_pid_namespace_can_be_joined(bare: Bare, busybox_rootfs: Path) -> None:
    """Init is then not pid 1, and the others show."""
    with unshared("--pid", "--fork", "--mount-proc") as outer:
        inner = int(Path(f"/proc/{outer}/task/{outer}/children").read_text(encoding="ascii"))
        config = without(confined(busybox_rootfs, "sh", "-c", "echo $$; cat /proc/1/comm"), "pid", "user")
        config.linux.uid_mappings = config.linux.gid_mappings = []
        config.annotations.pop("org.ocirun.idmap")
        config.linux.namespaces.append(Namespace(type="pid", path=f"/proc/{inner}/ns/pid"))
        ran = bare.run(config)

        assert ran.out.split()[1] == "sleep"
        assert int(ran.out.split()[0]) > 1


@requires("root")
@pytest.mark.conforms("config: $.linux.namespaces[].path")
def test_a_user_namespace_can_be_joined(bare: Bare, busybox_rootfs: Path) -> None:
    """Two containers can share one; the second has the first one's maps."""
    first = confined(busybox_rootfs)
    with bare.holder(first) as name:
        pid = bare.runtime.state(name)["pid"]
        config = without(confined(busybox_rootfs, "cat", "/proc/self/uid_map"), "user")
        config.linux.uid_mappings = config.linux.gid_mappings = []
        config.annotations.pop("org.ocirun.idmap")
        config.linux.namespaces.append(Namespace(type="user", path=f"/proc/{pid}/ns/user"))
        ran = bare.run(config)

    assert [int(word) for word in ran.out.split()] == [0, mapping().host_id, mapping().size]


@requires("root")
@pytest.mark.conforms("config: $.linux.uidMappings", "config: $.linux.gidMappings")
def test_mappings_beside_a_joined_user_namespace(bare: Bare, busybox_rootfs: Path) -> None:
    """They may say what the namespace has, as clients do that share one; saying anything else is an error."""
    with bare.holder(confined(busybox_rootfs)) as name:
        pid = bare.runtime.state(name)["pid"]
        config = without(confined(busybox_rootfs, "stat", "-c", "%u", "/bin"), "user")
        config.linux.namespaces.append(Namespace(type="user", path=f"/proc/{pid}/ns/user"))
        assert bare.run(config).out == "0\n"
        config.linux.uid_mappings = [IDMapping(container_id=0, host_id=mapping().host_id, size=5)]
        with pytest.raises(KernelRefused, match="verify that the user namespace maps ids as the config says"):
            bare.run(config)


@requires("root")
@pytest.mark.conforms("config: $.linux.namespaces[].path")
def test_a_file_that_is_no_such_namespace(bare: Bare, busybox_rootfs: Path) -> None:
    """A namespace of another type, or a plain file, is refused before anything is made."""
    for path in ("/proc/self/ns/mnt", "/etc/passwd"):
        config = without(confined(busybox_rootfs), "network")
        config.linux.namespaces.append(Namespace(type="network", path=path))
        with pytest.raises(ConfigError, match=r"^\$[.]linux[.]namespaces\[\d\][.]path: "):
            bare.run(config)


@requires("root")
def test_without_a_user_namespace_root_is_root(bare: Bare, busybox_rootfs: Path) -> None:
    """A config without one is honoured: the ids are the host's, the rest is as confined as ever."""
    ran = bare.run(confined(busybox_rootfs, "cat", "/proc/self/uid_map", user_namespace=False))

    assert ran.out.split() == Path("/proc/self/uid_map").read_text(encoding="ascii").split()


@pytest.mark.conforms("config: $.linux.sysctl")
@pytest.mark.parametrize(
    "name", ["net.ipv4.conf.lo.forwarding", "net/ipv4/conf/lo/forwarding", "net.ipv4.conf.lo/forwarding"]
)
def test_a_kernel_parameter_in_each_spelling(bare: Bare, busybox_rootfs: Path, name: str) -> None:
    """With dots and with slashes; a slash among dots stands for a dot in a name, so here it names nothing."""
    config = confined(busybox_rootfs, "cat", "/proc/sys/net/ipv4/conf/lo/forwarding")
    config.linux.sysctl = {name: "1"}
    if name == "net.ipv4.conf.lo/forwarding":
        with pytest.raises(KernelRefused, match="No such file"):
            bare.run(config)
    else:
        assert bare.run(config).out == "1\n"


@requires("root")
@pytest.mark.conforms("config: $.linux.sysctl")
def test_a_domain_name_as_kernel_parameter(bare: Bare, busybox_rootfs: Path) -> None:
    """The uts namespace's own parameters may be set, where the config's names do not say the same."""
    config = confined(busybox_rootfs, "cat", "/proc/sys/kernel/domainname", user_namespace=False)
    config.linux.sysctl = {"kernel/domainname": "example.net"}

    assert bare.run(config).out == "example.net\n"


@requires("root")
@pytest.mark.conforms("config: $.linux.namespaces mount")
def test_without_a_mount_namespace_the_zygote_cleans_up_too(rootfs: Path, tmp_path: Path) -> None:
    """The mounts are the host's: of a container that ended, and of one whose client went away."""
    config = without(confined(rootfs, "cat", "/proc/self/mounts", user_namespace=False, overlay=False), "mount")
    held = without(confined(rootfs, user_namespace=False, overlay=False), "mount")
    bare = Bare(tmp_path / "state")
    try:
        ran = bare.run(config)
        name = bare.new_id()
        child = bare.create(held, name=name, holder=True)
        bare.runtime.start(name)
        during = Path("/proc/self/mountinfo").read_text(encoding="ascii")
        joined = bare.exec(name, "ls", "/")
        child.close()
    finally:
        bare.close()
        bare.runtime._cgroups().prune()

    assert " /dev/pts " in ran.out
    assert f"{name}/root/dev/pts" in during
    assert "bin" in joined.out.split()
    assert str(tmp_path) not in Path("/proc/self/mountinfo").read_text(encoding="ascii")
    assert (rootfs / "bin/busybox").exists()


@requires("root")
@pytest.mark.conforms("config: $.linux.namespaces[].path")
def test_a_user_namespace_and_one_beyond_it(bare: Bare, busybox_rootfs: Path) -> None:
    """A network namespace of the host's root beside another container's user namespace, which has no right to it."""
    with bare.holder(confined(busybox_rootfs)) as name, unshared("--net") as pid:
        users = bare.runtime.state(name)["pid"]
        script = "readlink /proc/self/ns/net; readlink /proc/self/ns/user"
        config = without(confined(busybox_rootfs, "sh", "-c", script), "user", "network")
        config.mounts = [each for each in config.mounts if each.type != "sysfs"]
        config.linux.namespaces += [
            Namespace(type="user", path=f"/proc/{users}/ns/user"),
            Namespace(type="network", path=f"/proc/{pid}/ns/net"),
        ]
        ran = bare.run(config)
        wanted = [os.readlink(f"/proc/{pid}/ns/net"), os.readlink(f"/proc/{users}/ns/user")]

    assert (ran.out.split(), ran.err) == (wanted, "")


@requires("root")
@pytest.mark.conforms("config: $.linux.namespaces[].path")
@pytest.mark.parametrize("own_users", [False, True])
def test_a_container_can_join_all_of_another(bare: Bare, busybox_rootfs: Path, own_users: bool) -> None:
    """As in a pod: every namespace but that of mounts is the first one's, those that its user namespace owns too."""
    with bare.holder(confined(busybox_rootfs, user_namespace=own_users)) as name:
        pid = bare.runtime.state(name)["pid"]
        shared = [kind for kind in ("user", "pid", "network", "ipc", "uts", "cgroup") if kind != "user" or own_users]
        files = [NS_FILES[kind] for kind in shared]
        script = (
            "".join(f"readlink /proc/self/ns/{file}; " for file in files) + "hostname; ls /sys/class/net /dev/mqueue"
        )
        config = without(confined(busybox_rootfs, "sh", "-ec", script, user_namespace=own_users), *shared)
        config.hostname = ""
        config.linux.namespaces += [Namespace(type=kind, path=f"/proc/{pid}/ns/{NS_FILES[kind]}") for kind in shared]
        ran = bare.run(config)
        wanted = [os.readlink(f"/proc/{pid}/ns/{file}") for file in files]

    assert (ran.out.split()[: len(files) + 1], ran.err) == ([*wanted, "ocirun"], "")
