"""Process steps: names, identity, limits, privileges, file descriptors and execve, in the child.

The order that the plan keeps: the bounding set is dropped while CAP_SETPCAP is held; keepcaps carries the permitted
set over setresuid; the parent-death signal is set after the last change of credentials, which would clear it; seccomp
comes last with no_new_privs, and before the capabilities go without it.
"""

from __future__ import annotations

import errno
import os
import resource
import stat

from pytest_ocirun.linux import caps, fd_ranges, fds, netdev, prctl, sched, signals, tty, uts
from pytest_ocirun.oci import json_text
from pytest_ocirun.runtime import place, runner
from pytest_ocirun.runtime.idmap import setgroups_allowed, translate
from pytest_ocirun.runtime.inside import open_inside
from pytest_ocirun.runtime.steps import Context, operation

_UNSIGNED = 1 << 64
_RLIMIT_LOCKS = 10  # without effect since Linux 2.4.25, but kept and shown


@operation("become root of the new user namespace")
def become_root(context: Context) -> None:
    """Take uid and gid 0 of the namespace whose maps the spawner has just written."""
    del context
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
    prctl.set_dumpable(0)


@operation("join the cgroups by {0}")
def join_cgroups(context: Context, procs: list[str]) -> None:
    """Join a running container's cgroups, and verify it."""
    del context
    place.join(0, procs)


@operation("join the namespaces of {0} (flags {1:#x})")
def join_init(context: Context, slot: str, flags: int) -> None:
    """Join the container's namespaces but that of pids, in which this process was born."""
    sched.setns(context.fds[slot], flags)


@operation("verify that the user namespace maps ids as the config says")
def verify_maps(context: Context, idmaps: list[list[list[int]]]) -> None:
    """Compare the maps of a joined user namespace with [uid rows, gid rows] of a config that gives them as well."""
    del context
    for kind, rows in zip(("uid", "gid"), idmaps, strict=True):
        with open(f"/proc/self/{kind}_map", "rb") as file:
            found = sorted([int(word) for word in line.split()] for line in file)
        if found != sorted([inside, translate(kind, outside), count] for inside, outside, count in rows):
            raise OSError(errno.EINVAL, f"its {kind}_map is {found}", f"/proc/self/{kind}_map")


@operation("enter a new cgroup namespace")
def unshare_cgroup(context: Context) -> None:
    """On v1 only after the join, or the namespace's root would be the spawner's cgroup."""
    del context
    sched.unshare(sched.CLONE_NEWCGROUP)


@operation("join the {1} namespace")
def join_namespace(context: Context, slot: str, kind: str) -> None:
    """Join one namespace by an open file of it."""
    sched.setns(context.fds[slot], sched.NAMESPACES[kind])


@operation("set the host name to {0}")
def hostname(context: Context, name: str) -> None:
    """Name the uts namespace."""
    del context
    uts.sethostname(name)


@operation("set the domain name to {0}")
def domainname(context: Context, name: str) -> None:
    """Set the NIS domain of the uts namespace."""
    del context
    uts.setdomainname(name)


@operation("set the sysctl {0} to {1}")
def sysctl(context: Context, name: str, value: str) -> None:
    """Write below /proc/sys of the old root, which nothing of the container can have touched."""
    del context
    fd = os.open(f"/proc/sys/{name}", os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        os.write(fd, value.encode())
    finally:
        os.close(fd)


@operation("bring the loopback device up")
def loopback_up(context: Context) -> None:
    """Bring lo up in the new network namespace."""
    del context
    netdev.loopback_up()


@operation("start a new session")
def new_session(context: Context) -> None:
    """Leave the caller's session and terminal."""
    del context
    os.setsid()


@operation("join a new session keyring")
def new_keyring(context: Context, name: str) -> None:
    """Leave the caller's session keyring; a kernel without keyrings has none to leak."""
    del context
    try:
        uts.join_session_keyring(name)
    except OSError as error:
        if error.errno not in (errno.ENOSYS, errno.EDQUOT):
            raise


@operation("open a terminal of the container's own devpts")
def open_console(context: Context, rows: int, columns: int, uid: int) -> None:
    """Make a pty; the master goes to the client over the reply socket, the slave becomes stdio and /dev/console.

    At once, not when the program runs: who reads the output of ``create`` to its end would wait until ``start``.
    """
    ptmx = open_inside(context.root, "/dev/pts/ptmx", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    master, slave = tty.open_pair(ptmx)
    if rows and columns:
        tty.set_size(slave, rows, columns)
    os.fchown(slave, uid, -1)
    reply = fds.socket_of(context.fds["reply"])
    fds.send(reply, json_text.dumps({"event": "console"}).encode(), [master])
    reply.detach()
    os.close(master)
    context.console = slave
    for number in range(3):
        os.dup2(slave, number)


@operation("open the root directory")
def open_root(context: Context) -> None:
    """Take the root of the container that was joined as the root that later steps resolve paths in."""
    context.root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)


@operation("take the terminal as controlling terminal and stdio")
def use_console(context: Context) -> None:
    """Make the pty's slave the controlling terminal and fds 0 to 2."""
    tty.make_controlling(context.console)
    for name in ("0", "1", "2"):
        context.fds[f"stdio{name}"] = context.console


@operation("limit {0} to {1} (soft) and {2} (hard)")
def rlimit(context: Context, name: str, soft: int, hard: int) -> None:
    """Set one resource limit; the name is POSIX's, RLIMIT_*."""
    del context
    try:
        resource.setrlimit(_limit_number(name), (_limit(soft), _limit(hard)))
    except ValueError as error:
        raise OSError(errno.EPERM, f"{error}: raising a hard limit needs CAP_SYS_RESOURCE", name) from error


@operation("raise its hard limit {0} to {1}")
def raise_limit(context: Context, name: str, hard: int) -> None:
    """Raise a hard limit of the new process where it is lower: root of a user namespace may not."""
    number, wanted = _limit_number(name), _limit(hard)
    soft, present = resource.prlimit(context.pid, number)
    if present % _UNSIGNED < wanted % _UNSIGNED:
        resource.prlimit(context.pid, number, (soft, wanted))


@operation("set the file mode mask to {0:04o}")
def umask(context: Context, mask: int) -> None:
    """Set the umask."""
    del context
    os.umask(mask)


@operation("keep only the capabilities of mask {0:#x} in the bounding set")
def bounding(context: Context, keep: int) -> None:
    """Drop the rest of the bounding set."""
    del context
    prctl.capbset_keep(keep)


@operation("become uid {0}, gid {1}, groups {2}")
def user(context: Context, uid: int, gid: int, groups: list[int]) -> None:
    """Change to the process's user with the permitted capabilities kept."""
    del context
    try:
        os.setgroups(groups)
    except PermissionError:
        # A user namespace of an unprivileged user has setgroups denied for good, and no other groups to drop.
        if setgroups_allowed():
            raise
        if groups:
            raise OSError(errno.EPERM, "setgroups(2) is denied here, so additionalGids cannot be had") from None
    if (uid, gid) != (0, 0) or os.getresuid() != (0, 0, 0) or os.getresgid() != (0, 0, 0):
        prctl.set_keepcaps(1)
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)
        # The kernel takes (uid_t) -1 for "leave it as it is", which would be root (CVE-2024-40635).
        if os.getresuid() != (uid, uid, uid) or os.getresgid() != (gid, gid, gid):
            raise OSError(errno.EINVAL, f"the kernel made it uid {os.getuid()}, gid {os.getgid()}")
        prctl.set_keepcaps(0)
    prctl.set_dumpable(0)


@operation("set the capabilities: effective {0:#x}, permitted {1:#x}, inheritable {2:#x}, ambient {3:#x}")
def capabilities(context: Context, effective: int, permitted: int, inheritable: int, ambient: int) -> None:
    """Set the four per-process capability sets."""
    del context
    try:
        caps.capset(effective=effective, permitted=permitted, inheritable=inheritable)
    except PermissionError:
        # What cannot be granted is left out, as the runtime-spec asks; ``validate`` has warned of it.
        _none, held, _none = caps.capget()
        effective, permitted, inheritable, ambient = (
            mask & held for mask in (effective, permitted, inheritable, ambient)
        )
        caps.capset(effective=effective, permitted=permitted, inheritable=inheritable)
    caps.set_ambient(ambient)


@operation("let no execve give new privileges")
def no_new_privs(context: Context) -> None:
    """Set no_new_privs."""
    del context
    prctl.set_no_new_privs()


@operation("end when the spawner ends")
def die_with_spawner(context: Context) -> None:
    """SIGKILL on the spawner's death. Set after the last change of credentials."""
    del context
    prctl.set_pdeathsig(sched.SIGKILL)


@operation("go to the working directory {0}")
def chdir(context: Context, path: str, make: bool) -> None:  # noqa: FBT001
    """Enter the working directory and verify that it lies inside the root.

    A path through /proc/self/fd to a leaked directory would lead out; getcwd(2) tells by a path that does not
    start with a slash, or by ENOENT.
    """
    context.cwd_entered = False
    try:
        _enter_directory(path, make=make)
    except PermissionError:
        return  # perhaps only the process's own user may: chdir_again tries as that user
    _verify_inside(path)
    context.cwd_entered = True


@operation("go to the working directory {0}, if only its user may")
def chdir_again(context: Context, path: str) -> None:
    """Enter the working directory as the process's user, where root could not (a directory on FUSE or NFS)."""
    if not context.cwd_entered:
        os.chdir(path)
        _verify_inside(path)


@operation("find {0} in the PATH {1}")
def find_executable(context: Context, name: str, search: str) -> None:
    """Resolve the program as execvp(3) would, before a filter can get in the way."""
    if "/" in name:
        context.executable = name
        _check_executable(name)
        return
    refused: OSError | None = None
    for directory in search.split(":"):
        candidate = f"{directory or '.'}/{name}"
        try:
            _check_executable(candidate)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            refused = error
        else:
            context.executable = candidate
            return
    raise refused or FileNotFoundError(errno.ENOENT, "executable file not found in $PATH", name)


@operation("load the seccomp filter")
def load_filter(context: Context) -> None:
    """Load the program that ``prepare_filter`` laid out."""
    if context.filter is None:
        raise OSError(errno.EINVAL, "no seccomp filter was laid out")
    context.filter.load()


@operation("report that everything is ready")
def ready(context: Context) -> None:
    """Tell the client that the container is created."""
    os.write(context.fds["reply"], b'{"event": "ready"}')


@operation("wait for the start")
def wait_start(context: Context) -> None:
    """Accept one connection on the start socket and hold it: execve closes it, which means success to the starter.

    Before, the client says that it has written down who we are. One that was killed does not, and nobody could find us.
    """
    if os.read(context.fds["reply"], 8) != b"keep":
        os._exit(0)
    connection = fds.accept(context.fds["listen"])
    os.write(connection, b"starting")
    context.fds["starter"] = connection


@operation("wait for the program to run, as the runner")
def become_runner(context: Context) -> None:
    """Replace this process by the one that takes its system calls from the client; see ``runner`` and ``spare``."""
    signals.reset()
    reply, program = (_lift(context.fds[slot], runner.SOCKET + 1) for slot in ("reply", "runner"))
    fd_ranges.close_range(runner.SOCKET, flags=fd_ranges.CLOSE_RANGE_CLOEXEC)
    os.dup2(reply, runner.SOCKET, inheritable=True)
    os.execve(program, ["ocirun-spare"], {})


@operation("arrange the file descriptors {0}")
def arrange_fds(context: Context, targets: dict[str, str]) -> None:
    """Give the process exactly the fds of ``targets`` (number to slot); everything else closes at execve."""
    numbers = {int(number): slot for number, slot in targets.items()}
    floor = max(numbers) + 1
    lifted = {slot: _lift(fd, floor) for slot, fd in context.fds.items()}
    context.fds = lifted
    fd_ranges.close_on_exec(max(lifted.values()))
    for number, slot in numbers.items():
        os.dup2(lifted[slot], number, inheritable=True)


@operation("give every signal its default again")
def default_signals(context: Context) -> None:
    """Undo what Python and the caller left: ignored signals and blocked masks pass through execve."""
    del context
    signals.reset()


@operation("execute {0}")
def execute(context: Context, args: list[str], env: list[str]) -> None:
    """Replace this process by the program that was found. No other system call is made: a filter may be loaded."""
    environment = dict(item.split("=", 1) for item in env) | context.environment
    os.execve(context.executable, args, environment)


@operation("execute the holder")
def execute_holder(context: Context) -> None:
    """Replace this process by the idle program that keeps a container alive; SIGCHLD ignored reaps orphans."""
    signals.handle(signals.SIGCHLD, signals.SIG_IGN)
    os.execve(context.fds["holder"], ["ocirun-holder"], {})


def _verify_inside(path: str) -> None:
    try:
        inside = os.getcwd().startswith("/")
    except FileNotFoundError:
        inside = False
    if not inside:
        raise OSError(errno.EACCES, "the working directory lies outside the root file system", path)


def _enter_directory(path: str, *, make: bool) -> None:
    try:
        os.chdir(path)
    except FileNotFoundError:
        if not make:
            raise
        os.makedirs(path, exist_ok=True)
        os.chdir(path)


def _limit_number(name: str) -> int:
    return _RLIMIT_LOCKS if name == "RLIMIT_LOCKS" else int(getattr(resource, name))


def _limit(value: int) -> int:
    """The same as Python takes it, which is signed: -1 is infinity."""
    return value - _UNSIGNED if value >= _UNSIGNED // 2 else value


def _lift(fd: int, floor: int) -> int:
    import fcntl

    return fd if fd >= floor else fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, floor)


def _check_executable(path: str) -> None:
    mode = os.stat(path).st_mode
    if stat.S_ISDIR(mode):
        raise PermissionError(errno.EACCES, "Permission denied: it is a directory", path)
    # By access(2), as the ids are the same: a filter made before Linux 5.8 refuses faccessat2.
    if not os.access(path, os.X_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
