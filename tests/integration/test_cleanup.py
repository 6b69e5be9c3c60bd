"""What is left behind: nothing, after whatever end of a container, its client or its zygotes."""

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import pytest_ocirun
from pytest_ocirun.engine.engine import Engine
from pytest_ocirun.engine.request import Request
from pytest_ocirun.errors import OcirunError, ProtocolError, WrongStatus
from pytest_ocirun.oci.process import Process, Rlimit, User
from pytest_ocirun.oci.runtime import CPU, Config, Mount, Resources
from pytest_ocirun.runtime import state
from pytest_ocirun.runtime.cgroups.detect import layout
from pytest_ocirun.runtime.plan import exec_plan, surroundings
from pytest_ocirun.runtime.stdio import Stdio
from tests.boxes import LIMITS, PATH, Bare, confined
from tests.requires import lack, requires

pytestmark = [requires("userns", "overlay", "seccomp", "busybox"), pytest.mark.lane("v2")]

PACKAGE_PARENT = Path(pytest_ocirun.__file__).parents[1]

# A client: an engine below the given root with three containers, two with an exec in flight. It tells what it made.
CLIENT = """
import json, os, sys, threading, time
from pathlib import Path
sys.path.append({parent!r})
from pytest_ocirun.engine.engine import Engine
from pytest_ocirun.engine.request import Limits, Request
store, root, image, require = sys.argv[1:]
engine = Engine(store=Path(store), root=root, require=require)
request = Request(image=engine.image(image), limits=Limits(memory=1 << 28, pids=100, cpus=None, disk=1 << 24),
                  env={{"PATH": "/bin"}})
boxes = [engine.launch(request) for _number in range(3)]
for box in boxes[:2]:
    threading.Thread(target=box.exec, args=(["sh", "-c", "setsid sleep 600 & sleep 600"],), daemon=True).start()
time.sleep(0.2)
zygotes = [spawner._process.pid for spawner in engine._zygotes()]
print(json.dumps({{"zygotes": zygotes, "inits": [box.pid for box in boxes]}}), flush=True)
if {churn}:
    while True:
        with engine.launch(request) as box:
            box.exec(["true"])
time.sleep(600)
"""


def groups(part: str) -> list[str]:
    """The containers' cgroups whose name holds ``part``."""
    found = layout()
    tops = {*found.v1.values(), *([found.v2] if found.v2 else [])}
    return sorted(
        f"{top}/ocirun/{name}"
        for top in tops
        if os.path.isdir(f"{top}/ocirun")
        for name in os.listdir(f"{top}/ocirun")
        if part in name
    )


def until(condition: Callable[[], bool], what: str, seconds: float = 10) -> None:
    """Ask until it is so."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain: {what}"
        time.sleep(0.01)


def is_gone(pid: int) -> bool:
    """Whether a process has ended; one that nobody has reaped counts as ended."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except (FileNotFoundError, ProcessLookupError):
        return True
    return stat.rpartition(")")[2].split()[0] in "ZX"


def traces(bare: Bare, part: str) -> dict[str, Any]:
    """All that containers could leave: directories, cgroups, and of the zygote and of us fds, mounts, children."""
    process = bare.spawner._process
    assert process is not None
    pids = {"zygote": process.pid, "client": os.getpid()}
    return {
        "state": state.ids(str(bare.root)),
        "cgroups": groups(part),
        "fds": {who: len(os.listdir(f"/proc/{pid}/fd")) for who, pid in pids.items()},
        # Others make mounts of their own meanwhile, which a private namespace gets to see as well.
        "mounts": {
            who: [line for line in Path(f"/proc/{pid}/mountinfo").read_text().splitlines() if str(bare.root) in line]
            for who, pid in pids.items()
        },
        "children": Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text(encoding="ascii"),
    }


def settled(bare: Bare, part: str) -> dict[str, Any]:
    """The traces once the zygote has heard all that it was told."""
    time.sleep(0.1)
    return traces(bare, part)


def a_missing_root(config: Config) -> None:
    """There is no such root file system."""
    config.root.path = "/nowhere"


def a_missing_bind(config: Config) -> None:
    """A bind has no source."""
    config.mounts.append(Mount(destination="/mnt", type="bind", source="/nowhere", options=["ro"]))


def a_mount_below_a_file(config: Config) -> None:
    """The place of a mount cannot be made."""
    config.mounts.append(Mount(destination="/etc/passwd/x", type="tmpfs", source="tmpfs"))


def an_unknown_file_system(config: Config) -> None:
    """The kernel has no such file system."""
    config.mounts.append(Mount(destination="/mnt", type="nosuchfs", source="x"))


def a_wrong_mount_option(config: Config) -> None:
    """The file system refuses its option."""
    config.mounts.append(Mount(destination="/mnt", type="tmpfs", source="tmpfs", options=["nonsense=1"]))


def a_huge_limit(config: Config) -> None:
    """More files than the kernel has."""
    config.process.rlimits.append(Rlimit(type="RLIMIT_NOFILE", soft=2**40, hard=2**40))


def an_unmapped_user(config: Config) -> None:
    """An id that the container lacks."""
    config.process.user = User(uid=70000, gid=0)


def a_missing_program(config: Config) -> None:
    """Nothing to execute."""
    config.process.args = ["missing"]


def a_cwd_in_a_file(config: Config) -> None:
    """No place to start in."""
    config.process.cwd = "/etc/passwd/x"


def a_wrong_sysctl(config: Config) -> None:
    """The kernel refuses the value."""
    config.linux.sysctl["net.ipv4.ip_forward"] = "nonsense"


def a_wrong_overlay(config: Config) -> None:
    """The plan cannot be made."""
    config.annotations["org.ocirun.overlay"] = "size=much"


def a_tiny_quota(config: Config) -> None:
    """The cgroup cannot be limited so."""
    config.linux.resources = Resources(cpu=CPU(quota=1, period=100000))


BROKEN = [
    a_missing_root,
    a_missing_bind,
    a_mount_below_a_file,
    an_unknown_file_system,
    a_wrong_mount_option,
    a_huge_limit,
    an_unmapped_user,
    a_missing_program,
    a_cwd_in_a_file,
    a_wrong_sysctl,
    a_wrong_overlay,
    a_tiny_quota,
]


@pytest.mark.parametrize("spoil", BROKEN, ids=lambda spoil: spoil.__name__)
def test_a_create_that_fails_leaves_nothing(bare: Bare, busybox_rootfs: Path, spoil: Callable[[Config], None]) -> None:
    """Wherever a create fails, no directory, cgroup, mount, process or fd is left, and the next one works."""
    bare.run(confined(busybox_rootfs, "true"))
    part = f"bare-{os.getpid()}-"
    before = settled(bare, part)
    for _round in range(3):
        config = confined(busybox_rootfs, "true")
        spoil(config)
        with pytest.raises(OcirunError) as caught:
            bare.run(config)
        assert not getattr(caught.value, "__notes__", None)

    assert before == settled(bare, part)
    assert bare.run(confined(busybox_rootfs, "true")).end.code == 0


def test_fifty_rounds_leave_nothing(bare: Bare, busybox_rootfs: Path) -> None:
    """Containers, execs and failures of both leave no fd, mount or child in the zygote, nor in the client."""

    def one_round() -> None:
        with bare.holder(confined(busybox_rootfs)) as name:
            bare.exec(name, "true")
            with pytest.raises(OcirunError):
                bare.exec(name, "missing")
        with pytest.raises(OcirunError):
            bare.run(confined(busybox_rootfs, "missing"))

    part = f"bare-{os.getpid()}-"
    one_round()
    before = settled(bare, part)
    for _round in range(50):
        one_round()

    assert before == settled(bare, part)


def test_engine_rounds_leave_nothing(engine: Engine, busybox_tarball: Path) -> None:
    """The engine's containers ahead are bounded, and deleted ones leave no fd in the client."""
    request = Request(image=engine.image(str(busybox_tarball)), limits=LIMITS, env={"PATH": PATH})

    def rounds(count: int) -> int:
        for _round in range(count):
            with engine.launch(request) as box:
                box.exec(["cat"], input="x")
        time.sleep(0.3)
        engine._part(wait=True)
        return len(os.listdir("/proc/self/fd"))

    settled = rounds(6)

    assert abs(rounds(20) - settled) <= 2
    assert len([name for name in state.ids(engine._root) if name.startswith(f"pytest-{os.getpid()}-")]) <= 4


class Client:
    """A client in a process of its own.

    Args:
        folder: where its state root and store lie.
        tarball: its image.
        churn: whether it makes and deletes containers all the time.
    """

    def __init__(self, folder: Path, tarball: Path, *, churn: bool = False) -> None:
        self.root = folder / "state"
        require = "limits" if lack("cgroup") is None else "isolation"
        code = CLIENT.format(parent=str(PACKAGE_PARENT), churn=churn)
        self.process = subprocess.Popen(
            [sys.executable, "-c", code, str(folder / "store"), str(self.root), str(tarball), require],
            stdout=subprocess.PIPE,
        )
        assert self.process.stdout is not None
        made = json.loads(self.process.stdout.readline())
        self.zygotes: list[int] = made["zygotes"]
        self.inits: list[int] = made["inits"]

    def kill(self, *others: int) -> None:
        """SIGKILL it, and others at the same moment."""
        pids = [self.process.pid, *others]
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        self.process.wait()

    def close(self) -> None:
        """End what is still there."""
        self.process.kill()
        self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()
        until(lambda: all(map(is_gone, self.zygotes)), "zygotes end")


@pytest.fixture
def client(tmp_path: Path, busybox_tarball: Path) -> Iterator[Client]:
    """A client with three containers and two execs."""
    client = Client(tmp_path, busybox_tarball)
    yield client
    client.close()


def test_a_killed_client_leaves_nothing(client: Client) -> None:
    """After kill -9 of the client its zygotes end every process, remove every cgroup and directory, and end."""
    part = f"pytest-{client.process.pid}-"

    assert len(client.zygotes) >= 1
    assert lack("cgroup") is not None or groups(part)
    client.kill()
    until(lambda: all(map(is_gone, [*client.zygotes, *client.inits])), "processes end")
    assert (state.ids(str(client.root)), groups(part)) == ([], [])
    assert os.listdir(client.root / "@work") == []


def test_a_client_killed_with_its_zygotes(client: Client, tmp_path: Path) -> None:
    """Then the containers end with their zygote, and the next engine removes the rest (pdeathsig, sweep)."""
    part = f"pytest-{client.process.pid}-"
    client.kill(*client.zygotes)
    until(lambda: all(map(is_gone, client.inits)), "inits end")
    left = state.ids(str(client.root))
    engine = Engine(store=tmp_path / "store", root=str(client.root), require="isolation")
    try:
        assert len(left) >= 3
        assert (state.ids(str(client.root)), groups(part)) == ([], [])
    finally:
        engine.close()


@pytest.mark.parametrize("seed", range(6))
def test_a_client_killed_at_any_moment(tmp_path: Path, busybox_tarball: Path, seed: int) -> None:
    """Whatever it was doing: its zygotes and the next engine leave no process, cgroup or directory of it."""
    client = Client(tmp_path, busybox_tarball, churn=True)
    time.sleep(random.Random(seed).uniform(0, 0.15))
    part = f"pytest-{client.process.pid}-"
    client.kill()
    client.close()
    engine = Engine(store=tmp_path / "store", root=str(client.root), require="isolation")
    try:
        assert (state.ids(str(client.root)), groups(part)) == ([], [])
    finally:
        engine.close()


def test_a_client_that_goes_during_a_spawn(bare: Bare, busybox_rootfs: Path) -> None:
    """A zygote that cannot tell of a process any more ends it, and is there for the next."""
    name = bare.new_id()
    child = bare.create(confined(busybox_rootfs), name=name, holder=True)
    bare.runtime.start(name)
    record = bare.runtime.record(name)
    around = surroundings(name, record.cgroup, bare.spawner, Stdio(0, 0, 0))
    process = Process(args=["sleep", "66"], cwd="/", user=User(uid=0, gid=0), env=[f"PATH={PATH}"])
    null = os.open(os.devnull, os.O_RDWR)
    plan = exec_plan(process, record.config, record.init, around)
    plan["enter"] = [step for step in plan["enter"] if step[0] != "load_filter"]
    assert bare.spawner._process is not None
    bare.spawner._process.send_signal(signal.SIGSTOP)
    for _round in range(3):
        bare.spawner.spawn(plan, Stdio(null, null, null).slots()).close()
    bare.spawner._process.send_signal(signal.SIGCONT)
    os.close(null)

    assert bare.exec(name, "true").end.code == 0
    until(lambda: bare.exec(name, "sh", "-c", "cat /proc/[0-9]*/comm").out.count("sleep") == 0, "they end")
    bare.end(name, child)


@pytest.mark.parametrize("which", ["builder", "joiner"])
def test_a_killed_zygote_is_named(tmp_path: Path, busybox_tarball: Path, which: str) -> None:
    """When a zygote is killed, what needs it says so, nothing hangs, and closing leaves nothing."""
    require = "limits" if lack("cgroup") is None else "isolation"
    engine = Engine(store=tmp_path / "store", root=str(tmp_path / "state"), require=require)
    request = Request(image=engine.image(str(busybox_tarball)), limits=LIMITS, env={"PATH": PATH})
    try:
        box = engine.launch(request)
        assert box.exec(["true"]).ok
        zygote = (engine._joiner if which == "joiner" else engine._builders.first)._process
        alone = engine._joiner is not engine._builders.first
        assert zygote is not None
        zygote.kill()
        zygote.wait()
        with pytest.raises((ProtocolError, WrongStatus), match=r"zygote|stopped|ended"):
            until(lambda: box.exec(["true"]) is None, "the exec fails")
        if which == "builder" or not alone:
            with pytest.raises(ProtocolError, match="zygote"):
                engine.launch(request)
        else:
            assert engine.launch(request).poll() is None
    finally:
        engine.close()

    assert state.ids(str(tmp_path / "state")) == []
    assert groups(box.id) == []


def test_an_exec_whose_zygote_is_killed(tmp_path: Path, busybox_tarball: Path) -> None:
    """An exec in flight ends with its zygote, by an error that says so."""
    require = "limits" if lack("cgroup") is None else "isolation"
    engine = Engine(store=tmp_path / "store", root=str(tmp_path / "state"), require=require)
    try:
        request = Request(image=engine.image(str(busybox_tarball)), limits=LIMITS, env={"PATH": PATH})
        box = engine.launch(request)
        box.exec(["true"])
        assert engine._joiner._process is not None
        killer = threading.Timer(0.3, engine._joiner._process.kill)
        killer.start()
        with pytest.raises(ProtocolError, match="zygote"):
            box.exec(["sleep", "60"])
        killer.join()
    finally:
        engine.close()
