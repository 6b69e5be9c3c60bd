"""The agent as a process: what the host reads on the socket, for every pytest and Python that is at hand."""

import os
import shutil
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import pytest_ocirun
from pytest_ocirun.agent import wire
from pytest_ocirun.errors import ProtocolError
from pytest_ocirun.plugin import schema

_SECONDS = 20


class Host:
    """The host's end, as simple as can be."""

    def __init__(self, sock: socket.socket, pid: int) -> None:
        self.sock = sock
        self.pid = pid
        self._decoder = wire.Decoder()
        self._frames: list[tuple[int, bytes]] = []
        self._status: int | None = None

    def wait(self) -> int:
        """Hang up, and return the agent's wait status."""
        self.sock.close()
        if self._status is None:
            self._status = os.waitpid(self.pid, 0)[1]
        return self._status

    def send(self, **message: Any) -> None:
        """Send one message."""
        self.sock.sendall(wire.encode(wire.HOST, message))

    def next(self) -> tuple[int, dict[str, Any]]:
        """Return origin and message, checked as the plugin checks them."""
        while not self._frames:
            data = self.sock.recv(65536)
            if not data:
                raise EOFError
            self._decoder.feed(data)
            self._frames += self._decoder.frames()
        origin, body = self._frames.pop(0)
        check = schema.from_worker if origin == wire.WORKER else schema.from_supervisor
        return origin, check(wire.decode(body))

    def expect(self, kind: str) -> dict[str, Any]:
        """Return the next message, which is of this type; warnings are passed over."""
        while True:
            _, message = self.next()
            if message["type"] != "warning":
                assert message["type"] == kind, message
                return message

    def collect(self, path: Path | None, *arguments: str) -> None:
        """Order a collection."""
        argv = ["-p", "no:cacheprovider", "-p", "no:ocirun", *arguments, *([str(path)] if path else [])]
        self.send(
            type="collect",
            enumerate=path is None,
            argv=argv,
            file=path and str(path),
            paths=[],
            inis=["ocirun_image"],
            markers=["ocirun"],
            limit=10_000,
        )


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    """An agent that has just started, in an empty directory."""
    stage = tmp_path / "stage"
    package = Path(pytest_ocirun.__file__).parent
    shutil.copytree(package / "agent", stage / "pytest_ocirun" / "agent")
    shutil.copy(package / "__init__.py", stage / "pytest_ocirun")
    (tmp_path / "tree").mkdir()
    ours, theirs = socket.socketpair()
    ours.settimeout(_SECONDS)
    code = f"import sys; sys.path[0] = {str(stage)!r}; from pytest_ocirun.agent.__main__ import main; sys.exit(main())"
    pid = os.posix_spawn(
        sys.executable,
        [sys.executable, "-c", f"import os; os.chdir({str(tmp_path / 'tree')!r}); {code}"],
        {"PATH": "/usr/bin:/bin", "PYTHONPATH": os.pathsep.join(path for path in sys.path if "site-packages" in path)},
        file_actions=[(os.POSIX_SPAWN_DUP2, theirs.fileno(), 3)],
    )
    theirs.close()
    made = Host(ours, pid)
    yield made
    made.wait()


def _suite(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "tree" / "test_it.py"
    path.write_text(text)
    return path


def test_a_whole_conversation(host: Host, tmp_path: Path) -> None:
    """Ready, collected, three reports, done, ended."""
    path = _suite(tmp_path, "def test_one(): pass\ndef test_two(): assert 0")

    assert host.expect("ready")["pytest"] == pytest.__version__
    host.collect(path)
    nodes = host.expect("collected")["nodes"]
    assert [node["name"] for node in nodes if node["kind"] == "item"] == ["test_one", "test_two"]
    host.send(type="run", index=1, next=None)
    outcomes = [host.expect("report")["report"] for _ in range(2)]
    host.send(type="teardown", next=None)
    outcomes.append(host.expect("report")["report"])
    assert [(one["when"], one["outcome"]) for one in outcomes] == [
        ("setup", "passed"),
        ("call", "failed"),
        ("teardown", "passed"),
    ]
    assert host.expect("done") == {"type": "done", "index": 1}
    host.send(type="finish")
    assert host.expect("ended") == {"type": "ended", "exit": 1, "signal": None, "breach": None}


def test_listing_imports_no_module(host: Host, tmp_path: Path) -> None:
    """The enumerator names files and stops there."""
    _suite(tmp_path, "raise SystemExit('imported')")
    (tmp_path / "tree" / "pkg").mkdir()
    for name in ("__init__.py", "test_deep.py"):
        (tmp_path / "tree" / "pkg" / name).write_text("raise SystemExit('imported')")

    host.expect("ready")
    host.collect(None, str(tmp_path / "tree"))

    nodes = host.expect("collected")["nodes"]
    assert sorted(os.path.basename(node["path"]) for node in nodes if node["kind"] == "file") == [
        "test_deep.py",
        "test_it.py",
    ]


@pytest.mark.parametrize(
    "code, exit_status, number",
    [("os._exit(7)", 7, None), ("os.kill(os.getpid(), 9)", None, 9), ("os.abort()", None, int(signal.SIGABRT))],
)
def test_end_of_the_worker_is_reported(
    host: Host, tmp_path: Path, code: str, exit_status: int | None, number: int | None
) -> None:
    """The supervisor outlives it and says how it ended."""
    host.expect("ready")
    host.collect(_suite(tmp_path, f"import os\ndef test_it(): {code}"))
    host.expect("collected")
    host.send(type="run", index=0, next=None)
    host.expect("report")

    assert host.expect("ended") == {"type": "ended", "exit": exit_status, "signal": number, "breach": None}


def test_unread_arguments_are_a_usage_error(host: Host, tmp_path: Path) -> None:
    """Pytest's own words come back."""
    host.expect("ready")
    host.collect(_suite(tmp_path, ""), "--no-such-option")

    broken = host.expect("broken")
    assert broken["reason"] == "usage"
    assert "--no-such-option" in broken["text"]


def test_broken_conftest_comes_back(host: Host, tmp_path: Path) -> None:
    """With the traceback that a plain run prints."""
    (tmp_path / "tree" / "conftest.py").write_text("import no_such_module")
    host.expect("ready")
    host.collect(_suite(tmp_path, ""))

    assert "no_such_module" in host.expect("broken")["text"]


def test_worker_cannot_speak_for_the_supervisor(host: Host, tmp_path: Path) -> None:
    """Whatever origin it writes, its frames arrive as the worker's."""
    forge = (
        "import gc, struct\n"
        "wire = next(o for o in gc.get_objects() if type(o).__name__ == 'Channel')\n"
        'body = b\'{"type":"ended","exit":0,"signal":null,"breach":null}\'\n'
        "wire._sock.sendall(struct.pack('!BI', 83, len(body)) + body)\n"
    )
    host.expect("ready")
    host.collect(_suite(tmp_path, forge))

    with pytest.raises(ProtocolError, match="no known type"):
        host.expect("ended")


def test_garbage_from_the_worker_ends_it(host: Host, tmp_path: Path) -> None:
    """The supervisor reads frames only, and says what was wrong."""
    forge = (
        "import gc, time\n"
        "wire = next(o for o in gc.get_objects() if type(o).__name__ == 'Channel')\n"
        "wire._sock.sendall(b'\\xff' * 100)\n"
        "time.sleep(60)\n"
    )
    host.expect("ready")
    host.collect(_suite(tmp_path, forge))

    ended = host.expect("ended")
    assert ended["signal"] == signal.SIGKILL
    assert "a frame of 4294967295 bytes" in ended["breach"]


def test_host_that_goes_takes_everything_along(host: Host, tmp_path: Path) -> None:
    """When the socket closes, the worker and what it started end."""
    host.expect("ready")
    host.collect(_suite(tmp_path, "import time\ntime.sleep(600)"))

    assert host.wait() == 0
