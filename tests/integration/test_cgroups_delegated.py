"""Cgroups for those who are not root of the host: delegation on v2, a clear no elsewhere."""

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import pytest_ocirun
from pytest_ocirun.errors import OcirunError, Unsupported
from pytest_ocirun.oci.codec import decode
from pytest_ocirun.oci.runtime import Resources
from pytest_ocirun.runtime.cgroups import Refusal, delegate, limits, none, tree, v1, v2
from pytest_ocirun.runtime.cgroups.detect import layout, manager
from pytest_ocirun.runtime.cgroups.none import NullCgroup
from tests.requires import UNPRIVILEGED_ID, requires

M = 1024 * 1024
PACKAGE_PARENT = str(Path(pytest_ocirun.__file__).parents[1])
PRELOADED = (delegate, limits, none, tree, v1, v2)
"""The unprivileged child may not reach the package to import these when they are needed."""


def as_user(act: Callable[[], Any], join: str | None = None, uid: int = UNPRIVILEGED_ID) -> Any:
    """Fork, join a cgroup as root, become ``uid``, and give what ``act`` returns, by way of JSON."""
    source, sink = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            if join is not None:
                tree.join(f"{join}/cgroup.procs", os.getpid())
            os.setgroups([])
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
            answer = act()
        except BaseException as error:  # noqa: BLE001 - goes to the parent
            answer = {"raised": type(error).__name__, "text": str(error)}
        os.write(sink, json.dumps(answer).encode())
        os._exit(0)
    os.close(sink)
    with open(source, "rb") as file:
        text = file.read()
    os.waitpid(pid, 0)
    return json.loads(text)


def answers() -> dict[str, list[str] | None]:
    """What availability says, as JSON."""
    return {name: _told(refusal) for name, refusal in manager().availability().items()}


def _told(refusal: Refusal | None) -> list[str] | None:
    return None if refusal is None else [refusal.reason, refusal.hint]


def refusals() -> list[Any]:
    """What is said to one who may do nothing: availability, one container without, two with needs."""
    managed = manager()
    told: list[Any] = [answers(), type(managed.create(None, "c1", None, allow_none=True)).__name__]
    limited = decode(Resources, {"memory": {"limit": 32 * M}})
    for wanted, allow_none in ((None, False), (limited, True)):
        try:
            managed.create(None, "c1", wanted, allow_none=allow_none)
        except Unsupported as error:
            told.append(str(error))
    return told


def write(path: str, text: str) -> None:
    """One value into one file."""
    with open(path, "w", encoding="ascii") as file:
        file.write(text)


def delegated(path: str) -> str:
    """Make a cgroup and give it away, as cgroup-v2.rst says."""
    os.mkdir(path)
    for name in ("", "/cgroup.procs", "/cgroup.subtree_control"):
        os.chown(path + name, UNPRIVILEGED_ID, UNPRIVILEGED_ID)
    return path


@pytest.fixture
def top() -> Iterator[str]:
    """A cgroup of root's that hands memory and pids down, and is cleared away afterwards."""
    found = layout()
    path = f"{found.v2}/ocirun-test-{uuid.uuid4().hex[:12]}"
    os.mkdir(path)
    write(f"{path}/cgroup.subtree_control", "+memory +pids")
    yield path
    v2.kill_at_once(path)
    tree.remove_all([path], 5)


@pytest.fixture
def neighbour() -> Iterator[subprocess.Popen[bytes]]:
    """A process that is not ours to move."""
    with subprocess.Popen(["sleep", "60"]) as process:
        yield process
        process.kill()


def limited_container() -> dict[str, Any]:
    """Make a limited container with an exec that forks too much, kill it, remove all, and tell."""
    managed = manager()
    cgroup = managed.create(None, "c1", decode(Resources, {"memory": {"limit": 32 * M}, "pids": {"limit": 6}}))
    child = cgroup.child("exec")
    entry = os.open(f"{child.v2_dir}/cgroup.procs", os.O_WRONLY)
    process = subprocess.Popen(
        ["sh", "-c", "for i in 1 2 3 4 5 6 7 8 9; do sleep 60 & done; wait"],
        stderr=subprocess.DEVNULL,
        preexec_fn=lambda: os.write(entry, b"0"),  # noqa: PLW1509 - single-threaded
    )
    child.wait_empty(0.5)
    told: dict[str, Any] = {
        "limits": cgroup.limits(),
        "processes": child.processes(),
        "refused": cgroup.counters().pids_refused,
        "place": cgroup.v2_dir,
    }
    child.kill()
    process.wait(10)
    told["empty"] = cgroup.wait_empty(10)
    cgroup.remove()
    managed.prune()
    told["own"] = layout().own_v2
    told["left"] = sorted(os.listdir(os.path.dirname(os.path.dirname(told["place"]))))
    return told


@requires("root", "cgroup_v2")
def test_the_only_process_of_a_delegated_cgroup_moves_into_a_leaf(top: str) -> None:
    """Then controllers can be handed down, and limits hold, without root."""
    place = delegated(f"{top}/scope")
    told = as_user(limited_container, join=place)

    assert told.get("text") is None
    assert (told["limits"]["memory.limit"], told["limits"]["pids.limit"]) == (32 * M, 6)
    assert told["refused"]
    assert len(told["processes"]) > 1
    assert told["empty"]
    assert told["place"] == f"{place}/ocirun/c1"
    assert told["own"] == f"{place}/{delegate.LEAF}"
    assert delegate.LEAF in told["left"]
    assert "ocirun" not in told["left"]


@requires("root", "cgroup_v2")
def test_asking_what_can_be_had_moves_nobody(top: str) -> None:
    """A report header has no side effects."""
    place = delegated(f"{top}/scope")
    told = as_user(lambda: [answers(), layout().own_v2, os.path.exists(f"{place}/{delegate.LEAF}")], join=place)

    available, own, leaf = told
    assert (available["memory"], available["pids"]) == (None, None)
    assert (own, leaf) == (place, False)


@requires("root", "cgroup_v2")
def test_a_second_process_works_beside_the_first_in_its_leaf(top: str) -> None:
    """Whoever starts from the leaf finds the place above it ready."""
    place = delegated(f"{top}/scope")
    as_user(limited_container, join=place)
    told = as_user(limited_container, join=f"{place}/{delegate.LEAF}")

    assert told.get("text") is None
    assert told["place"] == f"{place}/ocirun/c1"


@requires("root", "cgroup_v2")
def test_a_cgroup_shared_with_others_gives_no_limits_and_says_so(top: str, neighbour: subprocess.Popen[bytes]) -> None:
    """Strangers are not moved; a tree can be killed there all the same."""
    place = delegated(f"{top}/scope")
    tree.join(f"{place}/cgroup.procs", neighbour.pid)

    def act() -> list[Any]:
        told: list[Any] = [answers()]
        try:
            manager().create(None, "c1", decode(Resources, {"pids": {"limit": 5}}))
        except Unsupported as error:
            told.append(str(error))
        cgroup = manager().create(None, "c2", None)
        told.append(cgroup.limits())
        cgroup.kill()
        cgroup.remove()
        manager().prune()
        return told

    told = as_user(act, join=place)
    available, refused, unlimited = told
    reason, hint = available["memory"]
    assert "holds other processes" in reason
    assert "systemd-run --user --scope -p Delegate=yes" in hint
    assert refused.startswith("cannot set pids.limit to 5: ")
    assert hint in refused
    assert unlimited == {}
    assert neighbour.pid in tree.processes(place)


@requires("root", "cgroup_v2")
def test_named_family_moves_along(top: str, neighbour: subprocess.Popen[bytes]) -> None:
    """A zygote names its client."""
    place = delegated(f"{top}/scope")
    tree.join(f"{place}/cgroup.procs", neighbour.pid)

    def act() -> Any:
        managed = manager(family=(neighbour.pid,))
        available = managed.availability()["memory"] is None
        cgroup = managed.create(None, "c1", decode(Resources, {"pids": {"limit": 5}}))
        limit = cgroup.limits()["pids.limit"]
        cgroup.remove()
        return [available, limit]

    assert as_user(act, join=place) == [True, 5]
    assert tree.processes(f"{place}/{delegate.LEAF}") == [neighbour.pid]


@requires("root", "cgroup_v2")
def test_a_delegated_ancestor_that_hands_controllers_down_is_used(top: str, neighbour: subprocess.Popen[bytes]) -> None:
    """As systemd's user manager: limits for what it has, the fix for what it lacks."""
    service = delegated(f"{top}/user@1.service")
    write(f"{service}/cgroup.subtree_control", "+memory +pids")
    scope = delegated(f"{service}/app.scope")
    tree.join(f"{scope}/cgroup.procs", neighbour.pid)
    told = as_user(lambda: [answers(), limited_container()], join=scope)

    available, container = told
    assert (available["memory"], available["pids"]) == (None, None)
    reason, hint = available["cpu"]
    assert f"not delegated to {service}" in reason
    assert f"systemctl edit user@{UNPRIVILEGED_ID}.service" in hint
    assert container["place"] == f"{service}/ocirun/c1"
    assert container["own"] == scope


@requires("root", "cgroup_v2")
def test_without_delegation_every_limit_is_refused_with_the_fix(top: str) -> None:
    """Also with allow_none, which is for containers that ask for nothing."""
    own = f"{top}/session.scope"
    os.mkdir(own)

    available, nothing, plain, limited = as_user(refusals, join=own)
    reason, hint = available["pids"]
    assert f"no cgroup from {own} up to" in reason
    assert "systemd-run --user --scope -p Delegate=yes" in hint
    assert nothing == NullCgroup.__name__
    assert plain.startswith("cannot make a cgroup for container c1: ")
    assert limited.startswith("cannot set memory.limit for container c1: ")


@requires("root", "cgroup_v2")
def test_an_absolute_path_outside_the_delegation_is_refused(top: str) -> None:
    """It means the same place for everybody, and is not bent into one that would work."""
    place = delegated(f"{top}/scope")

    def act() -> list[str]:
        try:
            manager().create("/ocirun-test-elsewhere", "c1", None)
        except OcirunError as error:
            return [type(error).__name__, str(error)]
        return []

    kind, text = as_user(act, join=place)
    assert kind == "KernelRefused"
    assert "Permission denied" in text
    assert "/ocirun-test-elsewhere" in text


@requires("root", "cgroup_v2")
def test_root_of_a_container_with_a_cgroup_namespace_has_limits_too(top: str) -> None:
    """Its hierarchy's top is not the real root: who lives there alone moves into a leaf."""
    program = (
        "import json, sys; sys.path.append(sys.argv[1])\n"
        "from pytest_ocirun.oci.codec import decode\n"
        "from pytest_ocirun.oci.runtime import Resources\n"
        "from pytest_ocirun.runtime.cgroups import detect\n"
        "managed = detect.manager()\n"
        "told = [name for name, refusal in managed.availability().items() if refusal is None]\n"
        "cgroup = managed.create(None, 'c1', decode(Resources, {'pids': {'limit': 5}}))\n"
        "limit = cgroup.limits()['pids.limit']\n"
        "print(json.dumps([sorted(told), cgroup.v2_dir, limit, detect.layout().own_v2]))\n"
        "cgroup.remove(); managed.prune()\n"
    )
    own = f"{top}/container"
    os.mkdir(own)
    script = (
        f"echo 0 > {own}/cgroup.procs; exec unshare --cgroup --mount sh -euc '"
        'mount -t cgroup2 none /mnt; mount --bind /mnt /sys/fs/cgroup; exec "$0" -I -S -c "$@"\' "$@"'
    )
    done = subprocess.run(
        ["sh", "-euc", script, "sh", sys.executable, program, PACKAGE_PARENT],
        capture_output=True,
        check=False,
        text=True,
        timeout=60,
    )

    assert done.stderr == ""
    assert json.loads(done.stdout) == [
        ["memory", "pids"],
        "/sys/fs/cgroup/ocirun/c1",
        5,
        f"/sys/fs/cgroup/{delegate.LEAF}",
    ]


@requires("root", "cgroup_v1")
def test_v1_gives_nothing_without_root_and_names_both_ways_out() -> None:
    """No delegation there."""
    available, nothing, plain, limited = as_user(refusals)
    for controller in ("memory", "pids", "cpu"):
        reason, hint = available[controller]
        assert f"not writable by uid {UNPRIVILEGED_ID}" in reason
        assert hint.startswith("run as root, or boot with cgroup v2 alone")
    assert nothing == NullCgroup.__name__
    assert plain.startswith("cannot make a cgroup for container c1: ")
    assert limited.startswith(f"cannot set memory.limit to {32 * M}: ")
