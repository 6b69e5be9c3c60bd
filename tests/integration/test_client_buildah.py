"""buildah with ``--isolation oci`` over ocirun and, as the control, over runc: nothing may differ."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests import clients
from tests.clients import Done, Scratch
from tests.requires import SBIN_PATH, requires
from tests.terminals import User

pytestmark = requires("root", "cgroup", "seccomp", "overlay", "buildah")

IMAGE = "localhost/busybox:1"


class Buildah:
    """buildah with a store and a run root of its own.

    Args:
        here: where it keeps them.
    """

    def __init__(self, here: Scratch) -> None:
        self.here = here
        (here.path / "home").mkdir()
        # Without it the host's settings would count, which may want limits that root without CAP_SYS_RESOURCE has not.
        (here.path / "containers.conf").write_text(
            '[containers]\ndefault_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]\n'
        )
        self.env = {
            "PATH": SBIN_PATH,
            "HOME": str(here.path / "home"),
            "XDG_RUNTIME_DIR": str(here.path / "home"),
            "CONTAINERS_CONF": str(here.path / "containers.conf"),
            "TMPDIR": str(here.path),
        }

    def command(self, verb: str, *args: str) -> list[str]:
        """The argv."""
        own = ["--isolation", "oci", "--runtime", self.here.runtime, "--runtime-flag", f"root={self.here.state}"]
        store = [
            "--root",
            f"{self.here.path}/store",
            "--runroot",
            f"{self.here.path}/run",
            "--storage-driver",
            "overlay",
        ]
        parent = ["--cgroup-parent", self.here.cgroup] if verb in {"from", "build"} else []
        return ["buildah", *store, verb, *(own if verb in {"run", "build"} else []), *parent, *args]

    def __call__(self, verb: str, *args: str, input: str = "") -> Done:
        """Run it to its end."""
        return clients.run(self.command(verb, *args), self.here.path, input=input, env=self.env)

    def ok(self, verb: str, *args: str, input: str = "") -> str:
        """Run it, insist on success; what it printed."""
        done = self(verb, *args, input=input)
        assert (done.code, done.err) == (0, ""), done.err
        return done.out.strip()

    @contextmanager
    def working(self, *options: str) -> Iterator[str]:
        """A working container, removed afterwards."""
        name = self.ok("from", "--pull-never", "--network", "none", *options, IMAGE)
        try:
            yield name
        finally:
            self.ok("rm", name)


@pytest.fixture(scope="module", params=clients.RUNTIMES)
def buildah(request: pytest.FixtureRequest, busybox_tarball: Path) -> Iterator[Buildah]:
    """Buildah over one of the runtimes, with an image; it has no container left at the end."""
    with clients.scratch("buildah", request.param) as here:
        buildah = Buildah(here)
        archive = clients.docker_archive(busybox_tarball, here.path / "image.tar", IMAGE)
        buildah("pull", f"docker-archive:{archive}")
        yield buildah
        assert buildah.ok("containers", "--quiet") == ""


def test_run_output_status_stdin_and_what_is_kept(buildah: Buildah) -> None:
    """One working container, several runs: what one writes the next one finds."""
    with buildah.working() as name:
        done = buildah("run", name, "sh", "-c", "echo out; echo err >&2; echo kept >/kept; ls /proc/self/fd >>/kept")
        told = buildah.ok("run", name, "cat", "/kept")
        sorted_ = buildah.ok("run", name, "sort", input="b\na\n")
        failed = buildah("run", name, "sh", "-c", "exit 7").code

    assert done == Done(0, "out\n", "err\n")
    assert told.split() == ["kept", "0", "1", "2", "3"]
    assert (sorted_, failed) == ("a\nb", 7)


def test_run_of_what_cannot_be_run(buildah: Buildah) -> None:
    """The runtime's own words reach the user."""
    with buildah.working() as name:
        done = buildah("run", name, "no-such")

    assert done.code != 0
    assert "executable file not found" in done.err


def test_run_terminal(buildah: Buildah) -> None:
    """A terminal of its own, whose master buildah gets by a socket."""
    with buildah.working() as name:
        argv = buildah.command("run", "--terminal", name, "sh", "-c", "tty; read x; echo got $x; exit 3")
        user = User(argv, buildah.here.path, env=buildah.env)
        try:
            user.expect("/dev/pts/0")
            user.type("word\r")
            user.expect("got word")
            code = user.end()
        finally:
            user.leave()

    assert code == 3


def test_run_user_environment_directory_and_hostname(buildah: Buildah) -> None:
    """What the process is given besides its arguments."""
    options = ("--user", "1000:1000", "--env", "A=b", "--workingdir", "/tmp", "--hostname", "box")
    with buildah.working() as name:
        found = buildah.ok("run", *options, name, "sh", "-c", "id -u; id -g; echo $A $PWD; hostname")

    assert found.split() == ["1000", "1000", "b", "/tmp", "box"]


def test_run_volumes(buildah: Buildah, tmp_path: Path) -> None:
    """Directories of the host, to be written and not to be written."""
    options = ("--volume", f"{tmp_path}:/a", "--volume", f"{tmp_path}:/b:ro")
    with buildah.working() as name:
        script = "echo new >/a/new; touch /b/x 2>/dev/null || echo refused"
        found = buildah.ok("run", *options, name, "sh", "-c", script)

    assert (found, (tmp_path / "new").read_text()) == ("refused", "new\n")


def test_run_capabilities_limits_and_seccomp(buildah: Buildah, tmp_path: Path) -> None:
    """What the working container was made with holds for each run in it."""
    profile = tmp_path / "profile.json"
    rule = {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28}
    profile.write_text(json.dumps({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]}))
    script = (
        "mask=$(grep CapEff /proc/self/status | cut -f2); echo $((0x$mask >> 5 & 1));"
        "mkdir /x 2>&1 | grep -c 'No space left';"
        "cat /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null || cat /sys/fs/cgroup/memory.max"
    )
    with buildah.working("--memory", "64m", "--security-opt", f"seccomp={profile}") as name:
        dropped = buildah.ok("run", "--cap-drop", "CAP_KILL", name, "sh", "-c", script)
        kept = buildah.ok("run", name, "sh", "-c", script)

    assert (dropped.split(), kept.split()) == (["0", "1", "67108864"], ["1", "1", "67108864"])


def test_build(buildah: Buildah, tmp_path: Path) -> None:
    """Each RUN is a container of the runtime; what it left is the image's."""
    (tmp_path / "Containerfile").write_text(
        f"FROM {IMAGE}\nENV NAME=value\nRUN echo $NAME >/word\nUSER 1000\nWORKDIR /tmp\nRUN id -u >user\n"
    )
    built = buildah("build", "--network", "none", "--tag", "localhost/built:1", str(tmp_path))
    name = buildah.ok("from", "--pull-never", "--network", "none", "localhost/built:1")
    found = buildah.ok("run", name, "cat", "/word", "/tmp/user")
    buildah.ok("rm", name)
    (tmp_path / "Containerfile").write_text(f"FROM {IMAGE}\nRUN exit 13\n")
    broken = buildah("build", "--network", "none", str(tmp_path))

    assert (built.code, found.split()) == (0, ["value", "1000"]), built.err
    assert broken.code == 13
