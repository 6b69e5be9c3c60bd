"""The kernel's calls: what comes back, and which error."""

import errno
import os
import platform
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pytest_ocirun.linux import caps, fds, paths, proc, sched, signals


def test_messages_carry_fds_and_keep_their_bounds() -> None:
    """Two messages stay two; the fds arrive close-on-exec; the end is an empty message."""
    ours, theirs = fds.seqpacket_pair()
    read, write = os.pipe()
    fds.send(ours, b"first", [read, write])
    fds.send(ours, b"second")
    data, received = fds.receive(theirs)

    assert (data, len(received)) == (b"first", 2)
    assert [os.get_inheritable(fd) for fd in received] == [False, False]
    os.write(received[1], b"x")
    assert os.read(read, 1) == b"x"
    assert fds.receive(theirs) == (b"second", [])
    ours.close()
    assert fds.receive(theirs) == (b"", [])
    theirs.close()
    for fd in (read, write, *received):
        os.close(fd)


def test_a_message_to_nobody_is_no_signal() -> None:
    """SIGPIPE would end a child in the middle of its report."""
    ours, theirs = fds.seqpacket_pair()
    theirs.close()
    previous = signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    try:
        with pytest.raises(BrokenPipeError):
            fds.send(ours, b"x")
        with pytest.raises(BrokenPipeError):
            fds.send(ours, b"x", [0])
    finally:
        signal.signal(signal.SIGPIPE, previous)
        ours.close()


def test_readable_waits_so_long() -> None:
    """Not at all, for a while, and until the other side ends."""
    read, write = os.pipe()
    began = time.monotonic()

    assert fds.readable(read) is False
    assert fds.readable(read, 0.1) is False
    assert time.monotonic() - began >= 0.1
    os.close(write)
    assert fds.readable(read, None) is True
    os.close(read)


def test_all_but_some_fds_are_closed() -> None:
    """Stdio stays, what is kept stays, the rest is gone."""
    code = (
        "import os; from pytest_ocirun.linux import fd_ranges;"
        "kept = [os.dup(0) for _ in range(6)]; keep = {kept[1], kept[4], 1};"
        "fd_ranges.close_all_but(keep); left = [];\n"
        "for fd in range(64):\n"
        "    try: os.fstat(fd); left.append(fd)\n"
        "    except OSError: pass\n"
        "print(left == [0, 1, 2, kept[1], kept[4]], left, kept)"
    )
    root = str(Path(fds.__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.append({root!r}); {code}"],
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stdout.startswith("True"), done.stdout


def test_memory_files_are_read_whole() -> None:
    """At offset 0, of any size."""
    content = os.urandom(3 << 20)
    fd = fds.memfd("x", content)

    assert fds.read_all(fd) == content
    os.close(fd)


@pytest.mark.parametrize(
    "link, path, expected",
    [
        ("/etc", "link/file", "inside"),
        ("../../../../etc", "link/file", "inside"),
        ("/proc/self/root/etc", "link/file", None),
        ("/missing", "link/file", None),
        ("etc", "../../link/file", "inside"),
    ],
)
def test_paths_stay_in_their_root(tmp_path: Path, link: str, path: str, expected: str | None) -> None:
    """Absolute links, dots and magic links resolve inside or not at all."""
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/file").write_text("inside", encoding="ascii")
    (tmp_path / "link").symlink_to(link)
    root = os.open(tmp_path, os.O_PATH)
    try:
        if expected is None:
            with pytest.raises(OSError, match="openat2") as caught:
                paths.open_in_root(root, path, os.O_RDONLY)
            assert caught.value.filename == path
        else:
            fd = paths.open_in_root(root, path, os.O_RDONLY)
            assert os.read(fd, 100).decode() == expected
            assert os.get_inheritable(fd) is False
            os.close(fd)
    finally:
        os.close(root)


def test_errors_are_the_kernels() -> None:
    """The subclass of errno, the name of the call, the path."""
    with pytest.raises(FileNotFoundError, match="openat2: No such file") as caught:
        paths.openat2(-100, "/no/such", os.O_RDONLY)

    assert (caught.value.errno, caught.value.filename) == (errno.ENOENT, "/no/such")


def test_process_names_that_look_like_more() -> None:
    """A comm with brackets and spaces does not shift the fields."""
    with subprocess.Popen(
        ["sh", "-c", "printf ') S (1 2' > /proc/$$/comm; echo; sleep 60"], stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        found = proc.stat(process.pid)
        assert found is not None
        alive = proc.is_alive(process.pid, found[1])
        other = proc.is_alive(process.pid, found[1] + 1)
        for child in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text(encoding="ascii").split():
            os.kill(int(child), 9)
        process.kill()

    assert found[0] in "SRD"
    assert (alive, other) == (True, False)
    assert proc.stat(process.pid) is None or not proc.is_alive(process.pid, found[1])


def test_capability_masks() -> None:
    """By number; a name that is none counts as nothing."""
    assert caps.mask(["CAP_CHOWN", "CAP_SYS_ADMIN", "CAP_SYS_ADMIN", "CAP_NO_SUCH"]) == 1 | 1 << 21
    last = int(Path("/proc/sys/kernel/cap_last_cap").read_text(encoding="ascii"))
    assert len(caps.NAMES) > last, "the kernel has a capability that we have no name for"


def test_clone_gives_a_pidfd() -> None:
    """That is readable at the end and signals its process."""
    pid, pidfd = sched.clone3(0)
    if pid == 0:
        while True:
            signal.pause()
    assert fds.readable(pidfd) is False
    assert sched.pidfd_send_signal(pidfd, 15) is True
    assert fds.readable(pidfd, 5) is True
    assert sched.wait_status(pidfd) == 15
    assert sched.pidfd_send_signal(pidfd, 15) is False
    with pytest.raises(ChildProcessError):
        sched.wait_status(pidfd)
    os.close(pidfd)


@pytest.mark.parametrize("end", ["exit 7", "exit 0", "kill -KILL $$", "ulimit -c unlimited; cd /proc; kill -QUIT $$"])
def test_wait_status_is_that_of_waitpid(end: str) -> None:
    """The same numbers as waitpid's for the same end, and None while it runs."""
    statuses: list[int | None] = []
    for by_pidfd in (True, False):
        read, write = os.pipe2(os.O_CLOEXEC)
        actions = [(os.POSIX_SPAWN_DUP2, read, 0)]
        pid = os.posix_spawn("/bin/sh", ["sh", "-c", f"read x; {end}"], {}, file_actions=actions)
        pidfd = sched.pidfd_open(pid)
        assert sched.wait_status(pidfd, block=False) is None
        os.close(read)
        os.close(write)
        statuses.append(sched.wait_status(pidfd) if by_pidfd else os.waitpid(pid, 0)[1])
        os.close(pidfd)

    assert statuses[0] == statuses[1]


def test_capget_is_what_proc_shows() -> None:
    """The three sets of the calling thread."""
    text = Path("/proc/thread-self/status").read_text(encoding="ascii")
    shown = dict(line.split(":\t") for line in text.splitlines() if line.startswith("Cap"))

    assert [f"{mask:016x}" for mask in caps.capget()] == [shown[name] for name in ("CapEff", "CapPrm", "CapInh")]


def test_reset_signals_are_default() -> None:
    """Handlers, ignored ones and the mask."""
    code = (
        "import signal; from pytest_ocirun.linux import signals\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN); signal.signal(signal.SIGUSR1, lambda *_: None)\n"
        "signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP}); signals.reset()\n"
        "print(*[line.split()[1] for line in open('/proc/self/status') if line[:6] in ('SigBlk', 'SigIgn', 'SigCgt')])"
    )
    root = str(Path(signals.__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.append({root!r})\n{code}"],
        capture_output=True,
        text=True,
        check=True,
    )

    # 32 and 33 are glibc's own: its posix_spawn leaves them ignored, and its sigaction lets nobody change them.
    assert [int(mask, 16) & ~(3 << 31) for mask in done.stdout.split()] == [0, 0, 0]


@pytest.mark.skipif(platform.machine() != "x86_64", reason="this kernel lacks the numbers that are compared")
def test_system_call_numbers_are_those_of_the_headers() -> None:
    """Where libseccomp is at hand it knows them too."""
    seccomp = pytest.importorskip("pyseccomp", reason="this kernel lacks nothing, but libseccomp is not here")
    from pytest_ocirun.linux._libc import NUMBERS

    known = {name: seccomp.resolve_syscall(seccomp.Arch.X86_64, name) for name in NUMBERS}

    assert {name: numbers[0] for name, numbers in NUMBERS.items()} == known


def test_socket_of_a_fd_owns_it() -> None:
    """Closing the socket closes the fd."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    number = ours.detach()
    fds.socket_of(number).close()
    theirs.close()

    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(number)
