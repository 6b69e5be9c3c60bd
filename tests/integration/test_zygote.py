"""The zygote under every Python that may run it, and what it is while it runs."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import pytest_ocirun
from pytest_ocirun.errors import OcirunError, ProtocolError
from pytest_ocirun.oci.codec import dump
from pytest_ocirun.runtime.spawner import ZygoteClient
from tests.boxes import Bare, confined
from tests.requires import lack, requires

pytestmark = [requires("userns", "overlay", "seccomp", "busybox"), pytest.mark.lane("v2")]

PACKAGE_PARENT = Path(pytest_ocirun.__file__).parents[1]

# A container's life by the runtime alone: create, start, execs, a failure, delete; thrice. The filter comes compiled.
LIFE = """
import os, sys
sys.path.append({parent!r})
from pytest_ocirun.errors import KernelRefused
from pytest_ocirun.oci.process import Process, User
from pytest_ocirun.oci.runtime import load_config
from pytest_ocirun.runtime.container import Runtime
from pytest_ocirun.runtime.spawner import ZygoteClient
from pytest_ocirun.runtime.stdio import Stdio
root, file, no_cgroup = sys.argv[1:]
with open(file, "rb") as opened:
    config = load_config(opened.read())
spawner = ZygoteClient(root)
runtime = Runtime(spawner, root)
null = os.open("/dev/null", os.O_RDWR)
for turn in range(3):
    name = f"life-{{os.getpid()}}-{{turn}}"
    child = runtime.create(name, root, config, Stdio(null, null, null), holder=True, without_cgroup=bool(no_cgroup))
    runtime.start(name)
    for args, expected in ((["true"], 0), (["sh", "-c", "exit 7"], 7), (["missing"], None)):
        read, write = os.pipe()
        process = Process(args=args, cwd="/", user=User(uid=0, gid=0), env=["PATH=/bin"], no_new_privileges=True)
        joined, _tree = runtime.exec(name, process, Stdio(null, write, write))
        os.close(write)
        try:
            code = os.waitstatus_to_exitcode(joined.wait())
        except KernelRefused as error:
            code = None
        assert code == expected, (args, code)
        os.close(read)
        joined.close()
    runtime.delete(name, force=True)
    child.wait()
    child.close()
spawner.close()
print("lived", sys.version_info[:2])
"""


def interpreters() -> list[str]:
    """The Pythons of this machine that the package supports."""
    found = {f"{sys.version_info[0]}.{sys.version_info[1]}": sys.executable}
    folders = [Path(name) for name in os.environ.get("PATH", "").split(":")]
    folders += sorted(Path.home().glob(".pyenv/versions/*/bin"), reverse=True)
    for minor in (11, 12, 13, 14):
        for folder in folders:
            path = folder / f"python3.{minor}"
            if path.is_file() and "shims" not in path.parts:
                found.setdefault(f"3.{minor}", str(path))
    return sorted(found.values())


@pytest.mark.parametrize("python", interpreters(), ids=lambda path: Path(path).resolve().name)
def test_a_life_under_every_python(bare: Bare, busybox_rootfs: Path, tmp_path: Path, python: str) -> None:
    """Clone3 by hand, without glibc and CPython knowing, works in each interpreter that is here."""
    config = confined(busybox_rootfs)
    config.linux.seccomp = None
    (tmp_path / "config.json").write_bytes(dump(config))
    code = LIFE.format(parent=str(PACKAGE_PARENT))
    args = [str(tmp_path / "state"), str(tmp_path / "config.json"), "yes" if lack("cgroup") is not None else ""]
    done = subprocess.run(
        [python, "-I", "-S", "-c", code, *args], capture_output=True, text=True, timeout=60, check=False
    )

    assert done.stderr == ""
    assert done.stdout.startswith("lived (3, ")


def zygote_of(bare: Bare) -> int:
    """Its pid."""
    process = bare.spawner._process
    assert process is not None
    return process.pid


def test_it_is_single_threaded_and_small(bare: Bare, busybox_rootfs: Path) -> None:
    """One thread, and less memory of its own than ten containers may cost."""
    bare.run(confined(busybox_rootfs))
    seen = Path(f"/proc/{zygote_of(bare)}/status").read_text(encoding="ascii")

    assert re.search(r"^Threads:\t1$", seen, re.MULTILINE)
    assert int(re.findall(r"^RssAnon:\s+(\d+)", seen, re.MULTILINE)[0]) < 12000


def test_it_takes_nothing_from_the_client(bare: Bare, busybox_rootfs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No variable, no fd but its socket's, no directory, no session of the client's."""
    monkeypatch.setenv("OCIRUN_CANARY", "secret")
    held = os.open("/etc/passwd", os.O_RDONLY)
    os.set_inheritable(held, True)
    client = ZygoteClient(str(bare.root))
    client.start()
    try:
        client.forget("nobody")
        assert client._process is not None
        pid = client._process.pid
        links = [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")]
        environment = Path(f"/proc/{pid}/environ").read_bytes()
        session = os.getsid(pid)
        folder = os.readlink(f"/proc/{pid}/cwd")
    finally:
        client.close()
        os.close(held)

    assert [
        link for link in links if not re.match(r"/dev/null|socket:|anon_inode:|/.*/@work/(holder|runner) ", link)
    ] == []
    assert b"secret" not in environment
    assert session == pid
    assert folder != os.getcwd()


def test_it_survives_a_terminals_signals(bare: Bare, busybox_rootfs: Path) -> None:
    """^C in the client's terminal reaches the client's group only: the zygote is in a session of its own."""
    assert os.getpgid(zygote_of(bare)) != os.getpgid(0)
    assert bare.run(confined(busybox_rootfs)).end.code == 0


def test_closing_is_final(bare: Bare, busybox_rootfs: Path) -> None:
    """After close the process is gone, and a use of the client is an error, not a new zygote."""
    client = ZygoteClient(str(bare.root))
    client.start()
    client.forget("nobody")
    process = client._process
    assert process is not None
    client.close()
    client.close()

    assert process.poll() == 0
    with pytest.raises(ProtocolError, match="it was closed"):
        client.remove("nobody")


def test_a_stage_that_cannot_be_had_is_explained(tmp_path: Path) -> None:
    """A zygote that cannot begin says why, with the fix, through the first use."""
    file = tmp_path / "file"
    file.touch()
    client = ZygoteClient(str(file))
    client.start()
    try:
        with pytest.raises(OcirunError, match="start the zygote"):
            client.remove("nobody")
    finally:
        client.close()


def test_it_reaps_what_it_made(bare: Bare, busybox_rootfs: Path) -> None:
    """No zombie stays, neither of inits nor of execs nor of what failed on its way."""
    for _round in range(5):
        with bare.holder(confined(busybox_rootfs)) as name:
            for args in (["true"], ["missing"], ["sh", "-c", "setsid sleep 0.01 & true"]):
                try:
                    bare.exec(name, *args)
                except OcirunError:
                    continue
    time.sleep(0.1)
    pid = zygote_of(bare)

    assert Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii") == ""


def test_a_stopped_client_stops_nothing(bare: Bare, busybox_rootfs: Path) -> None:
    """A child whose end nobody reads does not block the zygote: the next spawn works."""
    children = []
    for _number in range(20):
        name = bare.new_id()
        child = bare.create(confined(busybox_rootfs, "true"), name=name)
        bare.runtime.start(name)
        children.append((name, child))
    assert bare.run(confined(busybox_rootfs)).end.code == 0
    for name, child in children:
        bare.end(name, child)


def test_signals_of_the_client_are_not_inherited(bare: Bare, busybox_rootfs: Path) -> None:
    """What the client ignores or blocks is default in a container."""
    previous = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1, signal.SIGCHLD})
    try:
        client = ZygoteClient(str(bare.root))
        client.start()
        other = Bare(bare.root)
        try:
            seen = other.run(confined(busybox_rootfs, "cat", "/proc/self/status")).out
        finally:
            other.close()
            client.close()
    finally:
        signal.signal(signal.SIGTERM, previous)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    assert re.findall(r"^Sig(?:Blk|Ign):\t(\w+)$", seen, re.MULTILINE) == ["0" * 16] * 2


def test_it_loads_what_it_needs_and_no_more() -> None:
    """Nothing of the images, the engine, pytest or another heavy package is in it."""
    code = (
        f"import sys; sys.path.append({str(PACKAGE_PARENT)!r}); from pytest_ocirun.runtime import zygote;"
        "print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True)
    modules = set(done.stdout.split())
    heavy = ("typing", "re", "enum", "json", "subprocess", "dataclasses", "pathlib", "logging", "pytest", "pyseccomp")
    above = ("engine", "images", "plugin", "agent", "cli")

    assert modules.isdisjoint(heavy), modules
    assert modules.isdisjoint(f"pytest_ocirun.{name}" for name in above), modules
