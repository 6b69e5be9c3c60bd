"""The state directory: ids, documents, locks."""

import fcntl
import os
import threading
import time
from pathlib import Path

import pytest

from pytest_ocirun.errors import ConfigError, ContainerExists, ContainerNotFound, OcirunError
from pytest_ocirun.linux import proc
from pytest_ocirun.runtime import state


@pytest.mark.parametrize("name", ["a", "A.b-c_d+e", "0", "x" * 255, "-", "...", ".hidden"])
def test_ids_that_runc_takes(name: str) -> None:
    """Letters, digits and _ + . -."""
    state.check_id(name)


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/", "a b", "ä", "@x", "a\n", "x" * 1025, "a\0"])
def test_ids_that_would_be_paths_or_worse(name: str) -> None:
    """Everything else."""
    with pytest.raises(ConfigError, match="invalid container id"):
        state.check_id(name)


def test_document_comes_back_as_it_was_written(tmp_path: Path) -> None:
    """Written by rename, so a reader sees the old one or the new one."""
    with state.make(str(tmp_path), "box") as directory:
        for number in range(3):
            directory.write({"pid": 0, "start_time": 0, "number": number, "text": "ä\udcff"})
        seen = directory.read()

    assert (seen["number"], seen["text"]) == (2, "ä\udcff")
    assert os.listdir(tmp_path / "box") == ["state.json"]


def test_statuses_follow_from_the_init_and_the_socket(tmp_path: Path) -> None:
    """Nothing of the status is stored."""
    own = proc.stat(os.getpid())
    assert own is not None
    alive = {"pid": os.getpid(), "start_time": own[1]}
    with state.make(str(tmp_path), "box") as directory:
        seen = [directory.status({"pid": 0, "start_time": 0}), directory.status(alive)]
        (tmp_path / "box" / state.START_SOCKET).touch()
        seen += [directory.status(alive), directory.status({**alive, "start_time": own[1] + 1})]

    assert seen == [state.CREATING, state.RUNNING, state.CREATED, state.STOPPED]


def test_zombie_counts_as_stopped(tmp_path: Path) -> None:
    """Who is not the parent cannot reap, and need not."""
    pid = os.fork()
    if not pid:
        os._exit(0)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    found = proc.stat(pid)
    assert found is not None
    with state.make(str(tmp_path), "box") as directory:
        seen = directory.status({"pid": pid, "start_time": found[1]})
    os.waitpid(pid, 0)

    assert found[0] in "ZX"
    assert seen == state.STOPPED


def test_id_can_be_made_once(tmp_path: Path) -> None:
    """Until its directory is gone."""
    with state.make(str(tmp_path), "box") as directory:
        directory.write({})
    with pytest.raises(ContainerExists, match="already exists"):
        state.make(str(tmp_path), "box")


def test_lock_is_waited_for(tmp_path: Path) -> None:
    """One at a time works on a container; who does not want to wait is told."""
    order: list[str] = []
    with state.make(str(tmp_path), "box") as directory:
        directory.write({})

        def other() -> None:
            with state.open_existing(str(tmp_path), "box"):
                order.append("other")

        thread = threading.Thread(target=other)
        thread.start()
        time.sleep(0.1)
        with pytest.raises(BlockingIOError):
            state.open_existing(str(tmp_path), "box", wait=False)
        order.append("first")
    thread.join(10)

    assert order == ["first", "other"]


def test_directory_deleted_while_waiting_does_not_exist(tmp_path: Path) -> None:
    """Whoever gets the lock of a directory that is gone is told so."""
    seen: list[type[BaseException]] = []
    directory = state.make(str(tmp_path), "box")

    def other() -> None:
        try:
            state.open_existing(str(tmp_path), "box").close()
        except ContainerNotFound as error:
            seen.append(type(error))

    thread = threading.Thread(target=other)
    thread.start()
    time.sleep(0.1)
    os.rmdir(tmp_path / "box")
    directory.close()
    thread.join(10)

    assert seen == [ContainerNotFound]


def test_make_takes_an_empty_directory_that_it_lost_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Deleted by another between its making and its lock, it is made again."""
    real = os.mkdir
    calls: list[str] = []

    def interfering(path: str, mode: int = 0o777, **more: int) -> None:
        real(path, mode, **more)
        calls.append(path)
        if len(calls) == 1:
            os.rmdir(path)

    monkeypatch.setattr(os, "mkdir", interfering)
    state.make(str(tmp_path), "box").close()

    assert len(calls) == 2


def test_make_does_not_take_what_another_made_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Deleted and made anew by another before we had the lock: it is theirs, and stays as it is."""
    real = os.mkdir

    def interfering(path: str, mode: int = 0o777, **more: int) -> None:
        real(path, mode, **more)
        os.rmdir(path)
        real(path, mode)
        Path(path, "state.json").write_text("{}", encoding="ascii")

    monkeypatch.setattr(os, "mkdir", interfering)
    with pytest.raises(ContainerExists):
        state.make(str(tmp_path), "box")

    assert (tmp_path / "box/state.json").read_text(encoding="ascii") == "{}"


@pytest.mark.parametrize("spoil", ["mode", "link", "file"])
def test_root_that_others_may_change_is_refused(tmp_path: Path, spoil: str) -> None:
    """Owner and mode of the root itself are looked at, not of what a link leads to."""
    root = tmp_path / "root"
    if spoil == "mode":
        root.mkdir()
        root.chmod(0o770)
    elif spoil == "link":
        (tmp_path / "other").mkdir()
        (tmp_path / "other").chmod(0o777)
        root.symlink_to("other")
    else:
        root.touch()
    with pytest.raises(OcirunError, match="state directory"):
        state.make(str(root), "box")


def test_default_root_of_each_user(monkeypatch: pytest.MonkeyPatch) -> None:
    """Root's is fixed; others follow XDG_RUNTIME_DIR if it is absolute."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/x")
    seen = [state.default_root()]
    monkeypatch.setenv("XDG_RUNTIME_DIR", "relative")
    seen.append(state.default_root())
    uid = os.geteuid()

    assert seen == (["/x/ocirun", f"/tmp/ocirun-{uid}"] if uid else ["/run/ocirun"] * 2)


def test_ids_are_listed_without_what_is_shared(tmp_path: Path) -> None:
    """Names with @ belong to all containers; a root that is not there has none."""
    for name in ("b", "a", "@work", "@ids"):
        (tmp_path / name).mkdir()

    assert state.ids(str(tmp_path)) == ["a", "b"]
    assert state.ids(str(tmp_path / "missing")) == []


def test_lock_is_the_kernels(tmp_path: Path) -> None:
    """It ends with the fd, so a killed process leaves none."""
    directory = state.make(str(tmp_path), "box")
    fd = os.open(tmp_path / "box", os.O_RDONLY)
    with pytest.raises(BlockingIOError):
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    directory.close()
    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(fd)
