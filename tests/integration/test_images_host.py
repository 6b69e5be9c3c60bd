"""The image ``host``, laid out for real and entered: what is there, what is not, and which Pythons run in it."""

import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from pytest_ocirun.images.host import host_image
from pytest_ocirun.images.store import Store
from tests.requires import requires

pytestmark = pytest.mark.lane("rootless", "v2")

BASE = 100000
_PARENT = Path(sys.modules[Store.__module__].__file__ or "").parents[2]

PLAN = """
import json, sys
sys.path += sys.argv[2:]
from pathlib import Path
from pytest_ocirun.images.host import host_image
from pytest_ocirun.images.store import Store
with host_image(Store(Path(sys.argv[1])), shift_base=100000) as image:
    print(json.dumps({
        "rootfs": str(image.rootfs), "owners": image.owners, "python": image.python, "env": image.env,
        "mounts": [[str(m.source), m.destination, m.idmap, m.kind] for m in image.mounts],
    }))
"""

# Binds the plan together in a mount namespace of its own, as a runtime would, and enters it.
ENTER = """
import json, os, subprocess, sys
plan = json.loads(sys.argv[1])
root = sys.argv[2]
def run(*args): subprocess.run(args, check=True)
run("mount", "--bind", plan["rootfs"], root)
for source, destination, _, _ in plan["mounts"]:
    run("mount", "--bind", source, root + destination)
    run("mount", "-o", "remount,bind,ro", root + destination)
os.chroot(root)
os.chdir("/")
os.execve(sys.argv[3], sys.argv[3:], dict(item.split("=", 1) for item in plan["env"]))
"""

Plan = dict[str, object]


def plan_of(python: Path, store: Path) -> Plan:
    """What the image is for another interpreter than ours."""
    packages = [str(_PARENT), sysconfig.get_path("purelib")]
    done = subprocess.run([python, "-c", PLAN, store, *packages], check=False, capture_output=True, text=True, cwd="/")

    assert done.stderr == ""
    plan: Plan = json.loads(done.stdout)
    return plan


def inside(plan: Plan, folder: Path, *command: str) -> str:
    """What ``command`` prints inside of the image."""
    root = folder / "root"
    root.mkdir(exist_ok=True)
    done = subprocess.run(
        ["unshare", "--mount", sys.executable, "-c", ENTER, json.dumps(plan), root, *command],
        check=False,
        capture_output=True,
        text=True,
    )

    assert done.stderr == ""
    return done.stdout.strip()


WORKS = "import sys, ssl, ctypes, sqlite3, json, venv; print(sys.executable, sys.prefix, sys.base_prefix)"


def venv(folder: Path, python: str | Path = sys.executable) -> Path:
    """A virtual environment's interpreter."""
    subprocess.run([python, "-m", "venv", "--without-pip", "--symlinks", folder], check=True)
    return folder / "bin/python"


@requires("root")
def test_running_interpreter_works_inside(tmp_path: Path) -> None:
    """With its packages, at its own path."""
    plan = plan_of(Path(sys.executable), tmp_path / "store")
    printed = inside(plan, tmp_path, sys.executable, "-c", "import pytest; " + WORKS)

    assert printed == f"{sys.executable} {sys.prefix} {sys.base_prefix}"
    assert plan["python"] == sys.executable


@requires("root")
def test_system_interpreter_needs_no_mount_of_its_own(tmp_path: Path) -> None:
    """Its place in /usr is there anyway."""
    system = Path("/usr/bin/python3")
    version = subprocess.run(
        [system, "-c", "import sys; print(sys.version_info >= (3, 11))"], check=False, capture_output=True
    )
    if version.stdout != b"True\n":
        pytest.skip("needs a system Python of 3.11 or later")
    plan = plan_of(system, tmp_path / "store")
    mounts = [destination for _, destination, _, _ in plan["mounts"]]  # type: ignore[attr-defined]  # from JSON

    assert set(mounts) <= {"/usr", "/opt", "/nix/store", "/gnu/store", "/bin", "/sbin", "/lib", "/lib64"}
    assert inside(plan, tmp_path, "/usr/bin/python3", "-c", WORKS) == "/usr/bin/python3 /usr /usr"


@requires("root")
def test_virtual_environment_in_the_tree_under_test(tmp_path: Path) -> None:
    """It lies below the test's own folder, its base somewhere else."""
    python = venv(tmp_path / "project/.venv")
    plan = plan_of(python, tmp_path / "store")

    assert inside(plan, tmp_path, str(python), "-c", WORKS) == f"{python} {tmp_path}/project/.venv {sys.base_prefix}"


@requires("root")
def test_chain_of_links_as_uv_makes_them(tmp_path: Path) -> None:
    """venv/bin/python -> a link to the minor version -> the patch version -> where it really lies."""
    shelf = tmp_path / "home/.local/share/uv/python"
    shelf.mkdir(parents=True)
    (shelf / "cpython-3.x.y").symlink_to(sys.base_prefix)
    (shelf / "cpython-3.x").symlink_to("cpython-3.x.y")
    (tmp_path / "home/bin").symlink_to(".local/share/uv/python/../python/cpython-3.x/bin")
    python = venv(tmp_path / "venv", tmp_path / "home/bin/python3")
    plan = plan_of(python, tmp_path / "store")
    printed = inside(plan, tmp_path, str(python), "-c", WORKS)

    assert printed.startswith(f"{python} {tmp_path}/venv ")
    assert os.path.realpath(printed.split()[2]) == os.path.realpath(sys.base_prefix)


@requires("root")
def test_environment_around_a_home_does_not_show_the_home(tmp_path: Path) -> None:
    """A prefix that is a checkout, or a home, is shown in pieces."""
    project = tmp_path / "project"
    python = venv(project)
    (project / ".git").mkdir()
    (project / "secret").write_text("secret")
    plan = plan_of(python, tmp_path / "store")

    assert inside(plan, tmp_path, str(python), "-c", WORKS).startswith(f"{python} {project} ")
    assert inside(plan, tmp_path, str(python), "-c", f"import os; print(os.path.exists('{project}/secret'))") == "False"


ABSENT = """
import os
for path in ("/etc/shadow", "/etc/gshadow", "/etc/ssh", "/etc/sudoers", "/etc/ssl/private", "/root/.ssh",
             "/root/.bashrc", "/run/docker.sock", "/var/run/docker.sock", "/boot", "/proc/1", "/sys/kernel",
             "/dev/null", "/var/lib/dpkg", "/etc/hosts.deny", "/etc/machine-id"):
    if os.path.lexists(path): print("visible:", path)
for path in ("/root", "/home", "/run", "/tmp", "/mnt", "/srv", "/media", "/var/log", "/proc", "/sys", "/dev"):
    for name in os.listdir(path):
        if not os.path.join(path, name) in KNOWN: print("visible:", os.path.join(path, name))
for path in ("/bin/sh", "/etc/passwd", "/etc/group", "/etc/hosts", "/etc/nsswitch.conf", "/etc/resolv.conf",
             "/etc/ld.so.cache", "/usr/bin/env"):
    if not os.path.exists(path): print("missing:", path)
"""


@requires("root")
def test_homes_secrets_and_sockets_are_absent(tmp_path: Path) -> None:
    """And what programs expect is there."""
    plan = plan_of(Path(sys.executable), tmp_path / "store")
    mounts = [destination for _, destination, _, _ in plan["mounts"]]  # type: ignore[attr-defined]  # from JSON
    parents = {str(parent) for mount in mounts for parent in (Path(mount), *Path(mount).parents)}
    printed = inside(plan, tmp_path, sys.executable, "-c", f"KNOWN = {parents!r}\n{ABSENT}")

    assert printed == ""


def test_mounts_are_an_allow_list(tmp_path: Path) -> None:
    """Never the root, a home or the state of the host; parents come before what lies below them."""
    with host_image(Store(tmp_path / "store"), shift_base=BASE) as image:
        destinations = [mount.destination for mount in image.mounts]
        forbidden = {"/", "/root", "/home", "/etc", "/var", "/run", "/proc", "/sys", "/dev", os.path.expanduser("~")}

        assert not forbidden & set(destinations)
        assert "/usr" in destinations
        for position, mount in enumerate(image.mounts):
            assert mount.source.is_absolute()
            assert os.path.realpath(mount.source) == str(mount.source)
            assert mount.idmap is False or not mount.destination.startswith(("/usr", "/opt"))
            above = [other for other in destinations if mount.destination.startswith(f"{other}/")]
            assert all(destinations.index(other) < position for other in above)
            assert above or (image.rootfs / mount.destination[1:]).exists()
        assert image.python == sys.executable
        assert image.env[0].startswith("PATH=")


def test_skeleton_is_made_once(tmp_path: Path) -> None:
    """The same host and interpreter give the same directory."""
    store = Store(tmp_path / "store")
    with host_image(store, shift_base=BASE) as first, host_image(store, shift_base=BASE) as second:
        assert first.rootfs == second.rootfs
    assert len(os.listdir(store.path / "entries")) == 1


def test_skeleton_keeps_its_modes(tmp_path: Path) -> None:
    """Whatever the umask was."""
    old = os.umask(0o077)
    try:
        with host_image(Store(tmp_path / "store"), shift_base=BASE) as image:
            modes = {name: oct((image.rootfs / name).stat().st_mode & 0o7777) for name in ("tmp", "root", "etc", ".")}
            readable = oct((image.rootfs / "etc/passwd").stat().st_mode & 0o7777)
    finally:
        os.umask(old)

    assert modes == {"tmp": "0o1777", "root": "0o700", "etc": "0o755", ".": "0o755"}
    assert readable == "0o644"
