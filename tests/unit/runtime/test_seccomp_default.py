"""The default filter refuses what it says, and nothing that honest programs need."""

import errno
import json
import platform
import signal
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from pytest_ocirun.oci.runtime import Seccomp, Syscall, SyscallArg
from pytest_ocirun.runtime.seccomp import _NEWER, compile_filter
from pytest_ocirun.runtime.seccomp_default import ALLOWED, REFUSED, default_filter
from tests import bpf
from tests.requires import requires

pytestmark = [
    requires("seccomp"),
    pytest.mark.skipif(platform.machine() != "x86_64", reason="this kernel lacks x86-64's numbers"),
]

_LAST_NUMBER = 500
_HIGH = 1 << 32
_VALUES = {
    "clone": [0, 0x11, 0x3D0F00, *(1 << bit for bit in range(33)), _HIGH | 0x10000000, 0x7E020011],
    "unshare": [0, 0x80, 0x200, *(1 << bit for bit in range(33)), _HIGH | 0x10000000],
    "personality": [0, 8, 0x20000, 0x20008, 0xFFFFFFFF, 0x0400000, 0x0040000, _HIGH, _HIGH | 0x0400000],
    "socket": [*range(50), _HIGH | 40, 1 << 31],
    "socketpair": [*range(50), _HIGH | 40],
    "ioctl": [0, *range(0x5400, 0x5430), *(0x5412 ^ 1 << bit for bit in range(33)), _HIGH | 0x541C, _HIGH],
}


@pytest.fixture(scope="module")
def program() -> bytes:
    """The default filter, compiled."""
    return compile_filter(default_filter()).code


def test_every_name_is_known_or_listed_as_newer() -> None:
    """No misspelt name is skipped in silence."""
    assert not compile_filter(default_filter()).skipped


def test_allowed_and_refused_are_apart() -> None:
    """No name is in two groups."""
    assert not _names(ALLOWED) & _names(REFUSED)
    assert len(_names(ALLOWED)) == sum(len(names.split()) for names in ALLOWED.values())


def test_program_is_the_document(program: bytes) -> None:
    """Every number of the machine, and for conditions many values, against a reading of the document."""
    document = default_filter()
    wrong = []
    for number in range(_LAST_NUMBER):
        name = _name(number)
        index = 1 if name == "ioctl" else 0
        for value in _VALUES.get(name, [0, 1 << 40]):
            for third in (0, 1, _HIGH | 1):
                args = (0, value, third) if index else (value, 0, third)
                if bpf.run(program, number, args) != _read(document, name, args):
                    wrong.append((name or number, args))

    assert wrong == []


@pytest.mark.parametrize(
    "name, args, answer",
    [
        ("clone", (0x11,), bpf.ALLOW),
        ("clone", (0x3D0F00,), bpf.ALLOW),
        ("clone", (0x10000011,), bpf.ERRNO | errno.EPERM),
        ("clone", (_HIGH | 0x10000011,), bpf.ERRNO | errno.EPERM),
        ("clone", (0x00020011,), bpf.ERRNO | errno.EPERM),
        ("unshare", (0x400,), bpf.ALLOW),
        ("unshare", (0x80,), bpf.ERRNO | errno.EPERM),
        ("clone3", (), bpf.ERRNO | errno.ENOSYS),
        ("ioctl", (0, 0x5401), bpf.ALLOW),
        ("ioctl", (0, 0xFFFFFFFF80045430), bpf.ALLOW),
        ("ioctl", (0, 0x5412), bpf.ERRNO | errno.EPERM),
        ("ioctl", (0, _HIGH | 0x5412), bpf.ERRNO | errno.EPERM),
        ("ioctl", (0, _HIGH | 0x541C), bpf.ERRNO | errno.EPERM),
        ("socket", (1,), bpf.ALLOW),
        ("socket", (16, 3, 0), bpf.ALLOW),
        ("socket", (16, 3, 12), bpf.ERRNO | errno.EPROTONOSUPPORT),
        ("socket", (17,), bpf.ERRNO | errno.EAFNOSUPPORT),
        ("socket", (38,), bpf.ERRNO | errno.EAFNOSUPPORT),
        ("socket", (40,), bpf.ERRNO | errno.EAFNOSUPPORT),
        ("socket", (_HIGH | 40,), bpf.ERRNO | errno.EAFNOSUPPORT),
        ("personality", (0xFFFFFFFF,), bpf.ALLOW),
        ("personality", (0x0400000,), bpf.ERRNO | errno.ENOSYS),
    ],
)
def test_condition(program: bytes, name: str, args: tuple[int, ...], answer: int) -> None:
    """The document itself says what it should: conditions, by example."""
    assert answer == bpf.run(program, _number(name), args)


def test_other_abis_die(program: bytes) -> None:
    """Calls of x32, IA-32 and a foreign machine end the process."""
    getpid = 39

    assert bpf.run(program, 0x40000000 | getpid) == bpf.KILL_PROCESS
    assert bpf.run(program, getpid, arch=bpf.I386) == bpf.KILL_PROCESS
    assert bpf.run(program, getpid, arch=bpf.AARCH64) == bpf.KILL_PROCESS


def test_system_calls_of_the_future_are_missing(program: bytes) -> None:
    """A number that nobody has heard of gives ENOSYS."""
    assert bpf.run(program, 4000) == bpf.ERRNO | errno.ENOSYS


@pytest.mark.conforms("config: $.linux.seccomp.architectures SCMP_ARCH_AARCH64")
def test_same_on_aarch64() -> None:
    """The conditions hold under aarch64's numbers too."""
    document = default_filter()
    document.architectures = ["SCMP_ARCH_AARCH64"]
    code = compile_filter(document).code
    numbers = {"clone": 220, "unshare": 97, "ioctl": 29, "mount": 40, "read": 63, "setns": 268}

    def answer(name: str, *args: int) -> int:
        return bpf.run(code, numbers[name], args, bpf.AARCH64)

    assert answer("read") == bpf.ALLOW
    assert answer("clone", 0x11) == bpf.ALLOW
    assert answer("clone", 0x10000011) == bpf.ERRNO | errno.EPERM
    assert answer("unshare", 0x10000000) == bpf.ERRNO | errno.EPERM
    assert answer("ioctl", 0, _HIGH | 0x5412) == bpf.ERRNO | errno.EPERM
    assert answer("mount") == bpf.ERRNO | errno.EPERM
    assert answer("setns") == bpf.ERRNO | errno.EPERM


_ATTEMPTS = """
import ctypes, json, os, signal, struct, sys

def load(path):
    code = open(path, "rb").read()
    buffer = ctypes.create_string_buffer(code, len(code))
    class Program(ctypes.Structure):
        _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_void_p)]
    libc.prctl(38, 1, 0, 0, 0)
    if libc.syscall(317, 1, 0, ctypes.byref(Program(len(code) // 8, ctypes.addressof(buffer)))):
        raise OSError(ctypes.get_errno(), "seccomp")

libc = ctypes.CDLL(None, use_errno=True)
path, calls = sys.argv[1], json.loads(sys.argv[2])
if path != "-":
    load(path)
answers = []
for number, *args in calls:
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.setsid()
        ctypes.set_errno(0)
        args = [ctypes.c_ulong(value) for value in args]
        result = libc.syscall(number, *args)
        os.write(write, struct.pack("i", ctypes.get_errno() if result == -1 else 0))
        os._exit(0)
    os.close(write)
    status = os.waitpid(child, 0)[1]
    data = os.read(read, 4)
    answers.append(struct.unpack("i", data)[0] if data else -os.WTERMSIG(status))
    os.close(read)
print(json.dumps(answers))
"""


class Call(NamedTuple):
    """One system call that the filter refuses, with arguments that harm nothing if it does not."""

    name: str
    args: tuple[int, ...]
    refusal: int = errno.EPERM


_BAD = 1
"""A pointer to nowhere."""

_NOWHERE = 0xFFFFFFFF
"""A file descriptor or a size that cannot be."""

_OPTIONAL = [Call("socket", (38, 5, 0), errno.EAFNOSUPPORT), Call("socket", (40, 1, 0), errno.EAFNOSUPPORT)]
"""Families (ALG, VSOCK) that a kernel may really lack; AF_PACKET below is always there for root."""

_REFUSED_CALLS = [
    Call("mount", (_BAD, _BAD, _BAD, 0, 0)),
    Call("umount2", (_BAD, 0)),
    Call("pivot_root", (_BAD, _BAD)),
    Call("chroot", (_BAD,)),
    Call("open_tree", (_NOWHERE, _BAD, 0)),
    Call("move_mount", (_NOWHERE, _BAD, _NOWHERE, _BAD, 0)),
    Call("fsopen", (_BAD, 0)),
    Call("fsconfig", (_NOWHERE, 0, 0, 0, 0)),
    Call("fsmount", (_NOWHERE, 0, 0)),
    Call("fspick", (_NOWHERE, _BAD, 0)),
    Call("mount_setattr", (_NOWHERE, _BAD, 0, _BAD, 32)),
    Call("setns", (_NOWHERE, 0)),
    Call("bpf", (9999, 0, 0)),
    Call("perf_event_open", (_BAD, 0, 0, 0, 0)),
    Call("lookup_dcookie", (0, _BAD, 0)),
    Call("add_key", (_BAD, _BAD, 0, 0, 0)),
    Call("request_key", (_BAD, _BAD, 0, 0)),
    Call("keyctl", (9999,)),
    Call("userfaultfd", (0x7FFFFFFE,)),
    Call("io_uring_setup", (0, _BAD)),
    Call("io_uring_enter", (_NOWHERE, 0, 0, 0, 0, 0)),
    Call("io_uring_register", (_NOWHERE, 9999, 0, 0)),
    Call("open_by_handle_at", (_NOWHERE, _BAD, 0)),
    Call("fanotify_init", (_NOWHERE, 0)),
    Call("fanotify_mark", (_NOWHERE, 0, 0, 0, 0)),
    Call("quotactl", (_NOWHERE, _BAD, 0, 0)),
    Call("quotactl_fd", (_NOWHERE, 0, 0, 0)),
    Call("init_module", (_BAD, 0, _BAD)),
    Call("finit_module", (_NOWHERE, _BAD, 0)),
    Call("delete_module", (_BAD, 0)),
    Call("create_module", (_BAD, 0)),
    Call("kexec_load", (0, 0, 0, 0xDEAD)),
    Call("kexec_file_load", (_NOWHERE, _NOWHERE, 0, 0, 0xDEAD)),
    Call("reboot", (0, 0, 0, 0)),
    Call("swapon", (_BAD, 0)),
    Call("swapoff", (_BAD,)),
    Call("acct", (_BAD,)),
    Call("syslog", (9999, 0, 0)),
    Call("settimeofday", (_BAD, 0)),
    Call("clock_settime", (9999, _BAD)),
    Call("sethostname", (_BAD, _NOWHERE)),
    Call("setdomainname", (_BAD, _NOWHERE)),
    Call("ioperm", (_NOWHERE, 1, 1)),
    Call("iopl", (9,)),
    Call("vhangup", ()),
    Call("modify_ldt", (99, 0, 0)),
    Call("migrate_pages", (0, 0, 0, 0)),
    Call("move_pages", (0, 0, 0, 0, 0, 0)),
    Call("unshare", (0x10000000,)),
    Call("unshare", (0x00020000,)),
    Call("unshare", (0x80,)),
    Call("clone", (0x10000000 | signal.SIGCHLD, 0, 0, 0, 0)),
    Call("clone3", (_BAD, 88), errno.ENOSYS),
    Call("ioctl", (0, 0x5412, _BAD)),
    Call("ioctl", (0, _HIGH | 0x5412, _BAD)),
    Call("socket", (17, 3, 0), errno.EAFNOSUPPORT),
    *_OPTIONAL,
    Call("socket", (16, 3, 16), errno.EPROTONOSUPPORT),
    Call("personality", (0x0400000,), errno.ENOSYS),
    Call("getpid", (), -signal.SIGSYS),
]


@requires("root")
def test_kernel_refuses(program: bytes, tmp_path: Path) -> None:
    """With the filter each call gives its errno; without it another answer: no refusal is a coincidence."""
    file = tmp_path / "filter"
    file.write_bytes(program)
    calls = [[_number(call.name), *call.args] for call in _REFUSED_CALLS]
    calls[-1][0] |= 0x40000000
    with_filter = _attempt(str(file), calls)
    without = _attempt("-", calls)

    assert [call.refusal for call in _REFUSED_CALLS] == with_filter
    assert [
        call
        for call, filtered, free in zip(_REFUSED_CALLS, with_filter, without, strict=True)
        if filtered == free and not (call in _OPTIONAL and free == errno.EAFNOSUPPORT)
    ] == []


def test_each_refused_name_is_tried() -> None:
    """The list of attempts is complete, but for a call that is too new for most kernels."""
    assert not _names(REFUSED) - {call.name for call in _REFUSED_CALLS} - {"open_tree_attr"}


_INT80 = """
import ctypes, mmap, os, sys
page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
page.write(bytes.fromhex("b814000000" "cd80" "c3"))
getpid = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))
sys.stdout.write("right" if getpid() == os.getpid() else "wrong")
"""


def test_int80_kills(program: bytes, tmp_path: Path) -> None:
    """A 32-bit call from a 64-bit process works without the filter, and ends the process with it."""
    free = subprocess.run([sys.executable, "-c", _INT80], capture_output=True, text=True, check=False)
    if free.returncode == -signal.SIGSEGV:
        pytest.skip("this kernel lacks IA-32 emulation")
    filtered = _under(program, tmp_path, [sys.executable, "-c", _INT80])

    assert (free.stdout, filtered.returncode) == ("right", -signal.SIGSYS)


_HONEST = """
import asyncio, concurrent.futures, ctypes, json, mmap, multiprocessing, os, pathlib, select, signal, socket
import sqlite3, subprocess, sys, tempfile, threading, time, resource, fcntl, shutil

done = []
with tempfile.TemporaryDirectory() as folder:
    place = pathlib.Path(folder)
    (place / "a").write_text("a")
    shutil.copy2(place / "a", place / "b")
    os.link(place / "a", place / "c"); os.symlink("a", place / "d"); os.mkfifo(place / "e")
    os.chmod(place / "a", 0o600); os.utime(place / "a"); os.rename(place / "c", place / "f")
    sqlite3.connect(place / "db").execute("create table t (x)").connection.commit()
    with open(place / "lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
    done.append(sorted(os.listdir(place)) != [])
done.append(subprocess.run(["sh", "-c", "echo a | cat; kill -0 $$"], capture_output=True).stdout == b"a\\n")
done.append(os.waitpid(os.posix_spawn("/bin/true", ["true"], {}), 0)[1] == 0)
with concurrent.futures.ThreadPoolExecutor(8) as pool:
    done.append(sum(pool.map(lambda value: value * value, range(100))) == 328350)
with multiprocessing.get_context("fork").Pool(2) as pool:
    done.append(pool.map(abs, [-1, -2]) == [1, 2])
for family, address in ((socket.AF_INET, ("127.0.0.1", 0)), (socket.AF_UNIX, "")):
    server = socket.socket(family); server.bind(address); server.listen()
    client = socket.socket(family); client.connect(server.getsockname())
    peer, _ = server.accept(); client.sendall(b"x"); done.append(peer.recv(1) == b"x")
done.append(bool(socket.getaddrinfo("localhost", 80)) and bool(socket.if_nameindex()))
async def tick():
    process = await asyncio.create_subprocess_exec("true")
    return await process.wait()
done.append(asyncio.run(tick()) == 0)
signal.signal(signal.SIGALRM, lambda *_: done.append(True)); signal.setitimer(signal.ITIMER_REAL, 0.01)
time.sleep(0.05)
memory = mmap.mmap(-1, 1 << 20); memory[:5] = b"hello"; memory.madvise(mmap.MADV_DONTNEED)
os.memfd_create("x"); os.pidfd_open(os.getpid()); os.sched_getaffinity(0); os.getrandom(8); os.uname()
os.sendfile(os.memfd_create("y"), os.open(sys.executable, os.O_RDONLY), 0, 10)
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
poll = select.epoll(); poll.register(server); poll.close()
print(json.dumps(all(done) and len(done)))
"""


def test_honest_program_runs(program: bytes, tmp_path: Path) -> None:
    """Files, sqlite, shells, threads, pools, sockets, names, asyncio, timers, memory: all work."""
    done = _under(program, tmp_path, [sys.executable, "-c", _HONEST])

    assert (done.stdout, done.stderr, done.returncode) == ("10\n", "", 0)


def _under(program: bytes, folder: Path, args: list[str]) -> "subprocess.CompletedProcess[str]":
    file = folder / "filter"
    file.write_bytes(program)
    script = _ATTEMPTS.split("path, calls", maxsplit=1)[0] + "load(sys.argv[1])\nos.execvp(sys.argv[2], sys.argv[2:])"
    return subprocess.run(
        [sys.executable, "-c", script, str(file), *args],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        stdin=subprocess.DEVNULL,
    )


def _attempt(file: str, calls: list[list[int]]) -> list[int]:
    done = subprocess.run(
        [sys.executable, "-c", _ATTEMPTS, file, json.dumps(calls)],
        capture_output=True,
        text=True,
        check=True,
        stdin=subprocess.DEVNULL,
    )
    return [int(answer) for answer in json.loads(done.stdout)]


def _names(groups: dict[str, str]) -> set[str]:
    return {name for names in groups.values() for name in names.split()}


def _name(number: int) -> str:
    import pyseccomp

    newer = {value: name for name, value in _NEWER.items()}
    try:
        return newer.get(number) or pyseccomp.resolve_syscall(0, number).decode()
    except ValueError:
        return ""


def _number(name: str) -> int:
    import pyseccomp

    return {"clone3": 435, **_NEWER}.get(name) or int(pyseccomp.resolve_syscall(0, name))


def _read(document: Seccomp, name: str, args: tuple[int, ...]) -> int:
    """What the document says about a call: the first rule that names it and whose conditions all hold."""
    for rule in document.syscalls:
        if name in rule.names and all(_holds(each, args[each.index]) for each in rule.args):
            return _answer(rule)
    return bpf.ERRNO | (document.default_errno_ret or 0)


def _holds(condition: SyscallArg, value: int) -> bool:
    return {
        "SCMP_CMP_EQ": value == condition.value,
        "SCMP_CMP_GT": value > condition.value,
        "SCMP_CMP_MASKED_EQ": value & condition.value == condition.value_two,
    }[condition.op]


def _answer(rule: Syscall) -> int:
    return bpf.ALLOW if rule.action == "SCMP_ACT_ALLOW" else bpf.ERRNO | (rule.errno_ret or errno.EPERM)
