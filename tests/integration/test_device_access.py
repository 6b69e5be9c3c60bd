"""Device rules on the real kernel: what they deny cannot be opened, on cgroup v1 and by a program on v2."""

import contextlib
import errno
import os
import random
import stat
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

import pytest_ocirun
from pytest_ocirun.errors import KernelRefused, Unsupported
from pytest_ocirun.linux import bpf
from pytest_ocirun.oci.process import Capabilities
from pytest_ocirun.oci.runtime import Config, DeviceRule, Resources
from pytest_ocirun.runtime import device_access
from pytest_ocirun.runtime.cgroups import Refusal, device_program, devices
from pytest_ocirun.runtime.cgroups.detect import Layout, layout, manager
from pytest_ocirun.runtime.cgroups.none import NoManager
from tests.boxes import Bare, confined
from tests.devices import allowed, draw
from tests.requires import lane, requires

pytestmark = [requires("root", "cgroup"), pytest.mark.lane("v2")]

PACKAGE_PARENT = str(Path(pytest_ocirun.__file__).parents[1])
DENY_ALL = DeviceRule(allow=False, access="rwm")
OPENER = """
import errno, os, sys
for line in sys.stdin:
    path, flags = line.split()
    try:
        os.close(os.open(path, int(flags) | os.O_NONBLOCK))
        code = 0
    except OSError as error:
        code = error.errno
    print(code, flush=True)
"""
FLAGS = {"r": os.O_RDONLY, "w": os.O_WRONLY, "rw": os.O_RDWR}
NODES = [(kind, major, minor) for kind in "cb" for major in (240, 241) for minor in (7, 8)] + [
    ("c", 1, 3),
    ("c", 1, 11),
]


def rule(allow: bool, kind: str, major: int | None, minor: int | None, access: str) -> DeviceRule:
    """One rule."""
    return DeviceRule(allow=allow, type=kind, major=major, minor=minor, access=access)


RULE = [f"config: $.linux.resources.devices[].{key}" for key in ("allow", "type", "major", "minor", "access")]


class Place:
    """A cgroup of one hierarchy, and a process in it that opens what it is told.

    Args:
        version: ``v1`` or ``v2``.
    """

    def __init__(self, version: str) -> None:
        found = layout()
        top = found.v1.get("devices") if version == "v1" else found.v2
        if top is None:
            pytest.skip(f"this kernel lacks a {version} hierarchy for device rules")
        self.directory = f"{top}/ocirun-test-{uuid.uuid4().hex[:12]}"
        self.version = version
        os.mkdir(self.directory)
        with open(f"{self.directory}/cgroup.procs", "wb", buffering=0) as procs:
            self.process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", OPENER],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                preexec_fn=lambda: procs.write(b"0"),  # noqa: PLW1509 - single-threaded
            )

    def enforce(self, *rules: DeviceRule) -> None:
        """Replace its rules."""
        v1, v2 = (self.directory if self.version == version else None for version in ("v1", "v2"))
        devices.enforce(list(rules), v1=v1, v2=v2)

    def opens(self, path: Path | str, access: str) -> bool:
        """Whether the rules let it; a device that nothing drives is ENXIO or ENODEV then."""
        assert self.process.stdin
        assert self.process.stdout
        print(path, FLAGS[access], file=self.process.stdin, flush=True)
        code = int(self.process.stdout.readline())
        assert code in (0, errno.EPERM, errno.ENXIO, errno.ENODEV), os.strerror(code)
        return code != errno.EPERM

    def close(self) -> None:
        """End the process and remove the cgroup."""
        self.process.communicate(timeout=10)
        os.rmdir(self.directory)


@pytest.fixture(params=["v2"] if lane() == "v2" else ["v1", "v2"])
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    """A cgroup to put rules on; v2 on a hybrid host is its bare v2 tree, which takes programs as well."""
    place = Place(request.param)
    try:
        yield place
    finally:
        place.close()


@pytest.fixture
def nodes(tmp_path: Path) -> dict[tuple[str, int, int], Path]:
    """Nodes of devices that mostly do not exist: opening tells all the same whether the rules allow it."""
    made = {}
    for kind, major, minor in NODES:
        path = tmp_path / f"{kind}-{major}-{minor}"
        os.mknod(path, 0o600 | {"c": stat.S_IFCHR, "b": stat.S_IFBLK}[kind], os.makedev(major, minor))
        made[kind, major, minor] = path
    return made


@pytest.mark.conforms(*RULE)
def test_the_kernel_does_as_random_rules_say(place: Place, nodes: dict[tuple[str, int, int], Path]) -> None:
    """Every list replaces the one before it, on a cgroup with a living process."""
    compared = 0
    for seed in range(40):
        rules = draw(random.Random(seed))
        with contextlib.suppress(Unsupported):  # cgroup v1 cannot keep every list; that it says so is tested elsewhere
            place.enforce(*rules)
            for node, path in nodes.items():
                for access in FLAGS:
                    assert place.opens(path, access) == allowed(rules, *node, access), (seed, node, access, rules)
                    compared += 1

    assert compared > 600


@pytest.mark.conforms(*RULE)
def test_a_rule_is_for_one_device(place: Place, nodes: dict[tuple[str, int, int], Path]) -> None:
    """Of its type, major and minor number, and for the access that it names."""
    place.enforce(DENY_ALL, rule(True, "c", 240, 7, "r"))
    opened = {(*node, access) for node, path in nodes.items() for access in FLAGS if place.opens(path, access)}

    assert opened == {("c", 240, 7, "r"), *(("c", 1, 3, access) for access in FLAGS)}  # null is every container's


def test_what_the_rules_deny_cannot_be_opened(place: Place) -> None:
    """The kernel's log may be read, not written; the devices that every container has are there anyway."""
    place.enforce(DENY_ALL, rule(True, "c", 1, 11, "r"))

    assert [place.opens("/dev/kmsg", access) for access in ("r", "w", "rw")] == [True, False, False]
    assert all(place.opens(f"/dev/{name}", "rw") for name in ("null", "zero", "full", "random", "urandom"))


def test_a_later_list_takes_the_place_of_an_earlier_one(place: Place) -> None:
    """More, then less, then everything, then nothing again."""
    seen = []
    for rules in (
        [DENY_ALL],
        [DENY_ALL, rule(True, "c", 1, 11, "rw")],
        [DENY_ALL, rule(True, "c", 1, None, "r")],
        [DeviceRule(allow=True)],
        [DENY_ALL],
    ):
        place.enforce(*rules)
        seen.append((place.opens("/dev/kmsg", "r"), place.opens("/dev/kmsg", "rw")))

    assert seen == [(False, False), (True, True), (True, False), (True, True), (False, False)]


def test_one_program_is_attached_however_often_the_rules_change() -> None:
    """Each replaces the one before; a foreign one beside it stays."""
    place = Place("v2")
    fd = os.open(place.directory, os.O_RDONLY)
    foreign = bpf.load(device_program.assemble([]), "foreign")
    try:
        bpf.attach(fd, foreign)
        for _ in range(3):
            place.enforce(DENY_ALL)
        programs = [bpf.open_program(number) for number in bpf.attached(fd)]
        names = sorted(map(bpf.name, programs))
        bpf.detach(fd, foreign)
        left = len(bpf.attached(fd))
        for program in programs:
            os.close(program)
    finally:
        os.close(foreign)
        os.close(fd)
        place.close()

    assert names == ["foreign", device_program.NAME]
    assert left == 1


def test_a_program_that_the_verifier_refuses_is_an_error() -> None:
    """One that may fall off its end, for one."""
    with pytest.raises(OSError, match="bpf: "):
        bpf.load(b"\0" * 8, "nonsense")


def test_below_a_cgroup_that_allows_less_the_refusal_is_named(place: Place) -> None:
    """On v1 the kernel refuses the line; on v2 both programs must allow."""
    place.enforce(DENY_ALL, rule(True, "c", 1, 11, "r"))
    below = f"{place.directory}/below"
    os.mkdir(below)
    try:
        v1, v2 = (below if place.version == version else None for version in ("v1", "v2"))
        with pytest.raises(KernelRefused, match="a cgroup above") if v1 else contextlib.nullcontext():
            devices.enforce([DENY_ALL, rule(True, "c", 10, 229, "rw")], v1=v1, v2=v2)
        Path(f"{below}/cgroup.procs").write_text(str(place.process.pid), encoding="ascii")
        opened = place.opens("/dev/fuse" if os.path.exists("/dev/fuse") else "/dev/kmsg", "rw")
    finally:
        Path(f"{place.directory}/cgroup.procs").write_text(str(place.process.pid), encoding="ascii")
        os.rmdir(below)

    assert not opened


def may_make_nodes(rootfs: Path, *args: str) -> Config:
    """A container whose root is the host's, with CAP_MKNOD."""
    config = confined(rootfs, *args, user_namespace=False)
    names = ["CAP_MKNOD"]
    config.process.capabilities = Capabilities(bounding=names, effective=names, permitted=names)
    config.linux.seccomp = None
    return config


@requires("overlay", "busybox")
@pytest.mark.conforms("config: $.linux.resources.devices")
def test_a_container_with_mknod_opens_no_more_than_its_rules_allow(bare: Bare, busybox_rootfs: Path) -> None:
    """It may make any node; what it makes opens only if a rule says so."""
    script = """
        mknod /dev/one c 240 7 && mknod /dev/two b 240 7 && cd /dev || exit 1
        for node in one two null urandom; do (head -c 0 <$node) 2>&1; done
        (: >one) 2>&1
        echo x >null
    """
    config = may_make_nodes(busybox_rootfs, "sh", "-c", script)
    config.linux.resources = Resources(devices=[DENY_ALL, rule(True, "c", 240, 7, "r")])
    ran = bare.run(config)

    assert ran.err == ""
    assert [line.split(": ")[-2:] for line in ran.out.splitlines()] == [
        ["can't open one", "No such device or address"],
        ["can't open two", "Operation not permitted"],
        ["can't create one", "Operation not permitted"],
    ]


@requires("overlay", "busybox")
def test_without_rules_only_what_every_container_has_can_be_opened(bare: Bare, busybox_rootfs: Path) -> None:
    """As with runc: who may make nodes is not given the host's disks for want of a line."""
    script = "mknod /dev/one c 240 7; (head -c 0 </dev/one) 2>&1; head -c 2 /dev/zero | wc -c"
    config = may_make_nodes(busybox_rootfs, "sh", "-c", script)
    ran = bare.run(config)

    assert ran.err == ""
    assert [line.split(": ")[-1].strip() for line in ran.out.splitlines()] == ["Operation not permitted", "2"]


@requires("overlay", "busybox")
def test_the_rules_of_a_running_container_can_be_replaced(bare: Bare, busybox_rootfs: Path) -> None:
    """What was open stays open; what is opened from then on obeys the new rules, in execs too."""
    config = may_make_nodes(busybox_rootfs)
    config.linux.resources = Resources(devices=[DENY_ALL])
    script = "test -e /dev/one || mknod /dev/one c 240 7; head -c 0 </dev/one"
    with bare.holder(config) as name:
        sets = config.process.capabilities
        before = bare.exec(name, "sh", "-c", script, capabilities=sets)
        bare.runtime.record(name).cgroup.limit(Resources(devices=[DENY_ALL, rule(True, "c", 240, None, "rw")]))
        after = bare.exec(name, "sh", "-c", script, capabilities=sets)

    assert "Operation not permitted" in before.err
    assert "No such device or address" in after.err


def test_who_may_attach_no_program_is_known_beforehand() -> None:
    """Without the capability, or in a user namespace, where it is none."""
    program = (
        "import sys; sys.path.append(sys.argv[1])\n"
        "from pytest_ocirun.runtime.cgroups import devices\n"
        "found = devices.refusal('/sys/fs/cgroup')\n"
        "print('may' if found is None else found.reason)\n"
    )
    python = [sys.executable, "-I", "-S", "-c", program, PACKAGE_PARENT]
    drop = ["setpriv", "--bounding-set", "-sys_admin,-cap_39"]
    told = []
    for command in (python, ["unshare", "--user", "--map-root-user", *python], [*drop, *python]):
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        told.append("takes CAP_SYS_ADMIN" in done.stdout)

    assert told == [False, True, True]


REFUSAL = Refusal("no cgroups here", "mount them")


@pytest.mark.parametrize(
    "rules, capabilities, user_namespace, held",
    [
        ([DENY_ALL], [], False, True),
        ([DENY_ALL], ["CAP_MKNOD"], True, True),
        ([DENY_ALL, rule(True, "c", 10, 229, "rw")], [], True, True),
        ([DENY_ALL], ["CAP_MKNOD"], False, False),
        ([DENY_ALL, rule(False, "c", 1, 3, "w")], [], True, False),
        ([rule(True, "c", 10, 229, "rw")], [], True, False),
    ],
)
def test_where_rules_cannot_be_enforced_only_what_holds_by_itself_is_accepted(
    rules: list[DeviceRule], capabilities: list[str], user_namespace: bool, held: bool, tmp_path: Path
) -> None:
    """Who cannot make nodes opens none but those that the config gives; anything else is refused."""
    config = confined(tmp_path, user_namespace=user_namespace)
    config.process.capabilities = Capabilities(bounding=capabilities)
    config.linux.resources = Resources(devices=rules)
    manager = NoManager(REFUSAL)
    if held:
        assert device_access.enforceable(config, manager).devices == []
    else:
        with pytest.raises(Unsupported, match=r"\$\.linux\.resources\.devices: no cgroups here"):
            device_access.enforceable(config, manager)

    assert config.linux.resources.devices == rules


@requires("cgroup_v1")
def test_without_a_devices_hierarchy_the_v2_tree_of_a_hybrid_host_enforces() -> None:
    """And without either, the lack is named."""
    found = layout()
    if found.v2 is None:
        pytest.skip("this kernel lacks a cgroup v2 mount")
    others = {name: point for name, point in found.v1.items() if name != "devices"}
    asked = Resources(devices=[DENY_ALL])
    cgroup = manager(Layout(others, found.v2, None)).create(f"/ocirun-test-{uuid.uuid4().hex[:12]}", "x", asked)
    fd = os.open(cgroup.paths["dirs"]["unified"], os.O_RDONLY)
    try:
        count = len(bpf.attached(fd))
    finally:
        os.close(fd)
        cgroup.remove()

    assert count == 1
    with pytest.raises(Unsupported, match=r"no cgroup v1 hierarchy with the devices controller"):
        manager(Layout(others, None, None)).create(f"/ocirun-test-{uuid.uuid4().hex[:12]}", "x", asked)
