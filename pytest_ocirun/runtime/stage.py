"""The stage: where a spawner stands before it touches a container.

Two things keep a container away from the host's interpreter (CVE-2019-5736). Our processes are non-dumpable, so that
nothing inside can open their /proc/PID/exe; and they were exec'ed from a read-only bind in a private mount namespace,
so that even an ``exe`` that is reopened after an execve of ``/proc/self/exe`` cannot be written. One of the two alone
is not enough without a user namespace.

Without root the private mount namespace needs a user namespace around it: the *outer* one, which maps its 0 to the
caller. To enter a container that another process made, that process's outer namespace is joined, since only its owner
has rights over the container's own.
"""

from __future__ import annotations

import errno
import fcntl
import os
import sys

from pytest_ocirun.errors import KernelRefused, Unsupported
from pytest_ocirun.linux import caps, mount, prctl, sched

WORK = "@work"

OUTER = "OCIRUN_OUTER"
"""In the environment of a process on the stage: it stands in an outer namespace that was made for it."""

_HOST_MOUNTS = "OCIRUN_HOST_MOUNTS"
_NS_GET_PARENT = 0xB702
_PACKAGE_PARENT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
_BOOT = "import sys; sys.path += {places!r}; from {module} import main; main()"
_PACKAGES = ("site-packages", "dist-packages")


def command(module: str, *args: str) -> list[str]:
    """The argv that runs ``module.main()`` in a bare interpreter: no site, no environment, no user's directories."""
    executable = os.path.realpath(sys.executable)
    # After the standard library, never before it: nothing there can stand in for a module of Python's own.
    installed = [path for path in sys.path if path.startswith("/") and path.rstrip("/").endswith(_PACKAGES)]
    places = list(dict.fromkeys([_PACKAGE_PARENT, *installed]))
    boot = _BOOT.format(places=places, module=module)
    return [executable, "-I", "-S", "-X", "utf8", "-c", boot, *args]


def enter(module: str, *args: str, container: int | None = None, subids: bool = False) -> None:
    """Move this process onto the stage and replace it by ``module.main()``; does not return.

    Args:
        module: the module whose ``main`` runs next.
        args: its ``sys.argv[1:]``.
        container: pid of a container's init that will be entered; matters only without root.
        subids: without root, map the ids that subuid(5) gives to the user as well.

    Raises:
        Unsupported: the kernel does not allow the namespaces.
        KernelRefused: another step failed.
    """
    marks = {_HOST_MOUNTS: str(os.stat("/proc/self/ns/mnt").st_ino)} if is_privileged() else {OUTER: "1"}
    try:
        if _HOST_MOUNTS in marks:
            sched.unshare(sched.CLONE_NEWNS)
        elif container is not None and (outer := _outer_namespace(container)) is not None:
            sched.setns(outer, sched.CLONE_NEWUSER)
            sched.unshare(sched.CLONE_NEWNS)
        else:
            _enter_user_namespace(subids=subids)
    except OSError as error:
        raise Unsupported(
            f"make a private mount namespace: {error.strerror}",
            hint="Unprivileged user namespaces are needed, or root with CAP_SYS_ADMIN. See"
            " /proc/sys/user/max_user_namespaces, kernel.unprivileged_userns_clone and"
            " kernel.apparmor_restrict_unprivileged_userns; inside another container its seccomp policy.",
        ) from error
    argv = command(module, *args)
    try:
        mount.mount(None, "/", None, mount.MS_REC | mount.MS_SLAVE)
        _bind_read_only(argv[0])
    except OSError as error:
        raise KernelRefused(
            f"bind {argv[0]} read-only in a private mount namespace: {error.strerror}", errno=error.errno or 0
        ) from error
    prctl.set_dumpable(0)
    os.execve(argv[0], argv, {"PATH": os.environ.get("PATH", os.defpath), **marks})


def host_mounts() -> int:
    """Open the mount namespace that this process was in before it entered the stage, through a process that is there.

    It is not held open: a fd that every spawner inherits would be one that a container can be given by mistake.

    Raises:
        OSError: EPERM, when it has no rights there; ESRCH, when nobody is left there.
    """
    wanted = os.environ.get(_HOST_MOUNTS)
    if wanted is None:
        raise OSError(errno.EPERM, "only root can take part in the propagation of the host's mounts")
    for pid in (os.getppid(), *(name for name in os.listdir("/proc") if name.isdigit())):
        try:
            fd = os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            continue
        if str(os.fstat(fd).st_ino) == wanted:
            return fd
        os.close(fd)
    raise OSError(errno.ESRCH, "no process is left in the mount namespace that this one came from")


def detach() -> None:
    """Go where ``enter`` goes, but stay the process that it is: enough with an usher (``runtime.usher``), as root.

    Raises:
        KernelRefused: the kernel does not allow the namespace.
    """
    try:
        os.environ[_HOST_MOUNTS] = str(os.stat("/proc/self/ns/mnt").st_ino)
        sched.unshare(sched.CLONE_NEWNS)
        mount.mount(None, "/", None, mount.MS_REC | mount.MS_SLAVE)
    except OSError as error:
        raise KernelRefused(f"make a private mount namespace: {error.strerror}", errno=error.errno or 0) from error


def shares_mounts(path: str) -> bool:
    """Whether the mount namespace at ``path`` is that of this process, of who started it, or of the host's init."""
    known = {os.environ.get(_HOST_MOUNTS, "")}
    for pid in ("self", "1"):
        try:
            known.add(str(os.stat(f"/proc/{pid}/ns/mnt").st_ino))
        except PermissionError:
            pass  # a plain user, who could not join it anyway
    return str(os.stat(path).st_ino) in known


def is_privileged() -> bool:
    """Whether this process needs no user namespace around its mount namespace."""
    return os.geteuid() == 0 and _holds_sys_admin()


def take_place(root: str) -> None:
    """Make the spawner's working directory below the state root ``root`` and enter it.

    It is a tmpfs in the private mount namespace: nobody else sees it, and it ends with the process.
    """
    prctl.set_dumpable(0)
    directory = f"{root}/{WORK}"
    for path in (root, directory):  # makedirs gives its mode to the last directory only
        os.makedirs(path, mode=0o700, exist_ok=True)
    mount.mount("ocirun", directory, "tmpfs", mount.MS_NOSUID | mount.MS_NODEV, "mode=0711,size=1m")
    mount.mount(None, directory, None, mount.MS_PRIVATE)
    os.chdir(directory)
    for name in ("root", "upper", "lower"):
        os.mkdir(name, 0o711)


def _enter_user_namespace(*, subids: bool) -> None:
    uid, gid = os.geteuid(), os.getegid()
    if subids:
        from pytest_ocirun.runtime.subids import Mapper

        mapper = Mapper(uid, gid)
        sched.unshare(sched.CLONE_NEWUSER | sched.CLONE_NEWNS)
        mapper.finish()
        return
    sched.unshare(sched.CLONE_NEWUSER | sched.CLONE_NEWNS)
    for name, text in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1")):
        fd = os.open(f"/proc/self/{name}", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, text.encode())
        finally:
            os.close(fd)


def _outer_namespace(pid: int) -> int | None:
    """A fd of the parent of the user namespace of ``pid``; None when that is our own."""
    inner = os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    try:
        parent = fcntl.ioctl(inner, _NS_GET_PARENT)
    except PermissionError:
        return None
    finally:
        os.close(inner)
    own = os.stat("/proc/self/ns/user")
    found = os.fstat(parent)
    return None if (own.st_dev, own.st_ino) == (found.st_dev, found.st_ino) else parent


def _bind_read_only(path: str) -> None:
    fd = mount.open_tree(mount.AT_FDCWD, path)
    mount.mount_setattr(fd, set=mount.MOUNT_ATTR_RDONLY)
    target = os.open(path, os.O_PATH | os.O_CLOEXEC)
    mount.move_mount(fd, target)
    os.close(target)
    os.close(fd)


def _holds_sys_admin() -> bool:
    return bool(caps.capget()[0] >> caps.NUMBERS["CAP_SYS_ADMIN"] & 1)
