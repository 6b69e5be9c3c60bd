"""The engine: many containers at once, containers ahead, requests as wholes."""

import os
import re
import shutil
import threading
from pathlib import Path

import pytest

from pytest_ocirun.engine.container import Container
from pytest_ocirun.engine.engine import Engine
from pytest_ocirun.engine.request import Bind, Request
from pytest_ocirun.errors import ConfigError, ImageError, KernelRefused, OcirunError
from pytest_ocirun.images.image import Image
from pytest_ocirun.linux import proc
from pytest_ocirun.runtime import state
from tests.boxes import LIMITS, PATH, Bare, Launch, shell
from tests.requires import lack, requires

pytestmark = [requires("userns", "overlay", "seccomp", "busybox"), pytest.mark.lane("v2")]


def test_ten_threads_launch_at_once(launch: Launch) -> None:
    """Each gets a container of its own, of its own id and with its own files."""
    boxes: list[Container] = []
    errors: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for turn in range(3):
                box = launch()
                boxes.append(box)
                shell(box, f"echo {number}-{turn} > /tmp/mine")
        except BaseException as error:  # noqa: BLE001 - seen below
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    seen = sorted(shell(box, "cat /tmp/*") for box in boxes)

    assert errors == []
    assert len({box.id for box in boxes}) == len({box.pid for box in boxes}) == 30
    assert seen == sorted(f"{number}-{turn}" for number in range(10) for turn in range(3))


def test_each_container_is_fresh(launch: Launch) -> None:
    """Nothing of an earlier container of the same kind is in a later one, begun ahead or not."""
    for turn in range(6):
        with launch() as box:
            left = shell(box, "ls -A /tmp /root /run; cat /canary 2>/dev/null || true; rm -r /var")
            shell(box, f"echo {turn} > /canary; echo {turn} > /tmp/x; echo x > /etc/passwd; hostname > /root/x")

        assert left.split() == ["/root:", "/run:", "/tmp:"]


@pytest.mark.parametrize("kind", ["binds", "overlays"])
def test_a_container_begun_ahead_sees_the_present(launch: Launch, tmp_path: Path, kind: str) -> None:
    """A directory that was replaced since the last launch shows its new content, not the old one's."""
    tmp_path.chmod(0o755)
    source = tmp_path / "source"
    for turn in range(6):
        if source.exists():
            shutil.rmtree(source)
        source.mkdir()
        (source / "turn").write_text(str(turn), encoding="ascii")
        place = "/mnt" if kind == "binds" else str(source)
        wanted = {"binds": (Bind(source=source, destination="/mnt"),)} if kind == "binds" else {"overlays": (source,)}
        with launch(**wanted) as box:
            assert shell(box, f"cat {place}/turn") == str(turn)


def test_a_file_bound_read_only_and_writable(launch: Launch, tmp_path: Path) -> None:
    """Binds are read-only unless asked otherwise; a writable one reaches the host."""
    file = tmp_path / "file"
    file.write_text("host", encoding="ascii")
    file.chmod(0o666)
    place = "/etc/a/deep/file"
    box = launch(binds=(Bind(source=file, destination=place),))
    result = box.exec(["sh", "-c", f"cat {place}; echo x > {place}"])
    assert (result.stdout, file.read_text(encoding="ascii")) == ("host", "host")
    assert "Read-only file system" in result.stderr
    box = launch(binds=(Bind(source=file, destination=place, readonly=False),))
    shell(box, f"echo guest > {place}")

    assert file.read_text(encoding="ascii") == "guest\n"


@requires("root", "idmap")
def test_an_idmapped_bind_shows_files_as_roots(launch: Launch, tmp_path: Path) -> None:
    """With idmap the caller's files are container root's; without it they are nobody's."""
    tmp_path.chmod(0o755)
    (tmp_path / "file").touch()
    shown = [
        shell(launch(binds=(Bind(source=tmp_path, destination="/mnt", idmap=idmap),)), "stat -c %u /mnt/file")
        for idmap in (True, False)
    ]

    assert shown == ["0", "65534"]


@pytest.mark.parametrize("name", ["a:b", "a,b", "a\\b", "a b", "é", "a\nb", "a\\:b"])
def test_a_tree_of_any_name_gets_its_overlay(launch: Launch, tmp_path: Path, name: str) -> None:
    """Characters that separate overlay options or layers are part of the name."""
    tmp_path.chmod(0o755)
    (tmp_path / "a").mkdir()
    tree = tmp_path / name
    tree.mkdir()
    (tree / "file").write_text("right", encoding="ascii")
    box = launch(overlays=(tree,))
    result = box.exec(["cat", f"{tree}/file"])

    assert result.stdout == "right", result.stderr
    assert box.exec(["sh", "-c", 'echo x > "$1/new"', "sh", str(tree)]).ok
    assert os.listdir(tree) == ["file"]


def test_the_tree_on_the_host_stays_as_it_is(launch: Launch, tmp_path: Path) -> None:
    """Writes, removals and renames below an overlay show inside and nowhere else."""
    tmp_path.chmod(0o755)
    tree = tmp_path / "tree"
    (tree / "folder").mkdir(parents=True)
    (tree / "file").write_text("host", encoding="ascii")
    (tree / "file").chmod(0o666)
    tree.chmod(0o777)
    box = launch(overlays=(tree,))
    shell(box, f"cd {tree}; echo guest > file; mkdir new; echo x > new/x; rmdir folder; ls -A")

    assert sorted(os.listdir(tree)) == ["file", "folder"]
    assert (tree / "file").read_text(encoding="ascii") == "host"


def test_wrong_requests_are_refused_whole(launch: Launch, engine: Engine, tmp_path: Path) -> None:
    """A request that cannot be met leaves no container, and the next one works."""
    before = state.ids(engine._root)
    for wrong in (
        {"binds": (Bind(source=tmp_path / "missing", destination="/mnt"),)},
        {"binds": (Bind(source=tmp_path, destination="/etc/passwd/x"),)},
        {"overlays": (tmp_path / "missing",)},
        {"args": ("missing",)},
        {"cwd": "relative"},
    ):
        args = wrong.pop("args", ())
        assert isinstance(args, tuple)
        with pytest.raises((KernelRefused, ConfigError)):
            launch(*args, **wrong)
    left = [
        name for name in state.ids(engine._root) if name not in before and name.startswith(f"pytest-{os.getpid()}-")
    ]

    assert left == []
    assert shell(launch(), "echo x") == "x"


def test_an_init_of_ones_own(launch: Launch) -> None:
    """With args the program is pid 1, and its end is the container's."""
    read, write = os.pipe()
    box = launch("sh", "-c", "echo $$ $0 $A; exit 5", "zero", env={"PATH": PATH, "A": "b"}, fds={1: write})
    os.close(write)
    with open(read, "rb") as file:
        said = file.read()

    assert box.wait(10).code == 5
    assert said == b"1 zero b\n"


def test_waiting_has_an_end(box: Container) -> None:
    """Wait with a timeout raises TimeoutError while the container runs."""
    with pytest.raises(TimeoutError, match="still runs after"):
        box.wait(0.1)

    assert box.poll() is None


def test_the_handle_is_a_context_manager(launch: Launch) -> None:
    """Leaving the block deletes, also after a failure in it; counters stay readable."""
    with pytest.raises(ZeroDivisionError), launch() as box:
        raise ZeroDivisionError

    assert box.counters().pids_limit_hits == 0
    assert (proc.stat(box.pid) or "X")[0] in "ZX"


def test_an_unknown_requirement() -> None:
    """A misspelt requirement is no weaker one."""
    with pytest.raises(ConfigError, match="expected one of limits, isolation"):
        Engine.open(require="isolated")


def test_images_are_opened_once(engine: Engine, image: Image, busybox_tarball: Path) -> None:
    """The same reference is the same object; what is none is an error."""
    assert engine.image(str(busybox_tarball)) is image
    with pytest.raises(ImageError):
        engine.image("/no/such/image.tar")


@requires("root")
def test_containers_ahead_are_the_builders_own_work(launch: Launch, engine: Engine) -> None:
    """They have ids of their own, are known to the command line, and their tests find what the first one's found."""
    look = "cat /proc/self/uid_map /proc/self/cgroup /proc/self/mountinfo | sed s,ocirun[^\\ ]*,,; env; ulimit -a"
    seen, worlds = set(), []
    for _turn in range(8):
        box = launch()
        maps = Path(f"/proc/{box.pid}/uid_map").read_text(encoding="ascii").split()[1]
        world = shell(box, look)
        worlds.append(without_numbers(world))
        shown = engine._runtime.state(box.id)
        seen.add((box.id, box.pid, maps))
        assert (shown["id"], shown["status"], shown["pid"]) == (box.id, "running", box.pid)

    assert all(len({each[index] for each in seen}) == 8 for index in range(3))
    assert set(worlds) == {worlds[0]}
    assert engine._templates


@requires("root")
def test_a_container_that_cannot_be_made_ahead(engine: Engine, busybox_tarball: Path, tmp_path: Path) -> None:
    """What the builder meets by itself is met again by the launch that needs the container, and told as ever."""
    copy = tmp_path / "copy"
    copy.mkdir()
    shutil.unpack_archive(busybox_tarball, copy, filter="tar")
    request = Request(image=engine.image(str(copy)), limits=LIMITS, env={"PATH": PATH})
    use(engine, request, times=4)
    rootfs = request.image.rootfs
    hidden = rootfs.with_name("hidden")
    rootfs.rename(hidden)
    try:
        with pytest.raises(OcirunError, match=re.escape(str(rootfs))):
            use(engine, request, times=10)
    finally:
        hidden.rename(rootfs)
    use(engine, request, times=1)


def use(engine: Engine, request: Request, *, times: int) -> None:
    """Launch, exec, delete."""
    for _turn in range(times):
        with engine.launch(request) as box:
            assert box.exec(["true"]).ok


def without_numbers(text: str) -> str:
    """A text with every number replaced: ids of mounts and of the host's."""
    return re.sub(r"[0-9]+", "N", text)


def test_closing_ends_everything(tmp_path: Path, busybox_tarball: Path) -> None:
    """After close nothing runs, nothing is left, and a second close does nothing."""
    require = "limits" if lack("cgroup") is None else "isolation"
    engine = Engine(store=tmp_path / "store", root=str(tmp_path / "state"), require=require)
    request = Request(image=engine.image(str(busybox_tarball)), limits=LIMITS, env={"PATH": PATH})
    boxes = [engine.launch(request) for _number in range(4)]
    for box in boxes:
        box.exec(["sh", "-c", "setsid sleep 60 & true"])
    pids = [box.pid for box in boxes]
    zygotes = [client._process.pid for client in engine._zygotes() if client._process]
    engine.close()
    engine.close()

    assert [pid for pid in [*pids, *zygotes] if os.path.exists(f"/proc/{pid}")] == []
    assert state.ids(str(tmp_path / "state")) == []
    with pytest.raises(OcirunError, match="engine was closed"):
        engine.launch(request)


def test_an_engine_opens_beside_containers_that_are_being_made(launch: Launch, bare: Bare, tmp_path: Path) -> None:
    """The sweep of killed runs does not wait for the lock of a container that another client holds ahead."""
    name = bare.new_id()
    with state.make(str(bare.root), name):
        opened: list[Engine] = []
        make = threading.Thread(
            target=lambda: opened.append(Engine(store=tmp_path, root=str(bare.root), require="isolation")), daemon=True
        )
        make.start()
        make.join(10)

        assert len(opened) == 1
        opened[0].close()
    bare.runtime.delete(name)


def test_two_engines_do_not_meet(engine: Engine, image: Image, tmp_path: Path, busybox_tarball: Path) -> None:
    """Two engines of one user have different ids, and closing one leaves the other's containers alone."""
    other = Engine.open(store=tmp_path / "store", require="isolation")
    request = Request(image=other.image(str(busybox_tarball)), limits=LIMITS, env={"PATH": PATH})
    mine = engine.launch(Request(image=image, limits=LIMITS, env={"PATH": PATH}))
    try:
        theirs = other.launch(request)
        maps = {shell(box, "cat /proc/self/uid_map") for box in (mine, theirs)}
    finally:
        other.close()

    assert len(maps) == (1 if os.geteuid() else 2)
    assert shell(mine, "echo x") == "x"
    mine.delete()
