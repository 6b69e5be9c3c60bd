"""The command line for a user without any right."""

import dataclasses
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from tests import images
from tests.cli.conftest import SAME_NAMESPACES
from tests.requires import requires
from tests.seccomp_agent import Agent
from tests.unprivileged import User

pytestmark = requires("unprivileged", "busybox")


class Rootless:
    """``ocirun`` as that user, in a bundle of its own.

    Args:
        user: the user.
        bundle: the bundle, with a rootfs beside its config.
    """

    def __init__(self, user: User, bundle: Path) -> None:
        self.user = user
        self.bundle = bundle

    def __call__(self, *args: str) -> "CompletedProcess[str]":
        """Run it; its output and its containers'."""
        return self.user.run([self.user.python, "-m", "pytest_ocirun.cli", *args], cwd=self.bundle)

    def quiet(self, *args: str) -> int:
        """Run what leaves processes behind."""
        command = f'exec "{self.user.python}" -m pytest_ocirun.cli "$@" >/dev/null 2>&1 </dev/null'
        return self.user.run(["sh", "-c", command, "sh", *args], cwd=self.bundle).returncode

    def write(self, *argv: str, rootless: bool = True) -> None:
        """Write the config, running ``argv``."""
        path = self.bundle / "config.json"
        path.unlink(missing_ok=True)
        done = self("spec", "--rootless") if rootless else self("spec")
        assert (done.returncode, done.stderr) == (0, "")
        config = json.loads(path.read_text())
        config["process"] |= {"args": list(argv), "terminal": False}
        path.write_text(json.dumps(config))

    def state_root(self) -> Path:
        """Where the states lie."""
        return self.user.home / "run/ocirun"


@pytest.fixture
def rootless(unprivileged_user: User, request: pytest.FixtureRequest) -> Rootless:
    """The command line with a bundle in the user's home."""
    bundle = unprivileged_user.home / request.node.name.replace("[", "-").replace("]", "")
    bundle.mkdir()
    images.busybox(bundle / "rootfs")
    if not os.geteuid():
        for path in (bundle, *bundle.rglob("*")):
            os.chown(path, unprivileged_user.uid, unprivileged_user.uid, follow_symlinks=False)
    return Rootless(unprivileged_user, bundle)


def _left(rootless: Rootless) -> list[str]:
    return [path.name for path in rootless.state_root().glob("*") if not path.name.startswith("@")]


def test_run(rootless: Rootless) -> None:
    """The user is root inside, and only inside; the exit status is the program's."""
    rootless.write("sh", "-c", "id -u; cat /proc/self/uid_map; cat; exit 7")
    done = rootless("run", "u1")

    assert done.returncode == 7
    assert done.stdout.split() == ["0", "0", "0", "1"]
    assert done.stderr == ""
    assert _left(rootless) == []


def test_the_whole_walk(rootless: Rootless) -> None:
    """create, list, start, exec, state, kill, delete."""
    rootless.write("sleep", "60")
    created = rootless.quiet("create", "u2")
    table = rootless("list").stdout
    started = rootless("start", "u2")
    inside = rootless("exec", "u2", "sh", "-c", f"hostname; {SAME_NAMESPACES}; exit 4")
    state = json.loads(rootless("state", "u2").stdout)
    refused = rootless("delete", "u2")
    killed = rootless("kill", "u2", "KILL")
    deleted = rootless("delete", "--force", "u2")

    assert (created, started.returncode, started.stderr) == (0, 0, "")
    assert "created" in table
    assert (inside.returncode, inside.stdout.split(), inside.stderr) == (4, ["ocirun"], "")
    assert state["status"] == "running"
    assert (refused.returncode, killed.returncode, deleted.returncode) == (1, 0, 0)
    assert _left(rootless) == []


@requires("ps")
@pytest.mark.conforms("cli: ps", "cli: stop", "cli: events --stats")
def test_verbs_without_a_cgroup(rootless: Rootless) -> None:
    """The processes are told by the pid namespace; what needs a cgroup says so, and the container is unharmed."""
    rootless.write("sh", "-c", "trap 'exit 0' TERM; sleep 61 & while :; do sleep 0.05; done")
    assert rootless.quiet("run", "-d", "verbs") == 0
    has_cgroup = bool(json.loads((rootless.state_root() / "verbs/state.json").read_text())["cgroups"]["dirs"])
    pids = json.loads(rootless("ps", "-f", "json", "verbs").stdout)
    table = rootless("ps", "verbs", "-o", "pid,args").stdout
    stats = json.loads(rootless("events", "--stats", "verbs").stdout)["data"]
    paused = rootless("pause", "verbs")
    status = json.loads(rootless("state", "verbs").stdout)["status"]
    stopped = rootless("stop", "-t", "20", "verbs")
    after = json.loads(rootless("state", "verbs").stdout)["status"]
    empty = json.loads(rootless("ps", "-f", "json", "verbs").stdout)
    rootless("delete", "--force", "verbs")

    assert len(pids) >= 2
    assert "sleep 61" in table
    assert set(stats) >= {"cpu", "memory", "pids"}
    assert (stopped.returncode, after, empty) == (0, "stopped", [])
    if has_cgroup:
        assert (paused.returncode, status) == (0, "paused")
    else:
        assert (paused.returncode, status) == (1, "running")
        assert "cannot pause a container: this container was made without a cgroup" in paused.stderr


def test_detached_and_failing_execs(rootless: Rootless) -> None:
    """Errors are told as to root."""
    rootless.write("sleep", "60")
    assert rootless.quiet("run", "-d", "u3") == 0
    detached = rootless.quiet("exec", "-d", "u3", "sleep", "60")
    missing = rootless("exec", "u3", "nosuch")
    user = rootless("exec", "-u", "5", "u3", "id")
    rootless("delete", "--force", "u3")
    gone = rootless("exec", "u3", "true")

    assert detached == 0
    assert (missing.returncode, "executable file not found in $PATH" in missing.stderr) == (255, True)
    assert (user.returncode, user.stdout) == (255, "")
    assert "become uid 5" in user.stderr
    assert (gone.returncode, "container does not exist" in gone.stderr) == (255, True)


def test_roots_config_is_not_for_users(rootless: Rootless) -> None:
    """Without a user namespace in the config it cannot work; the error says what is missing."""
    rootless.write("true", rootless=False)
    done = rootless("run", "u4")

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines() == [
        "ocirun: $.linux.namespaces: a container made without root needs a user namespace of its own",
        "`ocirun spec --rootless` writes a config with one.",
    ]
    assert _left(rootless) == []


def test_a_limit_that_cannot_be_had_is_refused(rootless: Rootless) -> None:
    """Fail closed: going on without cgroups is for who asked for no limit."""
    rootless.write("true")
    config = json.loads((rootless.bundle / "config.json").read_text())
    config["linux"]["resources"] = {"memory": {"limit": 1 << 26}}
    (rootless.bundle / "config.json").write_text(json.dumps(config))
    done = rootless("run", "u5")
    strict = rootless("--rootless=false", "run", "u5")

    if done.returncode == 0:
        pytest.skip("this user may make cgroups")
    assert (done.returncode, strict.returncode) == (1, 1)
    assert "memory.limit" in done.stderr
    assert _left(rootless) == []


@pytest.mark.conforms("cli: --rootless")
def test_whether_cgroups_can_be_done_without(rootless: Rootless) -> None:
    """By itself for a plain user whose config has no limit, or where it is said; otherwise lacking one is an error."""
    rootless.write("true")
    went = [rootless(*words, "run", "u13").returncode for words in ([], ["--rootless=auto"], ["--rootless", "true"])]
    strict = rootless("--rootless=false", "run", "u13")
    if strict.returncode == 0:
        pytest.skip("this kernel lacks nothing: the user may make cgroups")

    assert went == [0, 0, 0]
    assert (strict.returncode, "cgroup" in strict.stderr, _left(rootless)) == (1, True, [])


def test_hooks_of_a_user_run_as_that_user_outside(rootless: Rootless) -> None:
    """Not in the user namespace that the container is made from."""
    look = "readlink /proc/self/ns/user"  # that of mounts is another for each of our runs
    hooks = {
        kind: [
            {"path": "/bin/sh", "args": ["sh", "-c", f"{look} > {rootless.bundle}/{kind}"], "env": ["PATH=/usr/bin"]}
        ]
        for kind in ("prestart", "createRuntime", "createContainer", "poststart", "poststop")
    }
    rootless.write("true")
    path = rootless.bundle / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"hooks": hooks}))
    own = rootless.user.run(["sh", "-c", look]).stdout
    done = rootless("run", "u6")
    seen = {kind: (rootless.bundle / kind).read_text() for kind in hooks}

    assert (done.returncode, done.stderr) == (0, "")
    assert [kind for kind, text in seen.items() if text != own] == ["createContainer"]
    assert _left(rootless) == []


_GIVE = """
dir=$1 uid=$2; shift 2
cp /etc/passwd "$dir/passwd"; echo "ocirun-test:x:$uid:$uid::/:/bin/sh" >> "$dir/passwd"
for file in passwd subuid subgid; do mount --bind "$dir/$file" "/etc/$file"; done
exec "$@"
"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class UserWithIds(User):
    """A user to whom an administrator has given ids, in files that only this user's processes see.

    Attributes:
        files: a folder with subuid and subgid.
    """

    files: Path

    def _command(self, args: Sequence[str | Path]) -> list[str]:
        start = ["unshare", "--mount", "--propagation=private", "sh", "-euc", _GIVE, "sh"]
        return [*start, str(self.files), str(self.uid), *User._command(self, args)]


FIRST = 0x7F000000


@pytest.fixture
def given(rootless: Rootless, tmp_path: Path) -> Rootless:
    """The command line for a user who has two ranges of uids and one of gids."""
    (tmp_path / "subuid").write_text(f"ocirun-test:{FIRST}:1000\nocirun-test:{FIRST + 5000}:500\n")
    (tmp_path / "subgid").write_text(f"{rootless.user.uid}:{FIRST}:2000\n")
    user = rootless.user
    rootless.user = UserWithIds(uid=user.uid, home=user.home, python=user.python, files=tmp_path)
    return rootless


def _map(rootless: Rootless, uids: list[tuple[int, int, int]], gids: list[tuple[int, int, int]]) -> None:
    """Write these rows, with the caller's own id as the container's root, into the config."""
    path = rootless.bundle / "config.json"
    config = json.loads(path.read_text())
    for key, rows in (("uidMappings", uids), ("gidMappings", gids)):
        config["linux"][key] += [dict(zip(("containerID", "hostID", "size"), row, strict=True)) for row in rows]
    config["process"]["user"] = {"uid": 1200, "gid": 7, "additionalGids": [9, 1500]}
    config["process"]["capabilities"] = {}
    path.write_text(json.dumps(config))


@pytest.mark.conforms(
    *(f"config: $.linux.{kind}Mappings[].{key}" for kind in ("uid", "gid") for key in ("containerID", "hostID", "size"))
)
@requires("root", "subids")
@pytest.mark.conforms("config: $.linux.uidMappings", "config: $.linux.gidMappings")
def test_subordinate_ids(given: Rootless) -> None:
    """They are mapped by newuidmap and newgidmap; supplementary groups work, in run and in exec."""
    given.write("sh", "-c", "id -u; id -G; cat /proc/self/uid_map /proc/self/gid_map; sleep 60")
    _map(given, [(1, FIRST, 1000), (1100, FIRST + 5000, 500)], [(1, FIRST, 2000)])
    assert given.quiet("run", "-d", "u9") == 0
    try:
        inside = given("exec", "u9", "sh", "-c", "id -u; id -G; cat /proc/self/uid_map /proc/self/gid_map")
        command = f'"{given.user.python}" -m pytest_ocirun.cli exec u9 sh -c "echo again > /dev/stdout" | cat'
        again = given.user.run(["sh", "-c", command], cwd=given.bundle)
        pid = json.loads(given("state", "u9").stdout)["pid"]
        owner = Path(f"/proc/{pid}").stat().st_uid
        status = Path(f"/proc/{pid}/status").read_text()
    finally:
        deleted = given("delete", "--force", "u9")

    assert (inside.stderr, again.stdout, again.stderr) == ("", "again\n", "")
    assert inside.stdout.split("\n")[:2] == ["1200", "7 9 1500"]
    assert [row.split() for row in inside.stdout.splitlines()[2:]] == [
        ["0", "0", "1"], ["1", "1", "1000"], ["1100", "1001", "500"],
        ["0", "0", "1"], ["1", "1", "2000"],
    ]  # fmt: skip
    assert owner == FIRST + 5100
    assert f"Groups:\t{FIRST + 8} {FIRST + 1499}" in status
    assert (deleted.returncode, _left(given)) == (0, [])


@requires("root", "subids")
@pytest.mark.conforms("config: $.linux.uidMappings")
def test_ids_that_the_user_was_not_given(given: Rootless) -> None:
    """An error that names one, and nothing is left."""
    given.write("true")
    _map(given, [(1, FIRST, 1000), (1100, FIRST + 2000, 500)], [(1, FIRST, 2000)])
    done = given("run", "u10")

    assert (done.returncode, _left(given)) == (1, [])
    assert f"uid {FIRST + 2000} is not among the ids that this user may map" in done.stderr


@requires("subids")
@pytest.mark.conforms("config: $.linux.uidMappings")
def test_no_subordinate_ids(rootless: Rootless) -> None:
    """Without a line for the user the error says where one belongs."""
    rootless.write("true")
    _map(rootless, [(1, FIRST, 1500)], [(1, FIRST, 2000)])
    done = rootless("run", "u11")

    assert (done.returncode, _left(rootless)) == (1, [])
    assert "/etc/subuid has no line for uid" in done.stderr


@pytest.mark.conforms("config: $.linux.uidMappings")
def test_root_of_a_user_namespace(rootless: Rootless) -> None:
    """As under podman without root: the config's host ids are those of the namespace that ocirun is run in."""
    rootless.write("sh", "-c", "id -u; cat /proc/self/uid_map")
    path = rootless.bundle / "config.json"
    config = json.loads(path.read_text())
    for key in ("uidMappings", "gidMappings"):
        config["linux"][key][0]["hostID"] = 0
    path.write_text(json.dumps(config))
    command: list[str | Path] = ["unshare", "--user", "--map-root-user", "--mount"]
    command += [rootless.user.python, "-m", "pytest_ocirun.cli"]
    done = rootless.user.run([*command, "run", "u13"], cwd=rootless.bundle)

    assert done.stderr == ""
    assert (done.returncode, done.stdout.split(), done.stderr) == (0, ["0", "0", "0", "1"], "")
    assert _left(rootless) == []


@pytest.mark.conforms("config: $.process.user.additionalGids")
def test_supplementary_groups_that_cannot_be_had(rootless: Rootless) -> None:
    """The kernel denies setgroups in the namespace of a user without ids of its own; that is said, not passed over."""
    rootless.write("true")
    path = rootless.bundle / "config.json"
    config = json.loads(path.read_text())
    config["process"]["user"]["additionalGids"] = [0]
    path.write_text(json.dumps(config))
    done = rootless("run", "u12")

    assert (done.returncode, _left(rootless)) == (1, [])
    assert "setgroups(2) is denied here, so additionalGids cannot be had" in done.stderr


def test_an_agent_of_a_user_gets_the_listener(rootless: Rootless) -> None:
    """The stage may trace what is made from it, though the user may not."""
    path = rootless.bundle / "agent.sock"
    rootless.write("sh", "-c", "mkdir /tmp/d")
    config = json.loads((rootless.bundle / "config.json").read_text())
    rule = {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_NOTIFY"}
    seccomp = {"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": str(path), "syscalls": [rule]}
    config["linux"]["seccomp"] = seccomp
    (rootless.bundle / "config.json").write_text(json.dumps(config))
    with Agent(path) as agent:
        path.chmod(0o777)
        done = rootless("run", "u7")

    assert "No space left on device" in done.stderr
    assert [state["state"]["status"] for state in agent.states] == ["creating"]


@pytest.mark.slow
def test_a_create_that_is_killed_leaves_nothing_behind_its_deletion(rootless: Rootless) -> None:
    """At any time; its init ends by itself."""
    rootless.write("sleep", "60")
    for hundredths in range(1, 20, 2):
        name = f"k{hundredths}"
        create = f'"{rootless.user.python}" -m pytest_ocirun.cli create {name} >/dev/null 2>&1 </dev/null'
        kill = f"{create} & p=$!; sleep 0.{hundredths:02}; kill -9 $p; wait $p; true"
        rootless.user.run(["sh", "-c", kill], cwd=rootless.bundle)
        done = rootless("delete", "--force", name)

        assert (done.returncode, done.stderr, _left(rootless)) == (0, "", [])
    deadline = time.monotonic() + 5
    while (left := _sleepers(rootless)) and time.monotonic() < deadline:
        time.sleep(0.02)

    assert left == []


def _sleepers(rootless: Rootless) -> list[str]:
    """Processes of the user that run, or are to run, a container: all but this one, which may be the user's too."""
    found = []
    for entry in {*Path("/proc").glob("[0-9]*")} - {Path(f"/proc/{os.getpid()}")}:
        try:
            if f"\t{rootless.user.uid}\t" in (entry / "status").read_text():
                state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
                found += [f"{entry.name} {state} {(entry / 'cmdline').read_bytes()!r}"] if state not in "ZX" else []
        except OSError:
            continue
    return found
