"""The host's Python on its way into a container: nothing inside can reach it, and it loads nothing from there."""

import ctypes
import hashlib
import json
import os
import re
import shutil
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Self

import pytest

import pytest_ocirun
from pytest_ocirun.errors import KernelRefused
from pytest_ocirun.oci.codec import dump
from pytest_ocirun.oci.process import Capabilities, User
from pytest_ocirun.oci.runtime import Config, Mount
from pytest_ocirun.runtime.stdio import Stdio
from tests.boxes import Bare, confined
from tests.requires import requires

pytestmark = [requires("userns", "overlay", "seccomp", "busybox"), pytest.mark.lane("v2")]

PACKAGE_PARENT = Path(pytest_ocirun.__file__).parents[1]
_IN_OPEN, _IN_ACCESS, _IN_NONBLOCK = 0x20, 0x01, 0o4000

# Opens the exe of everything that runs the copied interpreter, keeps the fd, and tries to open that for writing.
# ">>" neither cuts nor writes: even if it works, the file stays whole.
_ATTACK = """
while :; do
    for p in /proc/[0-9]*; do
        case $(readlink $p/exe) in *ocirun-copy*)
            command exec 8<$p/exe && echo got $p >> /log ;;
        esac
    done
    if [ -e /proc/self/fd/8 ]; then
        if (: >> /proc/self/fd/8) 2>> /log; then echo WRITABLE >> /log; fi
    fi
done
"""


def digests(*tops: Path) -> dict[str, str]:
    """The SHA-256 of every file."""
    files = [path for top in tops for path in ([top] if top.is_file() else sorted(top.rglob("*"))) if path.is_file()]
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files if path.suffix != ".pyc"}


@pytest.fixture
def copied_python(tmp_path: Path) -> Path:
    """A copy of the interpreter that works, so that no attack can hurt the real one."""
    base = Path(sys._base_executable)  # type: ignore[attr-defined]
    target = tmp_path / "ocirun-copy" / "bin" / base.name
    target.parent.mkdir(parents=True)
    shutil.copy(base.resolve(), target)
    (tmp_path / "ocirun-copy" / "pyvenv.cfg").write_text(f"home = {base.parent}\n", encoding="utf-8")
    return target


def with_host_libraries(config: Config) -> Config:
    """Let a Python of the host find its libraries and modules inside, so that an attack by it gets far."""
    places = ["/usr", "/lib", "/lib64", sys.base_prefix]
    for place in dict.fromkeys(os.path.realpath(place) for place in places if os.path.isdir(place)):
        if not place.startswith("/usr/"):
            config.mounts.append(Mount(destination=place, type="bind", source=place, options=["rbind", "ro"]))
    return config


@requires("root")
@pytest.mark.parametrize("program", ["/proc/self/exe", "/script", "/link"])
def test_the_interpreter_cannot_be_written_from_inside(
    rootfs: Path, tmp_path: Path, copied_python: Path, program: str
) -> None:
    """Container root, who may trace, catches what ``ocirun exec`` runs, and cannot write to it (CVE-2019-5736).

    The program is, by three ways, the runtime's own executable. No zygote keeps the file busy: the command line has
    ended by the time of the last attempts.
    """
    for name in ("lib", "lib64"):
        if os.path.islink(f"/{name}"):
            (rootfs / name).symlink_to(os.readlink(f"/{name}"))
    (rootfs / "script").write_text("#!/proc/self/exe\nimport time; time.sleep(0.3)\n", encoding="ascii")
    (rootfs / "script").chmod(0o755)
    (rootfs / "link").symlink_to("/proc/self/exe")
    config = with_host_libraries(
        confined(rootfs, "/bin/busybox", "sh", "-c", _ATTACK, overlay=False, user_namespace=False)
    )
    config.linux.seccomp = None
    config.process.no_new_privileges = False
    every = ["CAP_SYS_ADMIN", "CAP_DAC_OVERRIDE", "CAP_SYS_PTRACE", "CAP_DAC_READ_SEARCH"]
    config.process.capabilities = Capabilities(bounding=every, effective=every, permitted=every)
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    (bundle / "config.json").write_bytes(dump(config))
    before = digests(copied_python)
    code = f"import sys; sys.path.append({str(PACKAGE_PARENT)!r}); from pytest_ocirun.cli.__main__ import main; main()"
    cli = [str(copied_python), "-I", "-c", code, "--root", str(tmp_path / "state")]

    def ocirun(*args: str) -> None:
        with (tmp_path / "log").open("ab") as log:
            done = subprocess.run(
                [*cli, *args], timeout=30, stdin=subprocess.DEVNULL, stdout=log, stderr=log, check=False
            )
        assert done.returncode == 0, (tmp_path / "log").read_text(encoding="utf-8")

    try:
        ocirun("run", "--detach", "--bundle", str(bundle), "attacked")
        arguments = () if program == "/script" else ("-c", "import time; time.sleep(0.3)")
        for _round in range(3):
            ocirun("exec", "attacked", program, *arguments)
        time.sleep(0.3)
    finally:
        ocirun("delete", "--force", "attacked")
    log = (rootfs / "log").read_text(encoding="utf-8")

    assert "got /proc/" in log
    assert "Read-only file system" in log
    assert "WRITABLE" not in log
    assert digests(copied_python) == before


@pytest.mark.parametrize("user_namespace", [True, pytest.param(False, marks=requires("root"))])
def test_a_joiner_cannot_be_looked_into(bare: Bare, rootfs: Path, user_namespace: bool) -> None:
    """While execs come in, no fd, root, cwd or memory of a joiner opens from inside (CVE-2016-9962)."""
    script = """
        seen=0
        while ! [ -e /tmp/stop ]; do
            for p in /proc/[0-9]*; do
                read -r before < $p/comm || continue
                case $before in ocirun*|python*) ;; *) continue ;; esac
                [ $p = /proc/1 ] && continue
                found=
                for f in $p/fd/* $p/root/bin $p/cwd/. $p/exe; do [ -e $f ] && found="$found $f"; done
                (exec 7<$p/mem) && found="$found mem"
                (exec 7<$p/environ && read -r x <&7) && found="$found environ"
                read -r after < $p/comm || continue
                [ $before = "$after" ] || continue
                seen=$((seen + 1))
                [ -z "$found" ] || echo LEAK $p $before $found
            done
        done 2>/dev/null
        echo seen $seen
    """
    config = confined(rootfs, "sh", "-c", script, user_namespace=user_namespace)
    name = bare.new_id()
    read, write = os.pipe()
    null = os.open(os.devnull, os.O_RDWR)
    child = bare.create(config, Stdio(null, write, null), name=name)
    try:
        bare.runtime.start(name)
        deadline = time.monotonic() + 2
        while time.monotonic() < deadline:
            assert bare.exec(name, "true").end.code == 0
        assert bare.exec(name, "touch", "/tmp/stop").end.code == 0
        child.wait()
        log = os.read(read, 65536).decode()
    finally:
        bare.end(name, child)
        for fd in (read, write, null):
            os.close(fd)
    seen = re.search(r"seen (\d+)", log)

    assert "LEAK" not in log
    assert seen is not None
    assert int(seen[1]) > 0, "the container never met a joiner: the test shows nothing"


class Watch:
    """An inotify on every directory of a tree."""

    def __init__(self, top: Path) -> None:
        self.top = top

    def __enter__(self) -> Self:
        libc = ctypes.CDLL(None, use_errno=True)
        self.fd = libc.inotify_init1(_IN_NONBLOCK | os.O_CLOEXEC)
        self.folders = {}
        for folder, _names, _files in os.walk(self.top):
            number = libc.inotify_add_watch(self.fd, os.fsencode(folder), _IN_OPEN | _IN_ACCESS)
            assert number > 0, os.strerror(ctypes.get_errno())
            self.folders[number] = folder
        return self

    def __exit__(self, *_exception: object) -> None:
        os.close(self.fd)

    def names(self) -> set[str]:
        """What has been opened or read since the last time, directories by a slash at their end."""
        found = set()
        try:
            while data := os.read(self.fd, 1 << 20):
                while data:
                    number, mask, _cookie, length = struct.unpack_from("iIII", data)
                    name = data[16 : 16 + length].rstrip(b"\0").decode()
                    path = f"{self.folders[number]}/{name}" if name else f"{self.folders[number]}/"
                    found.add(path[len(str(self.top)) :] + ("/" if mask & 0x40000000 and name else ""))
                    data = data[16 + length :]
        except BlockingIOError:
            pass
        return found


@pytest.mark.parametrize("wrong", ["", "cwd", "program", "user"])
def test_nothing_is_loaded_from_the_container(bare: Bare, rootfs: Path, wrong: str) -> None:
    """From its entry to execve our process opens no file of the image, also on its way to an error (CVE-2019-14271).

    The image holds booby-trapped twins of what a Python could be tempted to load: modules at every path of ours,
    locales, the configuration of name services.
    """
    traps = [*(path for path in sys.path if path.startswith("/")), os.path.dirname(json.__file__), "/etc", "/lib"]
    for folder in dict.fromkeys(
        [*traps, str(PACKAGE_PARENT / "pytest_ocirun/runtime"), "/usr/lib/locale", "/usr/share"]
    ):
        place = rootfs / folder[1:]
        place.mkdir(parents=True, exist_ok=True)
        for name in ("traceback.py", "linecache.py", "pwd.py", "sitecustomize.py", "nsswitch.conf", "locale.alias"):
            (place / name).write_text("raise SystemExit(99)\n", encoding="ascii")
    process: dict[str, Any] = {"user": User(uid=70000, gid=0)} if wrong == "user" else {}
    if wrong == "cwd":
        process["cwd"] = "/etc/passwd/x"
    with Watch(rootfs) as watch:
        config = confined(rootfs, "/bin/busybox", "true", overlay=False)
        with bare.holder(config) as name:
            at_start = watch.names()
            try:
                code = bare.exec(
                    name, *(["missing"] if wrong == "program" else ["/bin/busybox", "true"]), **process
                ).end.code
            except KernelRefused:
                code = None
            at_exec = watch.names()
            bare.exec(name, "/bin/busybox", "cat", "/etc/nsswitch.conf")
            control = watch.names()
    allowed = {"/bin/busybox"} if not wrong else set()

    assert code == (None if wrong else 0)
    assert {path for path in at_start if not path.endswith("/")} == set()
    assert {path for path in at_exec if not path.endswith("/")} == allowed
    assert "/etc/nsswitch.conf" in control, "the watch sees nothing: the test shows nothing"


def test_our_processes_run_from_a_read_only_mount(bare: Bare, rootfs: Path) -> None:
    """The zygote's executable lies on a read-only mount that no other process has, and it is not dumpable."""
    with bare.holder(confined(rootfs)):
        process = bare.spawner._process
        assert process is not None
        seen = Path(f"/proc/{process.pid}/mountinfo").read_text(encoding="utf-8")
        executable = os.path.realpath(sys.executable)
        options = [line.split()[5] for line in seen.splitlines() if line.split()[4] == executable]
        owner = os.stat(f"/proc/{process.pid}/mem").st_uid

    assert [each.split(",")[0] for each in options] == ["ro"]
    assert owner == 0 or os.geteuid()
    assert executable not in Path("/proc/self/mountinfo").read_text(encoding="utf-8").split()
