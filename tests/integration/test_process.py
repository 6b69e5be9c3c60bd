"""The process of a config: identity, capabilities, limits, files, terminal, filter."""

import os
import re
import resource
import select
import termios
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_ocirun.errors import ConfigError, KernelRefused
from pytest_ocirun.linux.caps import NUMBERS, capget
from pytest_ocirun.oci.process import Capabilities, ConsoleSize, Process, Rlimit, User
from pytest_ocirun.oci.runtime import Seccomp, Syscall
from pytest_ocirun.runtime.stdio import Stdio
from pytest_ocirun.runtime.validate import validate
from tests.boxes import PATH, Bare, confined
from tests.requires import requires

pytestmark = [requires("userns", "overlay", "seccomp", "busybox"), pytest.mark.lane("v2")]


def status(text: str) -> dict[str, str]:
    """A /proc/PID/status by key."""
    return dict(line.split(":\t", 1) for line in text.splitlines())


@pytest.mark.conforms(
    "config: $.process.capabilities.bounding",
    "config: $.process.capabilities.permitted",
    "config: $.process.capabilities.inheritable",
    "config: $.process.capabilities.ambient",
)
@requires("root")
@pytest.mark.parametrize("uid", [0, 1000])
@pytest.mark.conforms("config: $.process.capabilities")
def test_capabilities_are_exactly_those_asked_for(bare: Bare, busybox_rootfs: Path, uid: int) -> None:
    """Each of the five sets is the config's; the ambient one keeps them over execve for a plain user."""
    names = ["CAP_NET_BIND_SERVICE", "CAP_KILL"]
    mask = 1 << 10 | 1 << 5
    config = confined(busybox_rootfs, "cat", "/proc/self/status")
    config.process.user = User(uid=uid, gid=uid)
    config.process.capabilities = Capabilities(
        bounding=[*names, "CAP_CHOWN"], effective=names, permitted=names, inheritable=names, ambient=names
    )
    config.process.no_new_privileges = False
    config.linux.seccomp = None
    seen = status(bare.run(config).out)
    # Root gets at execve what the bounding set leaves; a plain user the ambient set.
    held = mask | (1 if uid == 0 else 0)

    assert {name: int(seen[f"Cap{name}"], 16) for name in ("Inh", "Prm", "Eff", "Bnd", "Amb")} == {
        "Inh": mask,
        "Prm": held,
        "Eff": held,
        "Bnd": mask | 1,
        "Amb": mask,
    }


@requires("root")
@pytest.mark.conforms("config: $.process.capabilities.effective")
@pytest.mark.parametrize("effective", [[], ["CAP_DAC_READ_SEARCH"]])
def test_what_is_effective_counts_at_the_execve(bare: Bare, rootfs: Path, effective: list[str]) -> None:
    """The program lies where only who overrides the mode can go; afterwards root has whatever is permitted."""
    (rootfs / "closed").mkdir()
    (rootfs / "bin/busybox").rename(rootfs / "closed/busybox")
    os.chown(rootfs / "closed", 1000, 1000)
    (rootfs / "closed").chmod(0o700)
    config = confined(rootfs, "/closed/busybox", "true", user_namespace=False)
    names = ["CAP_DAC_READ_SEARCH"]
    config.process.capabilities = Capabilities(bounding=names, permitted=names, effective=effective)

    if effective:
        assert bare.run(config).end.code == 0
    else:
        with pytest.raises(KernelRefused, match="Permission denied"):
            bare.run(config)


@requires("root")
@pytest.mark.conforms("config: $.process.capabilities")
def test_capabilities_that_cannot_be_granted(bare: Bare, busybox_rootfs: Path) -> None:
    """They are left out with a warning, as the specification asks, and the rest is as it was asked for."""
    lacking = [name for name, number in NUMBERS.items() if not capget()[1] >> number & 1]
    config = confined(busybox_rootfs, "cat", "/proc/self/status", user_namespace=False)
    names = ["CAP_KILL", *lacking]
    config.process.capabilities = Capabilities(
        bounding=names, effective=names, permitted=names, inheritable=names, ambient=names
    )
    warnings = validate(config)
    seen = status(bare.run(config).out)

    assert warnings == [
        f"$.process.capabilities: left out: {', '.join(sorted(lacking))}: ocirun itself does not have them"
    ] * bool(lacking)
    assert [int(seen[f"Cap{name}"], 16) for name in ("Inh", "Prm", "Eff", "Amb")] == [1 << 5] * 4


@requires("root")
@pytest.mark.conforms("config: $.process.capabilities")
def test_ambient_capabilities_that_are_not_inheritable(bare: Bare, busybox_rootfs: Path) -> None:
    """The kernel takes none that is not permitted and inheritable; that is a warning."""
    config = confined(busybox_rootfs, "cat", "/proc/self/status")
    config.process.user = User(uid=5, gid=5)
    config.process.capabilities = Capabilities(
        bounding=["CAP_KILL", "CAP_CHOWN"],
        permitted=["CAP_KILL", "CAP_CHOWN"],
        inheritable=["CAP_KILL"],
        ambient=["CAP_KILL", "CAP_CHOWN"],
    )

    assert validate(config) == [
        "$.process.capabilities.ambient: left out: CAP_CHOWN: ambient ones must be permitted and inheritable too"
    ]
    assert int(status(bare.run(config).out)["CapAmb"], 16) == 1 << 5


@requires("root")
@pytest.mark.conforms("config: $.process.user.uid")
@pytest.mark.parametrize("uid", [0, 1000])
@pytest.mark.parametrize("own_users", [False, True])
def test_a_user_can_open_its_pipes_again(bare: Bare, busybox_rootfs: Path, uid: int, own_users: bool) -> None:
    """As /dev/stdout; a file that stdout happens to be stays whose it was."""
    config = confined(busybox_rootfs, "sh", "-c", "echo again > /dev/stdout", user_namespace=own_users)
    config.process.user = User(uid=uid, gid=uid)
    read, write = os.pipe2(os.O_CLOEXEC)
    null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    log = os.memfd_create("log", os.MFD_CLOEXEC)
    before = os.fstat(null).st_uid, os.fstat(log).st_uid
    name = bare.new_id()
    child = bare.create(config, Stdio(null, write, log), name=name)
    try:
        bare.runtime.start(name)
        child.wait()
        os.close(write)
        said = os.read(read, 100)
        owners = os.fstat(null).st_uid, os.fstat(log).st_uid
    finally:
        bare.end(name, child)
        for fd in (read, null, log):
            os.close(fd)

    assert (said, owners) == (b"again\n", before)


@requires("root")
@pytest.mark.conforms(
    "config: $.process.user.uid",
    "config: $.process.user.gid",
    "config: $.process.user.umask",
    "config: $.process.user.additionalGids",
)
def test_groups_and_umask(bare: Bare, busybox_rootfs: Path) -> None:
    """Supplementary groups and the mask are the config's; without one the mask is 022."""
    config = confined(busybox_rootfs, "sh", "-c", "id -G; umask")
    config.process.user = User(uid=7, gid=8, umask=0o077, additional_gids=[9, 10])
    plain = confined(busybox_rootfs, "umask")
    plain.process.args = ["sh", "-c", "umask"]

    assert bare.run(config).out == "8 9 10\n0077\n"
    assert bare.run(plain).out == "0022\n"


@pytest.mark.conforms(
    "config: $.process.rlimits[].soft",
    "config: $.process.rlimits[].hard",
    "config: $.process.rlimits[].type RLIMIT_NOFILE",
    "config: $.process.rlimits[].type RLIMIT_CORE",
)
@pytest.mark.conforms("config: $.process.rlimits")
def test_resource_limits(bare: Bare, busybox_rootfs: Path) -> None:
    """Soft and hard limits are the config's, in run and in exec."""
    limits = [Rlimit(type="RLIMIT_NOFILE", soft=100, hard=200), Rlimit(type="RLIMIT_CORE", soft=0, hard=0)]
    config = confined(busybox_rootfs, "cat", "/proc/self/limits")
    config.process.rlimits = limits
    with bare.holder(confined(busybox_rootfs)) as name:
        texts = [bare.run(config).out, bare.exec(name, "cat", "/proc/self/limits", rlimits=limits).out]
    seen = [re.findall(r"Max (?:open files|core file size) +(\d+) +(\d+)", text) for text in texts]

    assert seen == [[("0", "0"), ("100", "200")]] * 2


@pytest.mark.conforms("config: $.process.rlimits[].type RLIMIT_LOCKS", "config: $.process.rlimits[].type RLIMIT_CPU")
@pytest.mark.conforms("config: $.process.rlimits")
def test_resource_limits_that_few_know(bare: Bare, busybox_rootfs: Path) -> None:
    """One that the kernel keeps without acting on it, and a number beyond 2^63."""
    config = confined(busybox_rootfs, "cat", "/proc/self/limits")
    config.process.rlimits = [
        Rlimit(type="RLIMIT_LOCKS", soft=2**63 + 1, hard=2**64 - 2),
        Rlimit(type="RLIMIT_CPU", soft=2**64 - 1, hard=2**64 - 1),
    ]
    out = bare.run(config).out
    seen = re.findall(r"Max (?:file locks|cpu time) +(\w+) +(\w+)", out)

    assert seen == [("unlimited", "unlimited"), (str(2**63 + 1), str(2**64 - 2))]


@requires("root", "sys_resource")
@pytest.mark.conforms("config: $.process.rlimits")
def test_a_hard_limit_is_raised_for_a_user_namespace(bare: Bare, busybox_rootfs: Path) -> None:
    """Root of a user namespace could not; its creator can."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NPROC)
    wanted = 2**20 if hard == resource.RLIM_INFINITY else hard + 1
    config = confined(busybox_rootfs, "cat", "/proc/self/limits")
    config.process.rlimits = [Rlimit(type="RLIMIT_NPROC", soft=wanted, hard=wanted)]

    assert re.search(rf"Max processes +{wanted} +{wanted}", bare.run(config).out)


def test_a_limit_that_cannot_be_raised_is_an_error(bare: Bare, busybox_rootfs: Path) -> None:
    """Not a lower one in its place."""
    config = confined(busybox_rootfs)
    config.process.rlimits = [Rlimit(type="RLIMIT_NOFILE", soft=1 << 40, hard=1 << 40)]

    with pytest.raises(KernelRefused, match="limit RLIMIT_NOFILE"):
        bare.run(config)


@pytest.mark.conforms("config: $.process.oomScoreAdj")
def test_oom_score_is_set(bare: Bare, busybox_rootfs: Path) -> None:
    """The score adjustment is the config's, and an exec inherits it."""
    config = confined(busybox_rootfs, "cat", "/proc/self/oom_score_adj")
    config.process.oom_score_adj = 500
    with bare.holder(config) as name:
        assert bare.exec(name, "cat", "/proc/self/oom_score_adj").out == "500\n"
    assert bare.run(config).out == "500\n"


@pytest.mark.parametrize("privileges", [True, pytest.param(False, marks=requires("root"))])
@pytest.mark.conforms("config: $.process.noNewPrivileges")
def test_a_filter_of_the_config(bare: Bare, busybox_rootfs: Path, privileges: bool) -> None:
    """A filter is loaded with and without no_new_privs, in run and in exec."""
    config = confined(busybox_rootfs, "sh", "-c", "mkdir /tmp/x; grep -E '^(NoNewPrivs|Seccomp):' /proc/self/status")
    config.process.no_new_privileges = privileges
    config.linux.seccomp = Seccomp(
        default_action="SCMP_ACT_ALLOW",
        syscalls=[Syscall(names=["mkdir", "mkdirat"], action="SCMP_ACT_ERRNO", errno_ret=95)],
    )
    with bare.holder(config) as name:
        ends = [bare.run(config), bare.exec(name, *config.process.args, no_new_privileges=privileges)]

    assert [ran.out for ran in ends] == [f"NoNewPrivs:\t{int(privileges)}\nSeccomp:\t2\n"] * 2
    assert all("not supported" in ran.err for ran in ends)


@requires("root")
@pytest.mark.parametrize("uid", [0, 1000])
def test_a_filter_without_no_new_privs_is_for_the_program(bare: Bare, busybox_rootfs: Path, uid: int) -> None:
    """What is called on the way there may be refused; the right to load a filter is in no set afterwards."""
    config = confined(busybox_rootfs, "grep", "-E", "^(Cap|Seccomp:)", "/proc/self/status")
    config.process.user.uid, config.process.no_new_privileges = uid, False
    refused = ["setgroups", "setresuid", "setresgid", "chdir", "fchdir", "faccessat", "faccessat2", "umask", "openat2"]
    config.linux.seccomp = Seccomp(
        default_action="SCMP_ACT_ALLOW", syscalls=[Syscall(names=refused, action="SCMP_ACT_KILL_PROCESS")]
    )

    assert bare.run(config).out.split()[1::2] == ["0" * 16] * 5 + ["2"]


def test_a_strict_filter_lets_the_program_start(bare: Bare, busybox_rootfs: Path) -> None:
    """Between the filter and the program nothing of ours needs another system call than execve."""
    config = confined(busybox_rootfs, "/bin/busybox", "true")
    names = ["execve", "exit_group", "brk", "arch_prctl", "set_tid_address", "set_robust_list", "rseq", "mprotect"]
    names += [
        "prlimit64",
        "getrandom",
        "readlink",
        "readlinkat",
        "mmap",
        "getuid",
        "setuid",
        "setgid",
        "getgid",
        "prctl",
    ]
    config.linux.seccomp = Seccomp(
        default_action="SCMP_ACT_KILL_PROCESS", syscalls=[Syscall(names=names, action="SCMP_ACT_ALLOW")]
    )

    assert bare.run(config).end.code == 0


class Terminal:
    """The master of a container's terminal."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def read_until(self, text: str, seconds: float = 10) -> str:
        """Read until a text has come, or the other side is gone."""
        got = ""
        while text not in got and select.select([self.fd], [], [], seconds)[0]:
            try:
                data = os.read(self.fd, 65536)
            except OSError:
                break
            if not data:
                break
            got += data.decode()
        return got


@pytest.fixture
def no_stdio() -> Iterator[Stdio]:
    """What a process with a terminal is given."""
    null = os.open(os.devnull, os.O_RDWR)
    yield Stdio(null, null, null)
    os.close(null)


@pytest.mark.conforms("config: $.process.consoleSize.height", "config: $.process.consoleSize.width")
@pytest.mark.conforms("config: $.process.terminal", "config: $.process.consoleSize")
def test_a_terminal_of_its_own(bare: Bare, busybox_rootfs: Path, no_stdio: Stdio) -> None:
    """The console is a pty of the container's devpts, controlling, of the asked size, and /dev/console is it."""
    script = "tty; stty size; echo x > /dev/tty; readlink /proc/$$/fd/2; [ /dev/console -ef /dev/pts/0 ] && echo same"
    config = confined(busybox_rootfs, "sh", "-c", script)
    config.process.terminal = True
    config.process.console_size = ConsoleSize(height=33, width=77)
    name = bare.new_id()
    child = bare.create(config, no_stdio, name=name)
    try:
        assert child.console is not None
        bare.runtime.start(name)
        said = Terminal(child.console).read_until("same\r\n").split()
    finally:
        bare.end(name, child)

    assert said == ["/dev/pts/0", "33", "77", "x", "/dev/pts/0", "same"]


@pytest.mark.conforms("config: $.process.terminal")
def test_a_terminal_for_an_exec(bare: Bare, busybox_rootfs: Path, no_stdio: Stdio) -> None:
    """The same for exec; input typed at the master arrives, ^C interrupts."""
    with bare.holder(confined(busybox_rootfs)) as name:
        process = Process(
            terminal=True, user=User(uid=0, gid=0), args=["sh", "-c", "tty; read x; echo got $x; sleep 60"],
            env=[f"PATH={PATH}"], cwd="/", no_new_privileges=True,
        )  # fmt: skip
        child, _tree = bare.runtime.exec(name, process, no_stdio)
        child.wait_console()
        assert child.console is not None
        terminal = Terminal(child.console)
        assert "/dev/pts/0" in terminal.read_until("pts/0\r\n")
        os.write(child.console, b"typed\n")
        assert "got typed" in terminal.read_until("got typed")
        os.write(child.console, b"\x03")
        status = child.wait()
        child.close()

    assert os.WIFSIGNALED(status)
    assert os.WTERMSIG(status) == 2


@pytest.mark.parametrize("spoil", ["dev/pts", "dev/console", "dev/pts/0", "dev/ptmx"])
def test_a_terminal_is_never_the_images(bare: Bare, rootfs: Path, no_stdio: Stdio, spoil: str) -> None:
    """Links of the image at /dev/console or /dev/pts lead the terminal nowhere (CVE-2025-52565)."""
    pattern = Path("/proc/sys/kernel/core_pattern").read_bytes()
    (rootfs / spoil).parent.mkdir(exist_ok=True)
    (rootfs / spoil).symlink_to("/proc/sys/kernel/core_pattern")
    config = confined(rootfs, "sh", "-c", "tty; stat -c %F /dev/console; stat -c %F /proc/sys/kernel/core_pattern")
    config.process.terminal = True
    name = bare.new_id()
    child = bare.create(config, no_stdio, name=name)
    try:
        assert child.console is not None
        bare.runtime.start(name)
        said = Terminal(child.console).read_until("empty file\r\n")
    finally:
        bare.end(name, child)

    assert said.splitlines()[:3] == ["/dev/pts/0", "character special file", "regular empty file"]
    assert Path("/proc/sys/kernel/core_pattern").read_bytes() == pattern


def test_the_hosts_terminal_is_not_touched(bare: Bare, busybox_rootfs: Path) -> None:
    """A container with its own terminal has no way to the caller's: TIOCSTI has nothing to push into."""
    ours, theirs = os.openpty()
    before = termios.tcgetattr(theirs)
    ran = bare.run(confined(busybox_rootfs, "sh", "-c", "stty -echo < /dev/tty"))
    after = termios.tcgetattr(theirs)
    os.close(ours)
    os.close(theirs)

    assert ran.end.code
    assert after == before


@requires("root")
def test_a_directory_that_only_its_user_may_enter(bare: Bare, rootfs: Path) -> None:
    """The working directory may be closed to everybody but the process's user."""
    home = rootfs / "home"
    home.mkdir(mode=0o700)
    os.chown(home, 1000, 1000)
    config = confined(rootfs, "sh", "-c", "pwd; touch mine; ls")
    config.process.user = User(uid=1000, gid=1000)
    config.process.cwd = "/home"

    assert bare.run(config).out == "/home\nmine\n"


@pytest.mark.conforms("config: $.process.cwd")
def test_a_missing_working_directory_is_made(bare: Bare, busybox_rootfs: Path) -> None:
    """As in runc: the container's own is made if the root can be written."""
    config = confined(busybox_rootfs, "pwd")
    config.process.cwd = "/made/for/it"

    assert bare.run(config).out == "/made/for/it\n"


@pytest.mark.parametrize("env", [["NOVALUE"], ["=x"], [""], ["A=\0"]])
@pytest.mark.conforms("config: $.process.env")
def test_variables_that_are_none(bare: Bare, busybox_rootfs: Path, env: list[str]) -> None:
    """What is no NAME=VALUE is refused."""
    config = confined(busybox_rootfs)
    config.process.env = env

    with pytest.raises(ConfigError, match="env"):
        bare.run(config)


@requires("root")
@pytest.mark.conforms("config: $.process.terminal", "config: $.process.user.uid")
def test_a_terminal_belongs_to_its_user(bare: Bare, busybox_rootfs: Path, no_stdio: Stdio) -> None:
    """In run and in exec, so that the user may open it again."""
    script = "stat -c %u /dev/pts/*[0-9]; echo again > $(tty)"
    config = confined(busybox_rootfs, "sh", "-c", script)
    config.process.terminal, config.process.user = True, User(uid=9, gid=9)
    name = bare.new_id()
    child = bare.create(config, no_stdio, name=name)
    try:
        assert child.console is not None
        bare.runtime.start(name)
        assert Terminal(child.console).read_until("again").split() == ["9", "again"]
    finally:
        bare.end(name, child)
    with bare.holder(confined(busybox_rootfs)) as name:
        process = config.process.copy()
        process.console_size = ConsoleSize(height=11, width=22)
        process.args[2] += "; stty size"
        child, _tree = bare.runtime.exec(name, process, no_stdio)
        child.wait_console()
        assert child.console is not None
        assert Terminal(child.console).read_until("11 22").split() == ["9", "again", "11", "22"]
        child.wait()
        child.close()


@requires("root", "selinux")
@pytest.mark.conforms("config: $.process.selinuxLabel")
def test_selinux_label(bare: Bare, busybox_rootfs: Path) -> None:
    """The program runs under the label, in run and in exec; without a policy only the kernel's own are known."""
    config = confined(busybox_rootfs, "cat", "/proc/self/attr/current")
    config.process.selinux_label = "unlabeled"
    with bare.holder(config) as name:
        execs = [bare.exec(name, *config.process.args, selinux_label=label).out for label in ("unlabeled", "")]

    assert [text.rstrip("\0") for text in (bare.run(config).out, *execs)] == ["unlabeled", "unlabeled", "unlabeled"]


@requires("root")
def test_a_terminal_without_devpts(bare: Bare, busybox_rootfs: Path, no_stdio: Stdio) -> None:
    """An error that says where the terminal would have come from: never from the host's."""
    config = confined(busybox_rootfs)
    config.process.terminal = True
    config.mounts = [each for each in config.mounts if each.type != "devpts"]

    with pytest.raises(KernelRefused, match=r"open a terminal of the container's own devpts.*/dev/pts/ptmx"):
        bare.create(config, no_stdio)
