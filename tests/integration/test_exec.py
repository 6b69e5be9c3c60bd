"""Exec by the engine: streams, ends, timeouts, environments, threads."""

import asyncio
import os
import resource
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_ocirun.engine.container import Container
from pytest_ocirun.errors import CommandFailed, ConfigError, ContainerNotFound, KernelRefused, OcirunError, WrongStatus
from tests.boxes import PATH, Launch, M, shell
from tests.requires import lane, requires

pytestmark = [requires("userns", "overlay", "seccomp", "busybox"), pytest.mark.lane("v2")]


def test_result_tells_all(box: Container) -> None:
    """Exit status, both streams apart, how long it took; nothing else went wrong."""
    result = box.exec(["sh", "-c", "echo out; echo err >&2; sleep 0.05; exit 3"])

    assert (result.exit_code, result.stdout, result.stderr) == (3, "out\n", "err\n")
    assert (result.signal, result.timed_out, result.oom_killed, result.ok) == (None, False, False, False)
    assert 0.05 <= result.duration < 5
    assert result.describe() == "exited with 3"


def test_ten_megabytes_of_input(box: Container) -> None:
    """Input beyond what a pipe holds arrives whole, while the output comes back."""
    data = os.urandom(10 * M)

    assert box.exec(["cat"], input=data).stdout_bytes == data


def test_fifty_megabytes_on_each_stream(launch: Launch) -> None:
    """Both streams at once, each beyond what a pipe holds: no deadlock, every byte."""
    script = "head -c 52428800 /dev/zero & head -c 52428800 /dev/zero >&2; wait"
    result = launch().exec(["sh", "-c", script], input=b"x" * M)

    assert (len(result.stdout_bytes), len(result.stderr_bytes)) == (50 * M, 50 * M)
    assert result.ok


def pipes() -> set[str]:
    """The pipes that we have open."""
    links = set()
    for name in os.listdir("/proc/self/fd"):
        try:
            links.add(os.readlink(f"/proc/self/fd/{name}"))
        except FileNotFoundError:
            continue  # the listing's own
    return {link for link in links if link.startswith("pipe:")}


def test_output_beyond_the_cap_ends_the_exec(box: Container) -> None:
    """A process that floods the client is killed with its tree, and the error says how much was too much."""
    before = pipes()
    with pytest.raises(OcirunError, match="wrote more than 67108864 bytes"):
        box.exec(["sh", "-c", "setsid sleep 60 & cat /dev/zero"], input="x" * M)

    assert remaining(box) == []
    assert pipes() == before
    assert shell(box, "echo alive") == "alive"


def test_input_that_nobody_reads(box: Container) -> None:
    """A program that ends without reading its input is no error."""
    assert box.exec(["true"], input="x" * M).ok


def test_without_input_stdin_is_empty(box: Container) -> None:
    """Standard input is /dev/null; an empty input is an empty pipe."""
    assert shell(box, "readlink /proc/self/fd/0; cat") == "/dev/null"
    assert box.exec(["cat"], input="").stdout == ""


def test_bytes_that_are_no_text(box: Container) -> None:
    """Undecodable bytes are shown as escapes; the bytes themselves are there too."""
    result = box.exec(["printf", r"a\377\300b\n"])

    assert result.stdout == "a\\xff\\xc0b\n"
    assert result.stdout_bytes == b"a\xff\xc0b\n"


def test_words_that_are_no_text(box: Container) -> None:
    """An argument or variable with escaped bytes arrives as these bytes, as everywhere in Python."""
    word = b"\xff\xfe".decode("utf-8", "surrogateescape")
    result = box.exec(["sh", "-c", 'printf %s%s "$1" "$V"', "sh", word], env={"V": word})

    assert result.stdout_bytes == b"\xff\xfe\xff\xfe"


def test_environment_and_directory_of_the_call(launch: Launch) -> None:
    """Variables go on top of the container's, the directory instead of the container's."""
    box = launch(env={"PATH": PATH, "A": "1", "B": "1"}, cwd="/usr")

    assert shell(box, "echo $A$B; pwd") == "11\n/usr"
    assert shell(box, "echo $A$B; pwd", env={"B": "2"}, cwd="/tmp") == "12\n/tmp"


@requires("root")
@pytest.mark.parametrize(
    "user, ids", [(None, "0 0"), (0, "0 0"), (1000, "1000 0"), ((1000, 1001), "1000 1001"), ((0, 5), "0 5")]
)
def test_user_of_the_call(box: Container, user: int | tuple[int, int] | None, ids: str) -> None:
    """A uid, or a uid and gid; a uid alone comes with gid 0, as in runc."""
    assert shell(box, "echo $(id -u) $(id -g)", user=user) == ids


@requires("root")
def test_another_user_cannot_write_roots_files(box: Container) -> None:
    """The user is meant: what belongs to root is not writable for it, /tmp is."""
    result = box.exec(["sh", "-c", "touch /tmp/mine; touch /etc/passwd; stat -c %u /tmp/mine"], user=1000)

    assert "Permission denied" in result.stderr
    assert result.stdout == "1000\n"


@pytest.mark.parametrize("args", ["ls", [], [""], ["a\0b"], [1], ["ls", None], b"ls"])
def test_arguments_that_are_none(box: Container, args: object) -> None:
    """A string, nothing, or what is no string is refused before anything runs."""
    with pytest.raises(ConfigError, match="args"):
        box.exec(args)  # type: ignore[arg-type]


@pytest.mark.parametrize("env", [{"A=B": "1"}, {"": "1"}, {"A": 1}, {"A": "x\0y"}, {1: "x"}, {"A": None}])
def test_variables_that_are_none(box: Container, env: dict[str, str]) -> None:
    """A name with '=' would become another variable; so would a NUL end a value."""
    with pytest.raises(ConfigError, match="env"):
        box.exec(["env"], env=env)


@pytest.mark.parametrize("timeout", [-1, float("nan")])
def test_timeouts_that_are_none(box: Container, timeout: float) -> None:
    """They are refused, and nothing runs."""
    with pytest.raises(ConfigError, match="timeout must be seconds, 0 or more"):
        box.exec(["true"], timeout=timeout)


def test_check_raises_with_the_result(box: Container) -> None:
    """With check=True a failure is an error that shows what was run, how it ended and what it said."""
    with pytest.raises(CommandFailed, match=r"(?s)\['sh', '-c'.*exited with 4.*went wrong") as caught:
        box.exec(["sh", "-c", "echo went wrong >&2; exit 4"], check=True)

    assert getattr(caught.value.result, "exit_code", None) == 4


def test_a_missing_program_is_an_error(box: Container) -> None:
    """Not a result with status 127: that would be the program's own answer."""
    before = pipes()
    with pytest.raises(KernelRefused, match=r"find missing in the PATH /bin:/usr/bin.*not found"):
        box.exec(["missing"], input="x" * M)

    assert pipes() == before


def test_signals_are_default_and_unblocked(box: Container) -> None:
    """What Python and pytest ignore or block is not passed on: a broken pipe ends the writer."""
    seen = dict(
        line.split(":\t") for line in box.exec(["cat", "/proc/self/status"]).stdout.splitlines() if ":\t" in line
    )

    assert [int(seen[name], 16) for name in ("SigBlk", "SigIgn", "SigCgt")] == [0, 0, 0]


def remaining(box: Container) -> list[str]:
    """What runs in the container beside pid 1 and the look itself."""
    deadline = time.monotonic() + 5
    names: list[str] = []
    while time.monotonic() < deadline:
        script = 'for p in /proc/[0-9]*; do read -r name < $p/comm && echo "${p#/proc/} $name"; done 2>/dev/null'
        names = [line for line in box.exec(["sh", "-c", script]).stdout.splitlines() if not line.startswith("1 ")]
        names = [line for line in names if not line.endswith(" sh")]
        if not names:
            break
    return names


SLOW = 5 if lane() == "v2" else 1
"""How much longer things take in an emulated kernel."""

_TREES = {
    "plain": "sleep 60",
    "children": "sleep 61 & sleep 62 & wait",
    "session": "setsid sleep 63 & setsid sh -c 'sleep 64; true' & sleep 65",
    "double fork": "(setsid sh -c '(sleep 66 &) ; sleep 67' &) ; sleep 68",
    "ignores": "trap '' TERM INT HUP; sleep 69; sleep 70",
    "stopped": "kill -STOP $$; sleep 71",
}


@pytest.mark.parametrize("tree", _TREES)
def test_a_timeout_ends_the_whole_tree(box: Container, tree: str) -> None:
    """Children, other sessions, orphans, stopped ones: nothing of the exec survives its timeout, the container does."""
    began = time.monotonic()
    result = box.exec(["sh", "-c", f"echo begun; {_TREES[tree]}"], timeout=0.3 * SLOW)

    assert (result.timed_out, result.signal, result.stdout) == (True, signal.SIGKILL, "begun\n")
    assert 0.3 <= time.monotonic() - began < 5 * SLOW
    assert remaining(box) == []


@requires("root", "cgroup")
def test_a_timeout_ends_a_fork_bomb(launch: Launch) -> None:
    """Also what forks as fast as it can, up to the limit on processes."""
    box = launch()
    result = box.exec(["sh", "-c", "bomb() { bomb | bomb & }; bomb; sleep 60"], timeout=0.5 * SLOW)

    assert result.timed_out
    assert remaining(box) == []
    assert box.counters().pids_limit_hits > 0


@requires("root", "cgroup")
def test_a_timeout_spares_other_execs(box: Container) -> None:
    """With cgroups it is exactly the exec's tree that ends."""
    others: list[int | None] = []
    other = threading.Thread(target=lambda: others.append(box.exec(["sh", "-c", "sleep 0.6; exit 5"]).exit_code))
    other.start()
    assert box.exec(["sleep", "60"], timeout=0.2).timed_out
    other.join()

    assert others == [5]


def test_a_timeout_without_cgroups_ends_the_whole_tree(launch: Launch, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no cgroup the pid namespace is gone through until nothing is left."""
    box = launch()
    monkeypatch.setattr(box, "_kill_tree", lambda child, _tree: Container._kill_tree(box, child, None))
    result = box.exec(["sh", "-c", "setsid sh -c '(sleep 66 &) ; sleep 67' & sleep 68"], timeout=0.3)

    assert result.timed_out
    assert remaining(box) == []


def test_a_timeout_of_a_chatty_program(box: Container) -> None:
    """Output that never pauses does not put the deadline off."""
    result = box.exec(["sh", "-c", "while :; do echo x; done"], timeout=0.3)

    assert result.timed_out
    assert result.duration < 3


def test_no_timeout_no_end(box: Container) -> None:
    """A timeout that is not reached changes nothing."""
    result = box.exec(["sleep", "0.1"], timeout=30)

    assert (result.timed_out, result.exit_code) == (False, 0)


def test_a_background_child_does_not_hang_the_exec(box: Container) -> None:
    """The end is the end of the program, though a child of it holds the pipes; that lives on."""
    began = time.monotonic()
    result = box.exec(["sh", "-c", "echo x; sleep 50 & exit 0"], timeout=20)

    assert (result.exit_code, result.stdout) == (0, "x\n")
    assert time.monotonic() - began < 5
    assert [line.split()[1] for line in remaining_once(box)] == ["sleep"]


def remaining_once(box: Container) -> list[str]:
    """The same as ``remaining``, without waiting."""
    script = 'for p in /proc/[0-9]*; do read -r name < $p/comm && echo "${p#/proc/} $name"; done 2>/dev/null'
    lines = box.exec(["sh", "-c", script]).stdout.splitlines()
    return [line for line in lines if not line.startswith("1 ") and not line.endswith(" sh")]


def test_output_that_closes_early(box: Container) -> None:
    """A program that closes its streams and runs on is waited for."""
    result = box.exec(["sh", "-c", "echo x; exec >&- 2>&-; sleep 0.3; exit 6"])

    assert (result.exit_code, result.stdout) == (6, "x\n")
    assert result.duration >= 0.3


def test_execs_from_many_threads(box: Container) -> None:
    """Eight threads, each with its own input: nobody gets another's output."""
    answers: dict[int, list[str]] = {}

    def work(number: int) -> None:
        answers[number] = [box.exec(["cat"], input=f"{number}-{turn}").stdout for turn in range(10)]

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert answers == {number: [f"{number}-{turn}" for turn in range(10)] for number in range(8)}


def test_exec_inside_a_running_event_loop(box: Container) -> None:
    """An async test may exec, in the loop's thread and in another."""

    async def main() -> list[str]:
        direct = box.exec(["echo", "direct"]).stdout
        other = await asyncio.to_thread(lambda: box.exec(["echo", "other"]).stdout)
        return [direct, other]

    assert asyncio.run(main()) == ["direct\n", "other\n"]


@pytest.fixture
def many_fds() -> Iterator[None]:
    """More open files than select(2) can count."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 2000:
        pytest.skip(f"this kernel lacks room for 2000 open files here: the hard limit is {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2000), hard))
    held = [os.open(os.devnull, os.O_RDONLY) for _number in range(1100)]
    yield
    for fd in held:
        os.close(fd)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_client_with_more_than_1024_files(launch: Launch, many_fds: None) -> None:
    """A suite with many containers or open files: launch, exec, wait and delete work beyond fd 1023."""
    box = launch()

    assert shell(box, "echo x") == "x"
    assert box.poll() is None
    box.kill()
    assert box.wait(10).signal == signal.SIGKILL
    box.delete()


def test_exec_after_the_end(launch: Launch) -> None:
    """A dead or deleted container says which of the two it is."""
    box = launch()
    box.kill()
    box.wait(10)
    with pytest.raises(WrongStatus, match=r"it is stopped|ended"):
        box.exec(["true"])
    box.delete()
    with pytest.raises(ContainerNotFound, match="it was deleted"):
        box.exec(["true"])
    box.delete()


def test_a_kill_in_the_middle_of_an_exec(box: Container) -> None:
    """The exec ends by SIGKILL, and is neither timed out nor out of memory."""
    killer = threading.Timer(0.2, box.kill)
    killer.start()
    result = box.exec(["sleep", "60"])
    killer.join()

    assert (result.signal, result.timed_out, result.oom_killed) == (signal.SIGKILL, False, False)


def test_a_missing_directory_is_not_made_by_exec(box: Container) -> None:
    """A misspelt cwd is an error, as in subprocess; only a container's own is made."""
    with pytest.raises(KernelRefused, match="/no/such/place"):
        box.exec(["true"], cwd="/no/such/place")

    assert box.exec(["test", "-e", "/no"]).exit_code == 1


@requires("root", "cgroup")
def test_exec_leaves_no_cgroup_behind(box: Container) -> None:
    """Each exec's own cgroup goes with it."""
    box.exec(["true"], timeout=60)
    box.exec(["sh", "-c", "setsid sleep 60 & sleep 60"], timeout=0.2)
    found = [path for path in map(Path, box._cgroup.paths["dirs"].values()) for path in path.glob("exec-*")]

    assert found == []
