"""What a test needs of its host, and the probes that find out by trying the real thing.

::

    @requires("root", "cgroup_v2")
    def test_limit_is_read_back() -> None: ...

A lack is the kernel's (a feature that is not there) or the host's (a program, a right). Locally both skip.
Where ``CI`` or ``OCIRUN_STRICT`` is set, only the kernel's may skip; any other skip is a failure.
Knows nothing of pytest_ocirun: a probe must not lean on the code that it guards.
"""

import ctypes
import errno
import functools
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import NamedTuple

import pytest

KERNEL = "this kernel lacks"
"""How the reason of a skip begins that is allowed everywhere."""

UNPRIVILEGED_ID = 64321
"""An id that owns nothing; not 65534, which also stands for every id that is not mapped."""

SBIN_PATH = os.environ.get("PATH", os.defpath) + ":/usr/local/sbin:/usr/sbin:/sbin"

_LACKING = {errno.ENOSYS, errno.EINVAL, errno.ENODEV, errno.EOPNOTSUPP}


class Lack(NamedTuple):
    """Why a requirement does not hold.

    Attributes:
        why: one clause for the reader of the report.
        kernel: whether the kernel itself lacks the feature, which excuses a skip in CI.
    """

    why: str
    kernel: bool


Probe = Callable[[], Lack | None]
_PROBES: dict[str, Probe] = {}


def requires(*words: str) -> pytest.MarkDecorator:
    """A mark that skips, or in CI fails, the test on a host that lacks one of ``words``.

    Raises:
        ValueError: a word has no probe.
    """
    check_words(words)
    return pytest.mark.requires(*words)


def check_words(words: tuple[str, ...]) -> None:
    """Refuse words that nothing probes, so that a misspelt one cannot pass for a requirement that holds.

    Raises:
        ValueError: a word has no probe, or none is given.
    """
    unknown = sorted(set(words) - set(_PROBES))
    if unknown or not words:
        msg = f"requires({', '.join(map(repr, words))}): no probe for {unknown}; known are {sorted(_PROBES)}"
        raise ValueError(msg)


@functools.cache
def lack(word: str) -> Lack | None:
    """What this host lacks of ``word``; None when all is there. Each probe runs once per session."""
    return _PROBES[word]()


def strict() -> bool:
    """Whether a skip is a failure unless the kernel is to blame."""
    return any(os.environ.get(name, "") not in {"", "0", "false"} for name in ("CI", "OCIRUN_STRICT"))


def alone() -> bool:
    """Whether all of ours on this machine is this run's: CI's lanes after the main run share it (OCIRUN_SHARED)."""
    return strict() and os.environ.get("OCIRUN_SHARED", "") in {"", "0", "false"}


def lane() -> str:
    """The lane that tox runs: ``v2``, ``rootless``, or nothing."""
    return os.environ.get("OCIRUN_LANE", "")


def _probe(function: Probe) -> Probe:
    _PROBES[function.__name__] = function
    return function


def _program(word: str, *names: str) -> None:
    def probe() -> Lack | None:
        missing = [name for name in names or (word,) if not shutil.which(name, path=SBIN_PATH)]
        return Lack(f"no {' and no '.join(missing)} on this host", kernel=False) if missing else None

    _PROBES[word] = probe


for _name in ("bash", "zsh", "fish", "runc", "crun", "mmdebstrap", "busybox", "memcached", "zstd", "xz"):
    _program(_name)
for _name in ("podman", "conmon", "buildah"):
    _program(_name)
_program("bubblewrap", "bwrap")
_program("uml", "linux.uml")
_program("systemd", "systemd-run")  # its manager lies beside PATH, in the same package
_program("iproute2", "ip")
_program("containerd", "containerd", "containerd-shim-runc-v2", "ctr")


def _in_namespaces(script: str, *flags: str, user: int | None = None) -> str:
    """Run a shell script in new namespaces; its error text, empty on success."""
    done = subprocess.run(
        ["unshare", *flags, "sh", "-euc", script],
        capture_output=True,
        text=True,
        check=False,
        user=user,
        group=user,
        extra_groups=None if user is None else [],
        cwd="/",
        env={"PATH": SBIN_PATH},
    )
    return done.stderr.strip() if done.returncode else ""


@_probe
def ps() -> Lack | None:
    """A ps(1) that runs: the one of procps wants to know when the machine was booted."""
    if not shutil.which("ps"):
        return Lack("no ps on this host", kernel=False)
    done = subprocess.run(["ps", "-ef"], capture_output=True, text=True, check=False)
    return Lack(f"what ps asks it: {done.stderr.strip()}", kernel=True) if done.returncode else None


@_probe
def root() -> Lack | None:
    """Uid 0 that may mount."""
    if os.geteuid():
        return Lack("not run as root", kernel=False)
    problem = _in_namespaces("mount -t tmpfs none /mnt", "--mount")
    return Lack(f"root may not mount: {problem}", kernel=False) if problem else None


@_probe
def userns() -> Lack | None:
    """A user namespace whose root may mount, made by who runs the tests."""
    return _userns(None)


@_probe
def unprivileged() -> Lack | None:
    """The same, made by a user without any privilege: the rootless case."""
    return _userns(None if os.geteuid() else UNPRIVILEGED_ID)


def _userns(user: int | None) -> Lack | None:
    problem = _in_namespaces("mount -t tmpfs none /mnt", "--user", "--map-root-user", "--mount", user=user)
    if not problem:
        return None
    return Lack(f"no usable user namespace: {problem}", kernel=not os.path.exists("/proc/self/ns/user"))


@_probe
def overlay() -> Lack | None:
    """An overlay whose upper layer lies on a tmpfs."""
    layers = "lowerdir=l,upperdir=u,workdir=w"
    script = f"mount -t tmpfs t /mnt; cd /mnt; mkdir l u w m; mount -t overlay -o {layers} o m"
    problem = _in_namespaces(script, "--mount", *(("--user", "--map-root-user") if os.geteuid() else ()))
    if not problem:
        return None
    with open("/proc/filesystems", encoding="ascii") as file:
        return Lack(f"no overlay: {problem}", kernel="overlay" not in file.read())


def _cgroup_mounts() -> dict[str, str]:
    """``{"v2" or a v1 controller: mount point}`` of what is mounted."""
    found: dict[str, str] = {}
    with open("/proc/self/mounts", encoding="utf-8") as file:
        for line in file:
            _, target, kind, options, *_ = line.split()
            if kind == "cgroup2":
                found.setdefault("v2", target)
            elif kind == "cgroup":
                found.update(dict.fromkeys(options.split(","), target))
    return found


def _own_group(word: str) -> Lack | None:
    """Make and remove a group below the mount of controller ``word``."""
    mount = _cgroup_mounts().get(word)
    if mount is None:
        return Lack(f"cgroup {word} is not mounted", kernel=True)
    try:
        os.rmdir(tempfile.mkdtemp(prefix="requires-", dir=mount))
    except OSError as error:
        return Lack(f"may not make a cgroup below {mount}: {error.strerror}", kernel=False)
    return None


@_probe
def cgroup_v1() -> Lack | None:
    """The memory, pids and cpu controllers on cgroup v1."""
    return _own_group("memory") or _own_group("pids") or _own_group("cpu")


@_probe
def cgroup_v2() -> Lack | None:
    """The memory, pids and cpu controllers on cgroup v2 (a hybrid host's bare v2 tree has none)."""
    lacking = _own_group("v2")
    if lacking:
        return lacking
    with open(_cgroup_mounts()["v2"] + "/cgroup.controllers", encoding="ascii") as file:
        missing = {"memory", "pids", "cpu"} - set(file.read().split())
    return Lack(f"cgroup v2 without {', '.join(sorted(missing))}", kernel=True) if missing else None


@_probe
def cpuset() -> Lack | None:
    """The cpuset controller, on whichever version; a kernel for one processor may lack it."""
    with open("/proc/cgroups", encoding="ascii") as file:
        return None if "cpuset" in file.read() else Lack("the cpuset controller", kernel=True)


@_probe
def cgroup() -> Lack | None:
    """Limits on memory, pids and cpu, by whichever version."""
    return cgroup_v2() and cgroup_v1()


@_probe
def veth() -> Lack | None:
    """Pairs of virtual network devices, in a network namespace that may be thrown away."""
    problem = _in_namespaces("ip link add veth0 type veth peer name veth1", "--net")
    unknown = "not supported" in problem or "Unknown device type" in problem
    return Lack(f"veth devices: {problem}", kernel=unknown) if problem else None


@_probe
def subids() -> Lack | None:
    """The programs that map ids of subuid(5), and its files to put others in the place of."""
    places = (
        "/etc/subuid",
        "/etc/subgid",
        *(shutil.which(name, path=SBIN_PATH) for name in ("newuidmap", "newgidmap")),
    )
    missing = [place for place in places if place is None or not os.path.exists(place)]
    return Lack("no newuidmap, newgidmap, or no file for them", kernel=False) if missing else None


@_probe
def sys_resource() -> Lack | None:
    """The right to raise hard limits; what the bounding set of a machine lacks nobody on it can have."""
    with open("/proc/self/status", encoding="ascii") as file:
        held = next(int(line.split()[1], 16) for line in file if line.startswith("CapEff"))
    return None if held >> 24 & 1 else Lack("CAP_SYS_RESOURCE, or its bounding set does", kernel=True)


@_probe
def selinux() -> Lack | None:
    """SELinux without a policy, which then knows a few labels of the kernel's own."""
    with open("/proc/filesystems", encoding="ascii") as file:
        enabled = "selinuxfs" in file.read().split()
    loaded = os.path.exists("/sys/fs/selinux/enforce")
    return None if enabled and not loaded else Lack("SELinux without a policy", kernel=True)


@_probe
def timens() -> Lack | None:
    """Time namespaces."""
    return None if os.path.exists("/proc/self/ns/time") else Lack("time namespaces", kernel=True)


@_probe
def numa() -> Lack | None:
    """Memory policies."""
    return None if os.path.exists("/proc/self/numa_maps") else Lack("memory policies", kernel=True)


@_probe
def seccomp() -> Lack | None:
    """The kernel takes filters, and libseccomp can be loaded to make them."""
    with open("/proc/self/status", encoding="ascii") as file:
        if "Seccomp_filters:" not in file.read():
            return Lack("seccomp filters", kernel=True)
    try:
        ctypes.CDLL("libseccomp.so.2")
    except OSError as error:
        return Lack(f"libseccomp cannot be loaded: {error}", kernel=False)
    return None


@_probe
def usher() -> Lack | None:
    """Memory files that can be executed, on a machine that the usher is written for."""
    if os.uname().machine not in {"x86_64", "aarch64"}:
        return Lack(f"an usher for {os.uname().machine}", kernel=True)
    memory = os.memfd_create("true", os.MFD_CLOEXEC)
    try:
        with open(shutil.which("true", path=SBIN_PATH) or "/bin/true", "rb") as program:
            os.write(memory, program.read())
        done = subprocess.run([f"/proc/self/fd/{memory}"], pass_fds=[memory], check=False, capture_output=True)
    except OSError as error:
        return Lack(f"executable memory files: {error}", kernel=True)
    finally:
        os.close(memory)
    return Lack("executable memory files", kernel=True) if done.returncode else None


@_probe
def idmap() -> Lack | None:
    """An idmapped clone of a directory of the temporary file system."""
    if os.geteuid():
        return Lack("not run as root", kernel=False)
    with subprocess.Popen(["unshare", "--user", "sleep", "60"]) as holder:
        try:
            if not _reaches_exec(holder):
                return Lack("no user namespace to map with", kernel=False)
            for name in ("uid_map", "gid_map"):
                with open(f"/proc/{holder.pid}/{name}", "w", encoding="ascii") as file:
                    file.write("0 100000 1000")
            code = _idmapped_clone(tempfile.gettempdir(), f"/proc/{holder.pid}/ns/user")
        finally:
            holder.kill()
    if not code:
        return None
    return Lack(f"no idmapped mounts here: {os.strerror(code)}", kernel=code in _LACKING)


def _reaches_exec(holder: subprocess.Popen[bytes]) -> bool:
    """Wait until unshare(1) has become the program that holds the namespace; False if it ended instead."""
    while holder.poll() is None:
        with open(f"/proc/{holder.pid}/comm", encoding="ascii") as file:
            if file.read().strip() == "sleep":
                return True
        time.sleep(0.002)
    return False


def _idmapped_clone(path: str, namespace: str) -> int:
    """The errno of open_tree(2) + mount_setattr(2) with MOUNT_ATTR_IDMAP; 0 when both work."""
    at_fdcwd, clone, empty_path, idmap_flag = -100, 1, 0x1000, 0x100000
    libc = ctypes.CDLL(None, use_errno=True)
    tree = libc.syscall(428, at_fdcwd, os.fsencode(path), clone | os.O_CLOEXEC)
    if tree < 0:
        return ctypes.get_errno()
    userns_fd = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
    try:
        attributes = (ctypes.c_uint64 * 4)(idmap_flag, 0, 0, userns_fd)
        failed = libc.syscall(442, tree, b"", empty_path, ctypes.byref(attributes), ctypes.sizeof(attributes))
        return ctypes.get_errno() if failed < 0 else 0
    finally:
        os.close(userns_fd)
        os.close(tree)


def main() -> int:
    """Print the answer of every probe: `python -m tests.requires`."""
    for word in sorted(_PROBES):
        found = lack(word)
        print(f"{word:14} {'yes' if found is None else f'no: {found.why}'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
