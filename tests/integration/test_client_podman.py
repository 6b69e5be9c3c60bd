"""podman and conmon, which know nothing of ocirun, over ocirun and, as the control, over runc: nothing may differ."""

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests import clients
from tests.clients import Done, Scratch
from tests.requires import SBIN_PATH, requires
from tests.terminals import User

pytestmark = requires("root", "cgroup", "seccomp", "overlay", "podman", "conmon")

IMAGE = "localhost/busybox:1"
_OF_CGROUP = "/sys/fs/cgroup"

# The limits are those that root may set without CAP_SYS_RESOURCE: podman's own defaults are higher.
_CONTAINERS_CONF = """
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
netns = "none"
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
lock_type = "file"
tmp_dir = "{path}/tmp"
volume_path = "{path}/volumes"
hooks_dir = ["{path}/hooks"]
"""


class Podman:
    """podman with a store, run root and configuration of its own.

    Args:
        here: where it keeps them.
    """

    def __init__(self, here: Scratch) -> None:
        self.here = here
        # Not --runtime-flag: the podman that conmon starts to clean up does not get it.
        self.runtime = here.path / "with-root"
        self.runtime.write_text(f'#!/bin/sh\nexec {here.runtime} --root {here.state} "$@"\n')
        self.runtime.chmod(0o755)
        for folder in ("home", "hooks", "runtime"):
            (here.path / folder).mkdir()
        (here.path / "containers.conf").write_text(_CONTAINERS_CONF.format(path=here.path))
        self.env = {
            "PATH": SBIN_PATH,
            "HOME": str(here.path / "home"),
            "XDG_RUNTIME_DIR": str(here.path / "runtime"),
            "CONTAINERS_CONF": str(here.path / "containers.conf"),
        }

    def command(self, verb: str, *args: str) -> list[str]:
        """The argv."""
        # What builds is put into the parent itself, and cgroup v1 takes no device rules beside children.
        parent = f"{self.here.cgroup}/build" if verb == "build" else self.here.cgroup
        own = ["--cgroup-parent", parent] if verb in {"run", "create", "build"} else []
        path = self.here.path
        store = ["--root", f"{path}/store", "--runroot", f"{path}/run", "--storage-driver", "overlay"]
        return ["podman", *store, "--runtime", str(self.runtime), verb, *own, *args]

    def __call__(self, verb: str, *args: str, input: str = "") -> Done:
        """Run it to its end."""
        return clients.run(self.command(verb, *args), self.here.path, input=input, env=self.env)

    def ok(self, verb: str, *args: str, input: str = "") -> str:
        """Run it, insist on success; what it printed."""
        done = self(verb, *args, input=input)
        assert (done.code, done.err) == (0, ""), done.err
        return done.out.strip()

    def shell(self, script: str, *options: str) -> str:
        """What a script prints in a container of its own."""
        return self.ok("run", "--rm", *options, IMAGE, "sh", "-euc", script)

    @contextmanager
    def detached(self, *args: str, options: tuple[str, ...] = ()) -> Iterator[str]:
        """The id of a container in the background, removed afterwards."""
        name = self.ok("run", "--detach", *options, IMAGE, *args)
        try:
            yield name
        finally:
            self.ok("rm", "--force", "--time", "0", name)

    def inspect(self, name: str, field: str) -> str:
        """One field of a container's description."""
        return self.ok("container", "inspect", "--format", f"{{{{.{field}}}}}", name)

    def wait_for_log(self, name: str, text: str) -> str:
        """Wait until a container has written ``text``; all that it has written."""
        deadline = time.monotonic() + 10
        while text not in (log := self.ok("logs", name)):
            assert time.monotonic() < deadline, f"{text!r} is not in {log!r}"
            time.sleep(0.05)
        return log


@pytest.fixture(scope="module", params=clients.RUNTIMES)
def podman(request: pytest.FixtureRequest, busybox_tarball: Path) -> Iterator[Podman]:
    """Podman over one of the runtimes, with an image; it has no container left at the end."""
    with clients.scratch("podman", request.param) as here:
        podman = Podman(here)
        podman("import", "--quiet", str(busybox_tarball), IMAGE)
        yield podman
        assert podman.ok("ps", "--all", "--quiet") == ""


@contextmanager
def _at_terminal(podman: Podman, verb: str, *args: str) -> Iterator[User]:
    user = User(podman.command(verb, "--interactive", "--tty", *args), podman.here.path, env=podman.env)
    try:
        yield user
    finally:
        user.leave()


def _limit(v1: str, v2: str) -> str:
    """A script that prints a file of the container's own cgroup, whichever version that is."""
    return f"cat {_OF_CGROUP}/{v1} 2>/dev/null || cat {_OF_CGROUP}/{v2}"


def test_the_runtime_is_ours(podman: Podman) -> None:
    """What is tested is what was asked for, with the version that podman reads out of ``--version``."""
    found = json.loads(podman.ok("info", "--format", "{{json .Host.OCIRuntime}}"))

    assert found["path"] == str(podman.runtime)
    assert " version " in found["version"]
    assert "spec: 1." in found["version"]


def test_run_output_and_exit_status(podman: Podman) -> None:
    """Both outputs apart, and the status of the program."""
    done = podman("run", "--rm", IMAGE, "sh", "-c", "echo out; echo err >&2; exit 7")

    assert done == Done(7, "out\n", "err\n")


@pytest.mark.parametrize("program, code", [("/no/such", 127), ("no-such", 127), ("/etc/passwd", 126), ("/etc", 126)])
def test_run_of_what_cannot_be_run(podman: Podman, program: str, code: int) -> None:
    """Podman reads in the runtime's words whether a program is missing or may not be run."""
    done = podman("run", "--rm", IMAGE, program)

    assert done.code == code
    assert "OCI" in done.err
    assert "Traceback" not in done.err


def test_run_stdin(podman: Podman) -> None:
    """Standard input arrives, and so does its end."""
    assert podman.ok("run", "--rm", "--interactive", IMAGE, "sort", input="b\na\n") == "a\nb"


def test_run_terminal(podman: Podman) -> None:
    """A terminal of its own that can be typed into, is the controlling one, and follows the user's size."""
    script = "tty; echo ready >/dev/tty; read x; echo got $x; stty size; exit 3"
    with _at_terminal(podman, "run", "--rm", IMAGE, "sh", "-c", script) as user:
        user.expect("/dev/pts/0")
        user.expect("ready")
        user.type("word\r")
        user.expect("got word")
        user.expect("24 80")
        code = user.end()

    assert code == 3


def test_run_terminal_interrupt(podman: Podman) -> None:
    """Ctrl-C at the terminal interrupts what runs in the container."""
    with _at_terminal(
        podman, "run", "--rm", IMAGE, "sh", "-c", "trap 'echo caught; exit 5' INT; echo ready; sleep 60 & wait"
    ) as user:
        user.expect("ready")
        user.type("\x03")
        user.expect("caught")
        code = user.end()

    assert code == 5


def test_only_stdio_is_open(podman: Podman) -> None:
    """No file descriptor of podman, conmon or the runtime is there; ls itself opens number 3."""
    with podman.detached("sleep", "100") as name:
        run, exec_ = podman.shell("ls /proc/self/fd"), podman.ok("exec", name, "ls", "/proc/self/fd")

    assert run.split() == exec_.split() == ["0", "1", "2", "3"]


def test_run_preserve_fds(podman: Podman, tmp_path: Path) -> None:
    """Descriptors that the caller keeps open on purpose arrive."""
    target = tmp_path / "out"
    command = podman.command("run", "--rm", "--preserve-fds", "1", IMAGE, "sh", "-c", "echo through >&3")
    done = clients.run(["sh", "-c", 'exec "$@" 3>"$0"', target, *command], podman.here.path, env=podman.env)

    assert (done, target.read_text()) == (Done(0, "", ""), "through\n")


def test_run_user(podman: Podman) -> None:
    """Numbers, names of the image's passwd, and groups beside."""
    ids = 'echo "$(id -u) $(id -g) $(id -G) $HOME"'

    assert podman.shell(ids, "--user", "1234:2345", "--group-add", "77") == "1234 2345 2345 77 /"
    assert podman.shell(ids, "--user", "user") == "1000 1000 1000 /tmp"


def test_run_environment_directory_hostname_and_limits(podman: Podman) -> None:
    """What the process is given besides its arguments."""
    options = ("--env", "A=b", "--workdir", "/var/tmp", "--hostname", "box")
    limits = ("--ulimit", "nofile=512:600", "--ulimit", "nproc=1024:1024")

    assert (
        podman.shell("echo $A $PWD $(hostname) $(ulimit -n) $(ulimit -Hn)", *options, *limits)
        == "b /var/tmp box 512 600"
    )


def test_run_volumes(podman: Podman, tmp_path: Path) -> None:
    """Directories of the host, to be written and not to be written, a single file, and a named volume."""
    for name in ("open", "closed"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "word").write_text(name)
    mounts = (f"{tmp_path}/open:/a", f"{tmp_path}/closed:/b:ro", f"{tmp_path}/open/word:/etc/word", "named:/n")
    script = "cat /a/word /b/word /etc/word; echo new >/a/new; touch /n/x; touch /b/x 2>/dev/null || echo refused"

    assert podman.shell(script, *(word for mount in mounts for word in ("--volume", mount))) == "openclosedopenrefused"
    assert (tmp_path / "open/new").read_text() == "new\n"
    assert podman.shell("ls /n", "--volume", "named:/n") == "x"


def test_run_read_only_and_tmpfs(podman: Podman) -> None:
    """The root refuses to be written, the tmpfs takes as much as its size."""
    script = (
        "touch /x 2>/dev/null || echo refused; stat -f -c %T /scratch; stat -c %a /scratch;"
        "dd if=/dev/zero of=/scratch/x bs=1024 count=2048 2>/dev/null || stat -c %s /scratch/x"
    )

    found = podman.shell(script, "--read-only", "--tmpfs", "/scratch:rw,size=1m,mode=1770")

    assert found.split() == ["refused", "tmpfs", "1770", "1048576"]


def test_run_tmpfs_begins_with_what_is_there(podman: Podman) -> None:
    """Podman asks for tmpcopyup, a runtime's own mount option."""
    script = "stat -f -c %T /usr; touch /usr/new; ls /usr"

    assert podman.shell(script, "--read-only", "--tmpfs", "/usr").split() == ["tmpfs", "bin", "new"]


def test_run_masked_and_read_only_paths(podman: Podman) -> None:
    """Those of podman, one more, and one less."""
    script = (
        "cat /proc/keys /proc/uptime | wc -c; ls /sys/firmware | wc -l; ls /proc/acpi | wc -l;"
        "touch /proc/sys/kernel/domainname 2>/dev/null || echo refused"
    )
    options = ("--security-opt", "mask=/proc/uptime", "--security-opt", "unmask=/proc/sys")

    assert podman.shell(script, options[0], options[1]).split() == ["0", "0", "0", "refused"]
    assert podman.shell(script, *options).split() == ["0", "0", "0"]


def test_run_oom_score_umask_shm_and_cpus(podman: Podman) -> None:
    """Small things of the process and its surroundings."""
    script = (
        "cat /proc/self/oom_score_adj; umask; df -k /dev/shm | awk 'NR == 2 { print $2 }';"
        "grep Cpus_allowed_list /proc/self/status | cut -f2"
    )
    options = ("--oom-score-adj", "321", "--umask", "0077", "--shm-size", "1m", "--cpuset-cpus", "0")

    assert podman.shell(script, *options).split() == ["321", "0077", "1024", "0"]


def test_run_memory_cpu_and_pids_limits(podman: Podman) -> None:
    """What was asked for is what the container's cgroup says."""
    script = ";".join(
        (
            _limit("memory/memory.limit_in_bytes", "memory.max"),
            _limit("pids/pids.max", "pids.max"),
            f"cat {_OF_CGROUP}/cpu/cpu.cfs_quota_us 2>/dev/null || cut -d' ' -f1 {_OF_CGROUP}/cpu.max",
        )
    )

    found = podman.shell(script, "--memory", "64m", "--pids-limit", "7", "--cpus", "0.5")

    assert found.split() == ["67108864", "7", "50000"]


def test_run_out_of_pids(podman: Podman) -> None:
    """More processes than allowed are refused."""
    done = podman("run", "--rm", "--pids-limit", "3", IMAGE, "sh", "-c", "sleep 9 & sleep 9 & sleep 9 & echo survived")

    assert (done.code, done.out) == (2, "")
    assert "can't fork" in done.err


def test_run_out_of_memory(podman: Podman) -> None:
    """Who takes more than is allowed is killed."""
    with podman.detached("tail", "/dev/zero", options=("--memory", "20m", "--memory-swap", "20m")) as name:
        code = podman.ok("wait", name)

    assert code == "137"


def test_update_of_a_running_container(podman: Podman) -> None:
    """Limits are changed while it runs."""
    with podman.detached("sleep", "100", options=("--memory", "64m", "--pids-limit", "50")) as name:
        podman.ok("update", "--memory", "32m", "--cpu-shares", "512", name)
        memory = podman.ok("exec", name, "sh", "-c", _limit("memory/memory.limit_in_bytes", "memory.max"))
        pids = podman.ok("exec", name, "sh", "-c", _limit("pids/pids.max", "pids.max"))

    assert (memory, pids) == ("33554432", "50")


def test_run_seccomp(podman: Podman, tmp_path: Path) -> None:
    """Podman's own profile, none, and one of the user's with an error number."""
    profile = tmp_path / "profile.json"
    rule = {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28}
    profile.write_text(json.dumps({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]}))
    mode = "grep ^Seccomp: /proc/self/status | cut -f2"
    denied = podman("run", "--rm", "--security-opt", f"seccomp={profile}", IMAGE, "mkdir", "/x")

    assert podman.shell(mode) == "2"
    assert podman.shell(mode, "--security-opt", "seccomp=unconfined") == "0"
    assert (denied.code, "No space left on device" in denied.err) == (1, True)


def test_run_capabilities_and_no_new_privileges(podman: Podman) -> None:
    """All five sets, from the options."""
    script = "grep -E '^(Cap|NoNewPrivs)' /proc/self/status | cut -f2"
    options = ("--cap-drop", "all", "--cap-add", "NET_RAW,KILL", "--security-opt", "no-new-privileges")
    some = f"{1 << 13 | 1 << 5:016x}"
    none = f"{0:016x}"

    assert podman.shell(script, *options).split() == [none, some, some, some, none, "1"]
    assert podman.shell(script, *options, "--user", "1000").split() == [some, some, some, some, some, "1"]


def test_run_devices(podman: Podman) -> None:
    """A device is there with the rights that were given; others cannot be opened."""
    script = (
        "for word in '<' '>'; do sh -c \": ${word}/dev/given\" 2>&1 | grep -o 'not permitted' || echo open; done;"
        "mknod /made c 10 237; cat /made 2>&1 | grep -o 'not permitted'; echo x >/dev/null"
    )
    options = ("--device", "/dev/kmsg:/dev/given:w", "--cap-add", "MKNOD,SYSLOG")

    assert podman.shell(script, *options).split("\n") == ["not permitted", "open", "not permitted"]


def test_run_sysctl(podman: Podman) -> None:
    """Those of its own namespaces are set."""
    options = ("--sysctl", "net.ipv4.ip_forward=1", "--sysctl", "kernel.msgmax=9000")

    assert podman.shell("cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/msgmax", *options) == "1\n9000"


def test_run_user_namespace(podman: Podman, tmp_path: Path) -> None:
    """Id maps: root inside is a plain user outside, and its files are its own."""
    tmp_path.chmod(0o777)
    options = ("--uidmap", "0:200000:65536", "--gidmap", "0:300000:65536", "--volume", f"{tmp_path}:/out")

    found = podman.shell("cat /proc/self/uid_map /proc/self/gid_map; stat -c %u:%g /etc/passwd; touch /out/x", *options)

    assert found.split() == ["0", "200000", "65536", "0", "300000", "65536", "0:0"]
    assert ((tmp_path / "x").stat().st_uid, (tmp_path / "x").stat().st_gid) == (200000, 300000)


def test_run_in_the_namespaces_of_another(podman: Podman) -> None:
    """Process, IPC, UTS and network namespace are joined by path."""
    script = "sed -n 's/^Name:.//p' /proc/1/status; for n in pid ipc uts net mnt; do readlink /proc/self/ns/$n; done"
    with podman.detached("sleep", "100") as name:
        shared = (f"--{kind}=container:{name}" for kind in ("pid", "ipc", "uts", "network"))
        joined = podman.shell(script, *shared).split()
        own = podman.ok("exec", name, "sh", "-c", script).split()

    assert joined[0] == "sleep"
    assert joined[:-1] == own[:-1]
    assert joined[-1] != own[-1]


def test_run_in_the_namespaces_of_the_host(podman: Podman) -> None:
    """Those that are not asked for are the host's."""
    kinds = ("pid", "ipc", "uts", "net", "cgroup")
    options = ("--pid=host", "--ipc=host", "--uts=host", "--network=host", "--cgroupns=host")

    found = podman.shell(f"for n in {' '.join(kinds)}; do readlink /proc/self/ns/$n; done", *options).split()

    assert found == [os.readlink(f"/proc/self/ns/{kind}") for kind in kinds]


def test_hooks(podman: Podman, tmp_path: Path) -> None:
    """Hooks of the host's configuration are called, with the container's state on standard input."""
    for stage in ("createRuntime", "poststart", "poststop"):
        hook = {"path": "/bin/sh", "args": ["sh", "-c", f"cat >{tmp_path}/{stage}"]}
        wanted = {"version": "1.0.0", "hook": hook, "when": {"always": True}, "stages": [stage]}
        (podman.here.path / f"hooks/{stage}.json").write_text(json.dumps(wanted))
    try:
        podman.shell("true", "--name", "hooked")
    finally:
        for path in (podman.here.path / "hooks").iterdir():
            path.unlink()

    told = {path.name: json.loads(path.read_text()) for path in tmp_path.iterdir()}
    assert set(told) == {"createRuntime", "poststart", "poststop"}
    assert len({state["id"] for state in told.values()}) == 1
    assert told["poststop"]["status"] == "stopped"


def test_detached_container_inspect_top_and_list(podman: Podman) -> None:
    """What podman and the runtime say about a running container."""
    with podman.detached("sleep", "100", options=("--name", "busy")) as name:
        status, pid = podman.inspect("busy", "State.Status"), podman.inspect("busy", "State.Pid")
        top = podman.ok("top", "busy", "pid", "args").split("\n")
        listed = podman.ok("ps", "--format", "{{.ID}}", "--no-trunc")
        stats = json.loads(podman.ok("stats", "--no-stream", "--format", "json", "busy"))
        command = Path(f"/proc/{pid}/cmdline").read_text()

    assert (status, command) == ("running", "sleep\x00100\x00")
    assert [line.split() for line in top[1:]] == [["1", "sleep", "100"]]
    assert listed == name
    assert stats[0]["pids"] == "1"


def test_exec(podman: Podman) -> None:
    """Output, status, input, user, environment and directory of one more process; what cannot be run; detached."""
    with podman.detached("sleep", "100") as name:
        done = podman("exec", name, "sh", "-c", "echo out; echo err >&2; exit 9")
        echoed = podman.ok("exec", "--interactive", name, "cat", input="in\n")
        options = ("--user", "1000", "--env", "A=b", "--workdir", "/tmp")
        given = podman.ok("exec", *options, name, "sh", "-c", "id -u; echo $A $PWD")
        refused = [podman("exec", name, program).code for program in ("no-such", "/etc/passwd", "/etc")]
        podman.ok("exec", "--detach", name, "sh", "-c", "echo made >/made; sleep 100")
        podman.ok("exec", name, "sh", "-c", "while [ ! -s /made ]; do usleep 10000; done")
        told = podman.ok("top", name, "args").split("\n")[1:]
        told = sorted(line.strip() for line in told)

    assert done == Done(9, "out\n", "err\n")
    assert echoed == "in"
    assert given == "1000\nb /tmp"
    assert refused == [127, 126, 126]
    assert told[-2:] == ["sleep 100", "sleep 100"]


def test_exec_terminal(podman: Podman) -> None:
    """A terminal of its own, in a container that has none."""
    with (
        podman.detached("sleep", "100") as name,
        _at_terminal(podman, "exec", name, "sh", "-c", "tty; read x; echo got $x; stty size; exit 4") as user,
    ):
        user.expect("/dev/pts/0")
        user.type("word\r")
        user.expect("got word")
        user.expect("24 80")
        code = user.end()

    assert code == 4


def test_pause_and_unpause(podman: Podman) -> None:
    """A paused container does not run, takes no exec, and goes on afterwards."""
    with podman.detached("sh", "-c", "while :; do echo tick; usleep 20000; done") as name:
        podman.wait_for_log(name, "tick")
        podman.ok("pause", name)
        status = podman.inspect(name, "State.Status")
        refused = podman("exec", name, "true").code
        before = podman.ok("logs", name)
        time.sleep(0.1)
        while_paused = podman.ok("logs", name)
        podman.ok("unpause", name)
        again = podman.wait_for_log(name, before + "\ntick")

    assert (status, refused != 0) == ("paused", True)
    assert len(again) > len(while_paused) == len(before)


def test_stop(podman: Podman) -> None:
    """TERM first; KILL for who does not listen."""
    polite = "trap 'exit 3' TERM; echo ready; sleep 100 & wait"
    with (
        podman.detached("sh", "-c", polite) as listens,
        podman.detached("sh", "-c", "trap '' TERM; echo ready; sleep 100") as deaf,
    ):
        for name in (listens, deaf):
            podman.wait_for_log(name, "ready")
        podman.ok("stop", "--time", "5", listens)
        podman("stop", "--time", "0", deaf)
        codes = [podman.inspect(name, "State.ExitCode") for name in (listens, deaf)]
        states = [podman.inspect(name, "State.Status") for name in (listens, deaf)]

    assert codes == ["3", "137"]
    assert states == ["exited", "exited"]


def test_start_again_and_restart(podman: Podman) -> None:
    """The same container runs again, with what it wrote before."""
    with podman.detached("sh", "-c", "echo run >>/count; cat /count; sleep 100") as name:
        podman.wait_for_log(name, "run")
        podman.ok("restart", "--time", "0", name)
        podman.wait_for_log(name, "run\nrun\nrun")
        podman("stop", "--time", "0", name)
        podman.ok("start", name)
        log = podman.wait_for_log(name, "run\n" * 5 + "run")

    assert log.split() == ["run"] * 6


def test_create_init_start_attached(podman: Podman) -> None:
    """Each step of the life cycle by itself."""
    name = podman.ok("create", IMAGE, "sh", "-c", "echo done; exit 6")
    podman.ok("init", name)
    created = podman.inspect(name, "State.Status")
    done = podman("start", "--attach", name)
    podman.ok("rm", name)

    assert created == "initialized"
    assert (done.code, done.out) == (6, "done\n")


def test_kill_and_logs(podman: Podman) -> None:
    """Signals by name and number arrive; what was written is kept; KILL ends it with 137."""
    script = "trap 'echo usr1' USR1; trap 'echo int' INT; echo ready; while :; do sleep 100 & wait; done"
    with podman.detached("sh", "-c", script) as name:
        podman.wait_for_log(name, "ready")
        podman.ok("kill", "--signal", "USR1", name)
        podman.wait_for_log(name, "usr1")
        podman.ok("kill", "--signal", "2", name)
        log = podman.wait_for_log(name, "int")
        podman.ok("kill", name)
        code = podman.ok("wait", name)

    assert log == "ready\nusr1\nint"
    assert code == "137"


def test_copy_into_and_out_of_a_running_container(podman: Podman, tmp_path: Path) -> None:
    """Podman reaches the mounts of a running container."""
    (tmp_path / "in").write_text("word")
    with podman.detached("sleep", "100", options=("--tmpfs", "/scratch")) as name:
        podman.ok("cp", f"{tmp_path}/in", f"{name}:/scratch/there")
        podman.ok("cp", f"{name}:/scratch/there", f"{tmp_path}/out")

    assert (tmp_path / "out").read_text() == "word"


def test_pods(podman: Podman) -> None:
    """Containers of a pod share its cgroup, and stop and go with it."""
    podman.ok("pod", "create", "--infra=false", "--name", "pod", "--cgroup-parent", podman.here.cgroup)
    first = podman.ok("run", "--detach", "--pod", "pod", IMAGE, "sleep", "100")
    podman.ok("run", "--detach", "--pod", "pod", IMAGE, "sleep", "100")
    listed = podman.ok("pod", "ps", "--format", "{{.Name}} {{.Status}} {{.NumberOfContainers}}")
    podman.ok("pod", "pause", "pod")
    paused = podman.inspect(first, "State.Status")
    podman.ok("pod", "unpause", "pod")
    podman("pod", "kill", "pod")
    podman.ok("pod", "rm", "--force", "--time", "0", "pod")

    assert (listed, paused) == ("pod Running 2", "paused")


def test_pods_with_shared_namespaces(podman: Podman) -> None:
    """The pod's own container, which podman makes first, holds the namespaces that the others join."""
    infra = ("--infra-image", IMAGE, "--infra-command", "sleep 100")
    shared = ("--share", "net,ipc,uts,pid", "--hostname", "together")
    podman.ok("pod", "create", "--name", "shared", *infra, *shared, "--cgroup-parent", podman.here.cgroup)
    script = "hostname; readlink /proc/self/ns/net; sed -n 's/^Name:.//p' /proc/1/status"
    found = [podman.ok("run", "--rm", "--pod", "shared", IMAGE, "sh", "-c", script).split() for _ in range(2)]
    podman.ok("pod", "rm", "--force", "--time", "0", "shared")

    assert found[0] == found[1]
    assert (found[0][0], found[0][2]) == ("together", "sleep")


def test_build(podman: Podman, tmp_path: Path) -> None:
    """Each RUN is a container of the runtime; what it left is the image's."""
    (tmp_path / "word").write_text("word\n")
    (tmp_path / "Containerfile").write_text(
        f"FROM {IMAGE}\nCOPY word /word\nENV NAME=value\nRUN echo $NAME >>/word && id -u >>/word\n"
        'USER 1000\nRUN id -u >/tmp/user\nCMD ["sh", "-c", "cat /word /tmp/user"]\n'
    )
    built = podman("build", "--network", "none", "--tag", "localhost/built:1", str(tmp_path))
    broken = podman("build", "--network", "none", "--file", "-", str(tmp_path), input=f"FROM {IMAGE}\nRUN exit 13\n")

    assert built.code == 0, built.err
    assert podman.ok("run", "--rm", "localhost/built:1").split() == ["word", "value", "0", "1000"]
    assert broken.code == 13
