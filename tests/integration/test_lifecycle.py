"""The life cycle of a container: create, start, exec, kill, delete, and every wrong order of them."""

import os
import signal
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from pytest_ocirun.engine.result import Exit
from pytest_ocirun.errors import ConfigError, ContainerExists, ContainerNotFound, KernelRefused, WrongStatus
from pytest_ocirun.runtime import state
from pytest_ocirun.runtime.stdio import Stdio
from tests.boxes import Bare, confined
from tests.requires import requires

pytestmark = [requires("userns", "overlay", "seccomp", "busybox"), pytest.mark.lane("v2")]


def test_statuses_in_order(bare: Bare, busybox_rootfs: Path) -> None:
    """Created, running, stopped, gone; the state document says so each time, with a pid while there is one."""
    name = bare.new_id()
    child = bare.create(confined(busybox_rootfs, "sleep", "60"), name=name)
    states = [bare.runtime.state(name)]
    bare.runtime.start(name)
    states.append(bare.runtime.state(name))
    bare.runtime.kill(name, signal.SIGKILL)
    end = Exit.from_status(child.wait())
    states.append(bare.runtime.state(name))
    bare.end(name, child)

    assert [each["status"] for each in states] == ["created", "running", "stopped"]
    assert [each["pid"] for each in states] == [child.pid, child.pid, 0]
    assert end.signal == signal.SIGKILL
    with pytest.raises(ContainerNotFound, match=name):
        bare.runtime.state(name)


def test_state_is_the_specifications(bare: Bare, busybox_rootfs: Path) -> None:
    """The document has the members that the runtime specification asks for, and when and where it was made."""
    before = datetime.now(UTC)
    with bare.holder(confined(busybox_rootfs, annotations={"a.b": "c"})) as name:
        seen = bare.runtime.state(name)

    assert {key: seen[key] for key in ("id", "status", "bundle")} == {
        "id": name,
        "status": "running",
        "bundle": str(bare.root),
    }
    assert seen["ociVersion"].startswith("1.")
    assert seen["annotations"]["a.b"] == "c"
    assert seen["rootfs"] == str(busybox_rootfs)
    assert before <= datetime.fromisoformat(seen["created"]) <= datetime.now(UTC)


def test_an_id_can_be_taken_once(bare: Bare, busybox_rootfs: Path) -> None:
    """A second create is refused and leaves the first container unharmed."""
    with bare.holder(confined(busybox_rootfs)) as name:
        with pytest.raises(ContainerExists, match=f"{name}: container with given ID already exists"):
            bare.create(confined(busybox_rootfs), name=name)

        assert bare.exec(name, "echo", "unharmed").out == "unharmed\n"
        assert bare.runtime.state(name)["status"] == "running"


def test_an_id_is_free_after_delete(bare: Bare, busybox_rootfs: Path) -> None:
    """The same id can be used again at once."""
    name = bare.new_id()
    for _round in range(3):
        child = bare.create(confined(busybox_rootfs), name=name)
        bare.end(name, child)


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a b", "a\0b", "é", "a" * 1025, "@work", "../x"])
def test_ids_that_could_be_paths_are_refused(bare: Bare, busybox_rootfs: Path, name: str) -> None:
    """An id becomes a file name; what is none is refused before anything is made."""
    with pytest.raises(ConfigError, match="invalid container id"):
        bare.runtime.create(name, "/", confined(busybox_rootfs), Stdio(0, 1, 2))
    with pytest.raises(ConfigError, match="invalid container id"):
        bare.runtime.state(name)


def test_start_happens_once(bare: Bare, busybox_rootfs: Path) -> None:
    """A running container cannot be started, nor a stopped one."""
    name = bare.new_id()
    child = bare.create(confined(busybox_rootfs, "sleep", "60"), name=name)
    try:
        bare.runtime.start(name)
        with pytest.raises(WrongStatus, match="it is running, not created"):
            bare.runtime.start(name)
        child.kill()
        child.wait()
        with pytest.raises(WrongStatus, match="it is stopped, not created"):
            bare.runtime.start(name)
    finally:
        bare.end(name, child)


def test_start_after_the_init_was_killed(bare: Bare, busybox_rootfs: Path) -> None:
    """A created container whose init is dead is stopped: start and exec say so, delete works."""
    name = bare.new_id()
    child = bare.create(confined(busybox_rootfs), name=name)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()

    for use in (lambda: bare.runtime.start(name), lambda: bare.exec(name, "true")):
        with pytest.raises(WrongStatus, match="it is stopped"):
            use()
    with pytest.raises(WrongStatus, match="not running"):
        bare.runtime.kill(name, signal.SIGTERM)
    bare.runtime.delete(name)
    child.close()


def test_start_races_with_the_death_of_the_init(bare: Bare, busybox_rootfs: Path) -> None:
    """Whenever the init is killed during a start, that ends soon, in success or in WrongStatus."""
    for delay in range(8):
        name = bare.new_id()
        child = bare.create(confined(busybox_rootfs, "sleep", "60"), name=name)
        killer = threading.Timer(delay * 0.0005, child.kill)
        killer.start()
        try:
            bare.runtime.start(name)
        except WrongStatus:
            pass
        finally:
            killer.join()
            bare.end(name, child)


def test_a_running_container_is_deleted_only_by_force(bare: Bare, busybox_rootfs: Path) -> None:
    """Delete refuses and does nothing; with force the container ends."""
    name = bare.new_id()
    child = bare.create(confined(busybox_rootfs), name=name, holder=True)
    bare.runtime.start(name)
    with pytest.raises(WrongStatus, match="it is running"):
        bare.runtime.delete(name)

    assert bare.exec(name, "echo", "alive").out == "alive\n"
    bare.runtime.delete(name, force=True)
    assert Exit.from_status(child.wait()).signal == signal.SIGKILL
    child.close()


def test_a_created_container_is_deleted_without_force(bare: Bare, busybox_rootfs: Path) -> None:
    """Its program never ran, so nothing is lost."""
    name = bare.new_id()
    child = bare.create(confined(busybox_rootfs), name=name)
    bare.runtime.delete(name)

    assert Exit.from_status(child.wait()).signal == signal.SIGKILL
    assert name not in state.ids(str(bare.root))
    child.close()


def test_what_does_not_exist(bare: Bare) -> None:
    """Every operation on an unknown id says that there is no such container."""
    for use in (
        bare.runtime.start,
        bare.runtime.state,
        bare.runtime.delete,
        lambda name: bare.runtime.kill(name, 15),
        lambda name: bare.exec(name, "true"),
    ):
        with pytest.raises(ContainerNotFound, match="no container nobody below"):
            use("nobody")


def test_exec_in_a_created_container(bare: Bare, busybox_rootfs: Path) -> None:
    """Exec works before the start, and does not start it."""
    name = bare.new_id()
    child = bare.create(confined(busybox_rootfs, "sleep", "60"), name=name)
    try:
        ran = bare.exec(name, "sh", "-c", "cat /proc/1/comm; hostname")

        assert (ran.end.code, ran.out.split()[1]) == (0, "ocirun")
        assert bare.runtime.state(name)["status"] == "created"
        bare.runtime.start(name)
        assert bare.runtime.state(name)["status"] == "running"
    finally:
        bare.end(name, child)


@pytest.mark.parametrize("status", [0, 1, 42, 127, 255])
def test_exit_statuses(bare: Bare, busybox_rootfs: Path, status: int) -> None:
    """The exit status of a container's program arrives, and that of an exec."""
    config = confined(busybox_rootfs, "sh", "-c", f"exit {status}")
    with bare.holder(confined(busybox_rootfs)) as name:
        assert bare.exec(name, "sh", "-c", f"exit {status}").end == Exit(status, None)
    assert bare.run(config).end == Exit(status, None)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGSEGV, signal.SIGUSR1])
def test_ends_by_signal(bare: Bare, busybox_rootfs: Path, number: int) -> None:
    """A signal that ended an exec is told as such, not as 128 + N."""
    with bare.holder(confined(busybox_rootfs)) as name:
        assert bare.exec(name, "sh", "-c", f"kill -{int(number)} $$").end == Exit(None, number)


def test_kill_sends_the_signal(bare: Bare, busybox_rootfs: Path) -> None:
    """A signal that pid 1 handles reaches it; one that it does not is ignored, as pid namespaces have it."""
    config = confined(busybox_rootfs, "sh", "-c", "trap 'exit 7' TERM; touch /tmp/ready; while :; do sleep 0.01; done")
    name = bare.new_id()
    child = bare.create(config, name=name)
    try:
        bare.runtime.start(name)
        for _try in range(500):
            if bare.exec(name, "test", "-e", "/tmp/ready").end.code == 0:
                break
        bare.runtime.kill(name, signal.SIGUSR1)
        bare.runtime.kill(name, signal.SIGTERM)

        assert Exit.from_status(child.wait()).code == 7
    finally:
        bare.end(name, child)


def test_an_init_that_ends_at_once(bare: Bare, busybox_rootfs: Path) -> None:
    """Start succeeds, the status is stopped, the exit status is there."""
    name = bare.new_id()
    child = bare.create(confined(busybox_rootfs, "true"), name=name)
    bare.runtime.start(name)

    assert Exit.from_status(child.wait()).code == 0
    assert bare.runtime.state(name)["status"] == "stopped"
    bare.runtime.delete(name)
    child.close()


@pytest.mark.parametrize(
    "args, match",
    [
        (["missing"], "executable file not found in .PATH"),
        (["/bin/missing"], "No such file"),
        (["/etc"], "Permission denied: it is a directory"),
        (["/etc/passwd"], "Permission denied"),
        (["/garbage"], "Exec format error"),
        (["/no-interpreter"], "No such file"),
    ],
)
def test_programs_that_cannot_run(bare: Bare, rootfs: Path, args: list[str], match: str) -> None:
    """What is no program is an error that names it, of create or start as of exec."""
    for name, content in (("garbage", "\x7fELFgarbage"), ("no-interpreter", "#!/missing/sh\n")):
        (rootfs / name).write_text(content, encoding="latin-1")
        (rootfs / name).chmod(0o755)
    with pytest.raises(KernelRefused, match=match):
        bare.run(confined(rootfs, *args))
    with bare.holder(confined(rootfs)) as name:
        with pytest.raises(KernelRefused, match=match):
            bare.exec(name, *args)
        assert bare.exec(name, "echo", "still").out == "still\n"


def test_a_program_without_x_bit_in_the_path_is_passed_over(bare: Bare, rootfs: Path) -> None:
    """As execvp does: a file that cannot be executed does not hide a later one that can."""
    (rootfs / "first").mkdir()
    (rootfs / "first/true").touch()
    config = confined(rootfs, "true")
    config.process.env = ["PATH=/missing:/first:/bin"]

    assert bare.run(config).end.code == 0


def test_killing_the_init_ends_its_execs(bare: Bare, busybox_rootfs: Path) -> None:
    """Everything in the pid namespace ends with pid 1, also what was exec'ed."""
    name = bare.new_id()
    child = bare.create(confined(busybox_rootfs), name=name, holder=True)
    bare.runtime.start(name)
    ends: list[Exit] = []
    threads = [
        threading.Thread(
            target=lambda: ends.append(bare.exec(name, "sh", "-c", "setsid sleep 60 & sleep 60; true").end)
        )
        for _index in range(4)
    ]
    for thread in threads:
        thread.start()
    until(lambda: len(processes_of(bare, name)) >= 1 + 4 * 3)
    child.kill()
    for thread in threads:
        thread.join(10)
    bare.end(name, child)

    assert ends == [Exit(None, signal.SIGKILL)] * 4


def until(condition: Callable[[], bool], seconds: float = 10) -> None:
    """Ask until it is so."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def processes_of(bare: Bare, name: str) -> list[int]:
    """The host's pids of everything in the container's pid namespace."""
    found = []
    namespace = os.readlink(f"/proc/{bare.runtime.state(name)['pid']}/ns/pid")
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            if os.readlink(f"/proc/{pid}/ns/pid") == namespace:
                found.append(int(pid))
        except OSError:
            continue
    return found


def test_ten_threads_create_one_id(bare: Bare, busybox_rootfs: Path) -> None:
    """One of them gets it, the others are told; afterwards nothing is left."""
    name = bare.new_id()
    barrier = threading.Barrier(10)
    outcomes: list[str] = []

    def attempt() -> None:
        barrier.wait()
        try:
            child = bare.create(confined(busybox_rootfs), name=name)
        except ContainerExists:
            outcomes.append("exists")
        else:
            outcomes.append("created")
            child.close()

    run_all([attempt] * 10)
    bare.runtime.delete(name, force=True)

    assert Counter(outcomes) == {"created": 1, "exists": 9}


def test_many_threads_work_on_one_id(bare: Bare, busybox_rootfs: Path) -> None:
    """Creating, starting, looking, killing and deleting at once ends in plain answers, and in nothing left behind."""
    name = bare.new_id()
    unexpected: list[BaseException] = []
    deadline = time.monotonic() + 2

    def keep_on(use: Callable[[], object]) -> Callable[[], None]:
        def loop() -> None:
            while time.monotonic() < deadline:
                try:
                    use()
                except (ContainerExists, ContainerNotFound, WrongStatus):
                    pass
                except BaseException as error:  # noqa: BLE001 - whatever else it is, it must not be
                    unexpected.append(error)

        return loop

    def create() -> None:
        bare.create(confined(busybox_rootfs, "sleep", "60"), name=name).close()

    run_all(
        [
            *[keep_on(create)] * 3,
            *[keep_on(lambda: bare.runtime.start(name))] * 2,
            keep_on(lambda: bare.runtime.state(name)),
            keep_on(lambda: bare.runtime.kill(name, signal.SIGKILL)),
            keep_on(lambda: bare.exec(name, "true")),
            *[keep_on(lambda: bare.runtime.delete(name, force=True))] * 2,
        ]
    )
    try:
        bare.runtime.delete(name, force=True)
    except ContainerNotFound:
        pass

    assert not unexpected, "".join(traceback.format_exception(unexpected[0]))
    assert name not in state.ids(str(bare.root))


def run_all(targets: list[Callable[[], None]]) -> None:
    """Run each in a thread of its own, to the end."""
    threads = [threading.Thread(target=target) for target in targets]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
