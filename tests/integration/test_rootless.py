"""The same engine for a user without any right; the rootless lane runs most other tests that way too."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.requires import requires
from tests.unprivileged import User

pytestmark = requires("unprivileged", "overlay", "seccomp", "busybox")

SCRIPT = """
import json, os, sys
from pathlib import Path
from pytest_ocirun.engine.engine import Engine
from pytest_ocirun.engine.request import Bind, Limits, Request
from pytest_ocirun.errors import OcirunError, Unsupported
store, image, tree, require = sys.argv[1:]
said = {}
limits = Limits(memory=1 << 28, pids=50, cpus=1.0, disk=4 << 20)
engine = Engine.open(store=Path(store), require=require)
try:
    request = Request(image=engine.image(image), limits=limits, env={"PATH": "/bin"}, overlays=(Path(tree),))
    try:
        box = engine.launch(request)
    except Unsupported as error:
        said["refused"] = str(error)
    else:
        def sh(script, **more):
            result = box.exec(["sh", "-c", script], **more)
            return [result.exit_code, result.stdout, result.stderr, result.timed_out, result.signal]
        said["describe"] = engine.describe()
        said["id"] = sh("echo $(id -u) $(id -g); cat /proc/self/uid_map /proc/self/gid_map")
        said["status"] = sh("grep -E '^(Cap|NoNew|Seccomp:)' /proc/self/status")
        said["namespaces"] = sh("for n in user pid mnt net ipc uts; do readlink /proc/self/ns/$n; done")
        said["own"] = [os.readlink(f"/proc/self/ns/{n}") for n in "user pid mnt net ipc uts".split()]
        said["tree"] = sh(f"cd {tree}; cat file; echo guest > file; cat file; touch new; rm file")
        said["disk"] = sh("dd if=/dev/zero of=/tmp/big bs=64k count=100; wc -c < /tmp/big")
        said["timeout"] = sh("setsid sleep 71 & (setsid sh -c 'sleep 72; true' &); sleep 73", timeout=0.4)
        said["left"] = sh("cat /proc/[0-9]*/comm")
        said["masks"] = sh("head -c 1 /proc/kcore | wc -c; echo 1 > /proc/sys/kernel/shmmni; mount -t tmpfs x /tmp")
        said["user"] = []
        for user in (1, 65534, (0, 5)):
            try:
                box.exec(["true"], user=user)
            except OcirunError as error:
                said["user"].append(type(error).__name__)
        said["pid"] = box.pid
        said["uid"] = os.stat(f"/proc/{box.pid}").st_uid
        box.delete()
finally:
    engine.close()
said["root"] = sorted(os.listdir(os.environ["XDG_RUNTIME_DIR"] + "/ocirun"))
said["tree_after"] = [sorted(os.listdir(tree)), open(tree + "/file").read()]
print(json.dumps(said))
"""


@pytest.fixture(scope="module")
def readable_tarball(busybox_tarball: Path, unprivileged_user: User) -> Path:
    """The image where the user can read it."""
    target = unprivileged_user.home / "busybox.tar"
    target.write_bytes(busybox_tarball.read_bytes())
    target.chmod(0o644)
    return target


def run(user: User, tarball: Path, require: str) -> dict[str, Any]:
    """What the script says as the user."""
    tree = user.home / "tree"
    tree.mkdir(exist_ok=True)
    (tree / "file").write_text("host\n", encoding="ascii")
    if not os.geteuid():
        os.chown(tree, user.uid, user.uid)
        os.chown(tree / "file", user.uid, user.uid)
    done = user.run([user.python, "-c", SCRIPT, user.home / "store", tarball, tree, require])
    assert (done.returncode, done.stderr) == (0, "")
    said: dict[str, Any] = json.loads(done.stdout)
    return said


@pytest.fixture(scope="module")
def said(unprivileged_user: User, readable_tarball: Path) -> dict[str, Any]:
    """What a container of that user's is like, limits given up."""
    return run(unprivileged_user, readable_tarball, "isolation")


def test_limits_that_cannot_be_had_are_an_error(unprivileged_user: User, readable_tarball: Path) -> None:
    """Without the right to limit, the default is to refuse, with the way out."""
    said = run(unprivileged_user, readable_tarball, "limits")
    if "refused" not in said:
        assert not any("WEAKER" in line for line in said["describe"])
        return

    assert "limit" in said["refused"]
    assert "--ocirun-require=isolation" in said["refused"]


def test_what_was_given_up_is_said(said: dict[str, Any]) -> None:
    """The description for the header names each limit that does not hold, or there is none."""
    weaker = [line for line in said["describe"] if "WEAKER" in line]

    assert weaker == [] or "no limit on cpus, memory, pids" in weaker[0] or "no limit on" in weaker[0]


def test_root_inside_is_the_user_outside(said: dict[str, Any], unprivileged_user: User) -> None:
    """One id is mapped: the caller's own."""
    code, out, _err, _timed, _signal = said["id"]

    assert (code, out.split("\n")[0], [line.split() for line in out.split("\n")[1:3]]) == (
        0,
        "0 0",
        [["0", "0", "1"], ["0", "0", "1"]],
    )
    assert said["uid"] == unprivileged_user.uid


def test_confinement_is_the_same(said: dict[str, Any]) -> None:
    """No capability, no new privileges, a filter, namespaces of its own."""
    lines = dict(line.split(":\t") for line in said["status"][1].splitlines())

    assert {lines[f"Cap{name}"] for name in ("Inh", "Prm", "Eff", "Bnd", "Amb")} == {"0" * 16}
    assert (lines["NoNewPrivs"], lines["Seccomp"]) == ("1", "2")
    assert not set(said["namespaces"][1].split()) & set(said["own"])


def test_masks_hold(said: dict[str, Any]) -> None:
    """Files read as empty, parameters cannot be written, nothing can be mounted."""
    _code, out, err, _timed, _signal = said["masks"]

    assert out == "0\n"
    assert "Read-only file system" in err
    assert "not permitted" in err or "denied" in err


def test_the_tree_is_private(said: dict[str, Any]) -> None:
    """Writes and removals inside do not reach the user's own files."""
    assert said["tree"][:3] == [0, "host\nguest\n", ""]
    assert said["tree_after"] == [["file"], "host\n"]


def test_the_disk_is_bounded(said: dict[str, Any]) -> None:
    """The bound needs no cgroup."""
    assert "No space left on device" in said["disk"][2]
    assert int(said["disk"][1]) <= 4 << 20


def test_a_timeout_ends_the_tree(said: dict[str, Any]) -> None:
    """Also without a cgroup to kill by."""
    assert said["timeout"][3:] == [True, 9]
    assert "sleep" not in said["left"][1].split()


def test_other_ids_are_refused(said: dict[str, Any]) -> None:
    """Ids that the user does not have cannot be had inside."""
    assert said["user"] == ["KernelRefused"] * 3


def test_nothing_is_left(said: dict[str, Any]) -> None:
    """After close only what all containers share is there, and no process."""
    assert all(name.startswith("@") for name in said["root"])
    assert not os.path.exists(f"/proc/{said['pid']}")
