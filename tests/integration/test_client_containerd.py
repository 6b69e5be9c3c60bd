"""containerd's shim, driven by ctr, over ocirun and, as the control, over runc: nothing may differ."""

import contextlib
import glob
import itertools
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import clients
from tests.clients import Done, Scratch
from tests.requires import KERNEL, requires
from tests.terminals import User

pytestmark = requires("root", "cgroup", "seccomp", "overlay", "containerd")

IMAGE = "localhost/busybox:1"

# Neither the Kubernetes side nor anything outside the scratch directory.
_CONFIG = """
version = 2
root = "{path}/root"
state = "{path}/daemon"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
address = "{path}/c.sock"
[plugins."io.containerd.internal.v1.opt"]
path = "{path}/opt"
"""


class Containerd:
    """A daemon of its own, and ctr to talk to it.

    Args:
        here: where it keeps everything.
    """

    def __init__(self, here: Scratch) -> None:
        self.here = here
        (here.path / "config.toml").write_text(_CONFIG.format(path=here.path))
        with open(here.path / "log", "wb") as log:
            argv = ["containerd", "--config", str(here.path / "config.toml"), "--log-level", "warn"]
            self.daemon = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self._numbers = itertools.count(1)

    def ready(self) -> None:
        """Wait until the daemon answers."""
        deadline = time.monotonic() + 20
        while self("version").code != 0:
            log = (self.here.path / "log").read_text()
            assert self.daemon.poll() is None, log
            assert time.monotonic() < deadline, log
            time.sleep(0.05)

    def close(self) -> None:
        """End the daemon; the state root that its shims fall back on for a container that was never made goes too."""
        self.daemon.terminate()
        self.daemon.wait(20)
        shutil.rmtree(f"/run/containerd/runc/{self.here.cgroup[1:]}", ignore_errors=True)

    def command(self, *args: str) -> list[str]:
        """The argv. Containers' cgroups lie below one that is named as the namespace."""
        return ["ctr", "--address", f"{self.here.path}/c.sock", "--namespace", self.here.cgroup[1:], *args]

    def __call__(self, *args: str, input: str = "") -> Done:
        """Run ctr to its end."""
        return clients.run(self.command(*args), self.here.path, input=input)

    def ok(self, *args: str, input: str = "") -> str:
        """Run it, insist on success; what it printed."""
        done = self(*args, input=input)
        assert (done.code, done.err) == (0, ""), (self.here.path / "log").read_text()
        return done.out.strip()

    def new_id(self) -> str:
        """An id for a container or an exec."""
        return f"c{next(self._numbers)}"

    def options(self, *more: str) -> list[str]:
        """The options of ``run`` that name the runtime."""
        own = ("--runc-binary", self.here.runtime, "--runc-root", str(self.here.state))
        return [*own, "--fifo-dir", f"{self.here.path}/fifo", *more]

    def run(self, *args: str, options: tuple[str, ...] = (), input: str = "") -> Done:
        """Run a container to its end."""
        return self("run", "--rm", *self.options(*options), IMAGE, self.new_id(), *args, input=input)

    def shell(self, script: str, *options: str) -> str:
        """What a script prints in a container of its own."""
        done = self.run("sh", "-euc", script, options=options)
        assert (done.code, done.err) == (0, ""), done.err
        return done.out.strip()

    def exec(self, name: str, *args: str, options: tuple[str, ...] = (), input: str = "") -> Done:
        """Run one more process."""
        return self("task", "exec", *self.exec_options(), *options, name, *args, input=input)

    def exec_options(self) -> list[str]:
        """The options of every ``task exec``."""
        return ["--exec-id", self.new_id(), "--fifo-dir", f"{self.here.path}/fifo"]

    @contextlib.contextmanager
    def detached(self, *args: str, options: tuple[str, ...] = ()) -> Iterator[str]:
        """The id of a container in the background, removed afterwards."""
        name = self.new_id()
        self.ok("run", "--detach", *self.options(*options), IMAGE, name, *args)
        try:
            yield name
        finally:
            self("task", "rm", "--force", name)
            self.ok("container", "rm", name)

    def status(self, name: str) -> str:
        """A task's status."""
        rows = [line.split() for line in self.ok("task", "ls").split("\n")]
        return next(row[2] for row in rows if row[0] == name)

    def wait_for(self, name: str, status: str) -> None:
        """Wait until a task has that status."""
        deadline = time.monotonic() + 10
        while self.status(name) != status:
            assert time.monotonic() < deadline, f"{name} is still {self.status(name)}"
            time.sleep(0.02)

    def pids(self, name: str) -> list[int]:
        """The host's pids of a task."""
        return [int(line.split()[0]) for line in self.ok("task", "ps", name).split("\n")[1:]]


@pytest.fixture(scope="module", params=clients.RUNTIMES)
def containerd(request: pytest.FixtureRequest, busybox_tarball: Path) -> Iterator[Containerd]:
    """A daemon over one of the runtimes, with an image; it has no container left at the end."""
    with clients.scratch("containerd", request.param) as here:
        containerd = Containerd(here)
        try:
            containerd.ready()
            archive = clients.docker_archive(busybox_tarball, here.path / "image.tar", IMAGE)
            containerd("image", "import", str(archive))
            yield containerd
            assert containerd.ok("container", "ls", "--quiet") == ""
        finally:
            containerd.close()


@contextlib.contextmanager
def _at_terminal(containerd: Containerd, *args: str) -> Iterator[User]:
    user = User(containerd.command(*args), containerd.here.path)
    try:
        yield user
    finally:
        user.leave()


def _limit(name: str, v1: str, v2: str) -> str:
    """A file of a container's cgroup, whichever version that is."""
    paths = [*glob.glob(f"/sys/fs/cgroup/*/{name}/{v1}"), *glob.glob(f"/sys/fs/cgroup/{name}/{v2}")]
    return Path(paths[0]).read_text(encoding="ascii").strip()


def test_run_output_and_exit_status(containerd: Containerd) -> None:
    """Both outputs apart, and the status of the program."""
    assert containerd.run("sh", "-c", "echo out; echo err >&2; exit 5") == Done(5, "out\n", "err\n")


def test_run_of_what_cannot_be_run(containerd: Containerd) -> None:
    """The shim finds the runtime's words in its log, and leaves nothing of the container."""
    done = containerd.run("no-such")

    assert done.code == 1
    assert "OCI runtime" in done.err
    assert "executable file not found" in done.err


def test_run_stdin(containerd: Containerd) -> None:
    """Standard input arrives; but ctr may forget its end, if that comes before the container runs."""
    assert containerd.run("sh", "-c", "read x; echo got $x", input="word\n") == Done(0, "got word\n", "")


def test_run_terminal(containerd: Containerd) -> None:
    """The master of the container's own terminal reaches the shim by a socket; keys and sizes pass through it."""
    script = (
        "tty; echo ready >/dev/tty; read x; echo got $x; until stty size | grep '24 80'; do usleep 9999; done; exit 3"
    )
    options = containerd.options("--tty")
    with _at_terminal(containerd, "run", "--rm", *options, IMAGE, containerd.new_id(), "sh", "-c", script) as user:
        user.expect("/dev/pts/0")
        user.expect("ready")
        user.type("word\r")
        user.expect("got word")
        user.expect("24 80")
        code = user.end()

    assert code == 3


def test_run_environment_directory_mounts_and_read_only(containerd: Containerd, tmp_path: Path) -> None:
    """What a container is given, and a root that refuses to be written."""
    (tmp_path / "word").write_text("found\n")
    bind, closed = (
        f"type=bind,src={tmp_path},dst=/a,options=rbind:rw",
        f"type=bind,src={tmp_path},dst=/b,options=rbind:ro",
    )
    options = ("--env", "A=b", "--cwd", "/tmp", "--mount", bind, "--mount", closed, "--read-only")
    script = "echo $A $PWD; cat /b/word; touch /a/new; for f in /b/x /x; do touch $f 2>/dev/null || echo refused; done"

    assert containerd.shell(script, *options).split() == ["b", "/tmp", "found", "refused", "refused"]
    assert (tmp_path / "new").exists()


def test_run_limits(containerd: Containerd) -> None:
    """What was asked for is what the container's cgroup says."""
    options = ("--memory-limit", "67108864", "--cpus", "0.5", "--cpu-shares", "512")
    with containerd.detached("sleep", "100", options=options) as name:
        group = f"{containerd.here.cgroup[1:]}/{name}"
        memory = _limit(group, "memory.limit_in_bytes", "memory.max")
        quota = _limit(group, "cpu.cfs_quota_us", "cpu.max").split()[0]

    assert (memory, quota) == ("67108864", "50000")


def test_metrics(containerd: Containerd) -> None:
    """The shim reads its numbers in the cgroups that the runtime made."""
    for line in Path("/proc/self/cgroup").read_text(encoding="ascii").splitlines():
        _number, names, _path = line.split(":")
        if names and not glob.glob(f"/sys/fs/cgroup/{names.removeprefix('name=').split(',')[0]}"):
            pytest.skip(f"{KERNEL} a mount of its cgroup hierarchy {names}: the shim gives up then")
    with containerd.detached("sleep", "100") as name:
        metrics = containerd.ok("task", "metrics", name)

    assert any("pids" in line and line.split()[-1] == "1" for line in metrics.split("\n")), metrics


def test_run_seccomp(containerd: Containerd, tmp_path: Path) -> None:
    """Containerd's own profile, none, and one of the user's with an error number."""
    profile = tmp_path / "profile.json"
    rule = {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28}
    profile.write_text(json.dumps({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]}))
    mode = "grep ^Seccomp: /proc/self/status | cut -f2"
    denied = containerd.run("mkdir", "/x", options=("--seccomp", "--seccomp-profile", str(profile)))

    assert containerd.shell(mode, "--seccomp") == "2"
    assert containerd.shell(mode) == "0"
    assert (denied.code, "No space left on device" in denied.err) == (1, True)


def test_run_capabilities_and_no_new_privileges(containerd: Containerd) -> None:
    """Dropped and added, in the sets; the flag unless it is taken away."""
    script = "grep -E '^(CapEff|CapBnd|NoNewPrivs)' /proc/self/status | cut -f2"
    plain = containerd.shell(script).split()
    options = ("--cap-drop", "CAP_KILL", "--cap-add", "CAP_SYS_TIME", "--allow-new-privs")
    changed = containerd.shell(script, *options).split()

    assert plain[2:] == ["1"]
    assert changed[2:] == ["0"]
    assert [int(mask, 16) for mask in changed[:2]] == [int(mask, 16) & ~(1 << 5) | 1 << 25 for mask in plain[:2]]


def test_run_devices(containerd: Containerd) -> None:
    """A device of the host is there and may be used; others cannot be opened."""
    script = ": >/dev/kmsg; ls /dev/kmsg; mknod /made c 10 237; cat /made 2>&1 | grep -o 'not permitted'"

    assert containerd.shell(script, "--device", "/dev/kmsg").split("\n") == ["/dev/kmsg", "not permitted"]


def test_run_user_namespace(containerd: Containerd) -> None:
    """Id maps: root inside is a plain user outside, and the image's files are its own."""
    options = ("--uidmap", "0:200000:65536", "--gidmap", "0:300000:65536")

    found = containerd.shell("cat /proc/self/uid_map /proc/self/gid_map; stat -c %u:%g /etc/passwd; touch /x", *options)

    assert found.split() == ["0", "200000", "65536", "0", "300000", "65536", "0:0"]


def test_run_in_the_namespaces_of_another(containerd: Containerd) -> None:
    """Joined by path."""
    with containerd.detached("sleep", "100") as name:
        (pid,) = containerd.pids(name)
        options = [word for kind in ("network:net", "ipc:ipc") for word in _joined(pid, kind)]
        joined = containerd.shell("readlink /proc/self/ns/net; readlink /proc/self/ns/ipc", *options)
        theirs = [os.readlink(f"/proc/{pid}/ns/{kind}") for kind in ("net", "ipc")]

    assert joined.split() == theirs


def _joined(pid: int, kind: str) -> tuple[str, str]:
    name, _, file = kind.partition(":")
    return "--with-ns", f"{name}:/proc/{pid}/ns/{file}"


def test_run_of_a_plain_directory_with_a_pid_file(containerd: Containerd, busybox_rootfs: Path, tmp_path: Path) -> None:
    """A root file system that containerd did not make."""
    name = containerd.new_id()
    options = containerd.options("--rootfs", "--read-only", "--env", "PATH=/bin", "--pid-file", f"{tmp_path}/pid")
    done = containerd("run", "--rm", *options, str(busybox_rootfs), name, "sh", "-c", "echo $$; hostname")

    assert (done.code, done.err) == (0, "")
    assert done.out.split()[0] == "1"
    assert int((tmp_path / "pid").read_text()) > 1


def test_detached_list_and_ps(containerd: Containerd) -> None:
    """What containerd and the runtime say about a running container."""
    with containerd.detached("sh", "-c", "sleep 100 & wait") as name:
        status = containerd.status(name)
        deadline = time.monotonic() + 10
        while len(pids := containerd.pids(name)) < 2:
            assert time.monotonic() < deadline, pids
        commands = [Path(f"/proc/{pid}/cmdline").read_text().split("\0")[0] for pid in pids]

    assert status == "RUNNING"
    assert sorted(commands) == ["sh", "sleep"]


def test_exec(containerd: Containerd) -> None:
    """Output, status, input, user and directory of one more process; what cannot be run; detached."""
    with containerd.detached("sleep", "100") as name:
        done = containerd.exec(name, "sh", "-c", "echo out; echo err >&2; exit 9")
        read = containerd.exec(name, "sh", "-c", "read x; echo got $x", input="word\n")
        given = containerd.exec(name, "sh", "-c", "id -u; echo $PWD", options=("--user", "1000", "--cwd", "/tmp"))
        missing = containerd.exec(name, "no-such")
        detached = containerd.exec(name, "sleep", "50", options=("--detach",))
        pids = containerd.pids(name)

    assert done == Done(9, "out\n", "err\n")
    assert read == Done(0, "got word\n", "")
    assert given == Done(0, "1000\n/tmp\n", "")
    assert (missing.code, "executable file not found" in missing.err) == (1, True)
    assert (detached.code, detached.err, len(pids)) == (0, "", 2)


def test_exec_terminal(containerd: Containerd) -> None:
    """A terminal of its own, in a container that has none."""
    script = "tty; read x; echo got $x; exit 4"
    with containerd.detached("sleep", "100") as name:
        words = ("task", "exec", "--tty", *containerd.exec_options(), name, "sh", "-c", script)
        with _at_terminal(containerd, *words) as user:
            user.expect("/dev/pts/0")
            user.type("word\r")
            user.expect("got word")
            code = user.end()

    assert code == 4


def test_pause_and_resume(containerd: Containerd, tmp_path: Path) -> None:
    """A paused container does not run, takes no exec, and goes on afterwards."""
    file = tmp_path / "ticks"
    mount = f"type=bind,src={tmp_path},dst=/out,options=rbind:rw"
    ticking = ("sh", "-c", "while :; do echo tick >>/out/ticks; usleep 10000; done")
    with containerd.detached(*ticking, options=("--mount", mount)) as name:
        _grown(file, 0)
        containerd.ok("task", "pause", name)
        status, before = containerd.status(name), file.stat().st_size
        refused = containerd.exec(name, "true").code
        time.sleep(0.1)
        after = file.stat().st_size
        containerd.ok("task", "resume", name)
        _grown(file, after)

    assert (status, refused, before) == ("PAUSED", 1, after)


def _grown(file: Path, size: int) -> None:
    deadline = time.monotonic() + 10
    while not file.exists() or file.stat().st_size <= size:
        assert time.monotonic() < deadline, f"{file} does not grow"
        time.sleep(0.01)


def test_kill_and_exit_status(containerd: Containerd) -> None:
    """Signals by name; the status of what has ended; all processes at once."""
    with containerd.detached("sh", "-c", "trap 'exit 6' USR1; sleep 100 & wait") as polite:
        deadline = time.monotonic() + 10
        while len(containerd.pids(polite)) < 2:
            assert time.monotonic() < deadline
        containerd.ok("task", "kill", "--signal", "SIGUSR1", polite)
        containerd.wait_for(polite, "STOPPED")
        code = containerd("task", "rm", polite).err
    with containerd.detached("sh", "-c", "trap '' TERM; sleep 100 & wait; sleep 100") as deaf:
        containerd.ok("task", "kill", "--signal", "TERM", deaf)
        containerd.ok("task", "kill", "--all", "--signal", "KILL", deaf)
        containerd.wait_for(deaf, "STOPPED")
        killed = containerd("task", "rm", deaf).err

    assert "non-zero exit code 6" in code
    assert "non-zero exit code 137" in killed
