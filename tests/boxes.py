"""Containers for tests: the engine on a busybox image, and the bare runtime on a root file system that may be hostile.

Import the fixtures by name into a conftest. Everything runs on the real kernel, as root or as a plain user.
"""

import itertools
import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import pytest

from pytest_ocirun.engine.container import Container
from pytest_ocirun.engine.engine import Engine
from pytest_ocirun.engine.idrange import FIRST, SIZE
from pytest_ocirun.engine.request import Limits, Request
from pytest_ocirun.engine.result import Exit
from pytest_ocirun.images.image import Image
from pytest_ocirun.oci.process import Process, User
from pytest_ocirun.oci.runtime import Config, IDMapping, Mount, Resources
from pytest_ocirun.runtime import defaults
from pytest_ocirun.runtime.child import Child
from pytest_ocirun.runtime.container import Runtime
from pytest_ocirun.runtime.root_plan import IDMAP, OVERLAY
from pytest_ocirun.runtime.spawner import ZygoteClient
from pytest_ocirun.runtime.stdio import Stdio
from pytest_ocirun.runtime.validate import validate
from tests.requires import lack

M = 1 << 20
PATH = "/bin:/usr/bin"
LIMITS = Limits(memory=256 * M, pids=100, cpus=None, disk=16 * M)

Launch = Callable[..., Container]


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """An engine with a store of its own; without limits where this user can have none."""
    require = "limits" if lack("cgroup") is None else "isolation"
    engine = Engine.open(store=tmp_path_factory.mktemp("store"), require=require)
    try:
        yield engine
    finally:
        engine.close()


@pytest.fixture(scope="module")
def image(engine: Engine, busybox_tarball: Path) -> Image:
    """Busybox as an image."""
    return engine.image(str(busybox_tarball))


@pytest.fixture
def launch(engine: Engine, image: Image) -> Iterator[Launch]:
    """Start containers of the busybox image; what a test leaves is deleted."""
    made: list[Container] = []

    def start(*args: str, **request: Any) -> Container:
        wanted: dict[str, Any] = {"image": image, "limits": LIMITS, "env": {"PATH": PATH}} | request
        made.append(engine.launch(Request(args=args, **wanted)))
        return made[-1]

    yield start
    for container in made:
        container.delete()


@pytest.fixture
def box(launch: Launch) -> Container:
    """A holder that waits for execs."""
    return launch()


def shell(box: Container, script: str, **options: Any) -> str:
    """What a script prints in the container; it must end well and say nothing on standard error."""
    result = box.exec(["sh", "-euc", script], **options)
    assert (result.exit_code, result.stderr) == (0, ""), f"{result.describe()}: {result.stdout}{result.stderr}"
    return result.stdout.strip()


@dataclass(frozen=True, slots=True)
class Ran:
    """What became of a container's process."""

    end: Exit
    out: str
    err: str


class Bare:
    """The runtime without an engine: any config, any root file system.

    Args:
        root: the state root.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.spawner = ZygoteClient(str(root))
        self.runtime = Runtime(self.spawner, str(root))
        self._numbers = itertools.count(1)

    def new_id(self) -> str:
        """An id that nobody else uses."""
        return f"bare-{os.getpid()}-{next(self._numbers)}"

    def create(
        self, config: Config, stdio: Stdio | None = None, *, name: str = "", holder: bool = False, start: bool = False
    ) -> Child:
        """Validate the config and create the container; /dev/null for stdio unless given."""
        validate(config)
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        try:
            return self.runtime.create(
                name or self.new_id(),
                str(self.root),
                config,
                stdio or Stdio(null, null, null),
                holder=holder,
                start=start,
                without_cgroup=lack("cgroup") is not None,
            )
        finally:
            os.close(null)

    @contextmanager
    def holder(self, config: Config) -> Iterator[str]:
        """The id of a started container that only waits for execs."""
        name = self.new_id()
        child = self.create(config, name=name, holder=True)
        try:
            self.runtime.start(name)
            yield name
        finally:
            self.end(name, child)

    def run(self, config: Config) -> Ran:
        """Create, start, wait, delete."""
        name = self.new_id()
        with _Output() as output:
            child = self.create(config, output.stdio, name=name)
            try:
                self.runtime.start(name)
                end = Exit.from_status(child.wait())
            finally:
                self.end(name, child)
            return Ran(end, *output.texts())

    def exec(self, name: str, *args: str, **process: Any) -> Ran:
        """Run one more process, confined as the container's own."""
        wanted: dict[str, Any] = {"cwd": "/", "user": User(uid=0, gid=0), "env": [f"PATH={PATH}"]}
        wanted |= {"no_new_privileges": True} | process
        with _Output() as output:
            child, _tree = self.runtime.exec(name, Process(args=list(args), **wanted), output.stdio)
            try:
                end = Exit.from_status(child.wait())
            finally:
                child.close()
            return Ran(end, *output.texts())

    def end(self, name: str, child: Child) -> None:
        """Kill and delete."""
        child.kill()
        child.wait()
        child.close()
        self.runtime.delete(name, force=True)

    def close(self) -> None:
        """End the zygote."""
        self.spawner.close()


class _Output:
    """Standard output and error as two files in memory, standard input as /dev/null."""

    def __enter__(self) -> Self:
        self._null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        self._files = [os.memfd_create(name, os.MFD_CLOEXEC) for name in ("out", "err")]
        self.stdio = Stdio(self._null, self._files[0], self._files[1])
        return self

    def __exit__(self, *_exception: object) -> None:
        for fd in (self._null, *self._files):
            os.close(fd)

    def texts(self) -> tuple[str, str]:
        out, err = (os.pread(fd, os.fstat(fd).st_size, 0).decode(errors="backslashreplace") for fd in self._files)
        return out, err


@pytest.fixture(scope="module")
def bare() -> Iterator[Bare]:
    """A runtime with a state root and a zygote of its own."""
    with tempfile.TemporaryDirectory(prefix="ocirun-state-", dir="/var/tmp") as root:
        bare = Bare(Path(root))
        try:
            yield bare
        finally:
            bare.close()
            bare.runtime._cgroups().prune()


@pytest.fixture
def rootfs(busybox_rootfs: Path, tmp_path: Path) -> Path:
    """A busybox root file system that the test may spoil."""
    target = tmp_path / "rootfs"
    subprocess.run(["cp", "-a", busybox_rootfs, target], check=True)
    return target


def mapping() -> IDMapping:
    """The ids that this user may give to a container."""
    if os.geteuid():
        return IDMapping(container_id=0, host_id=os.geteuid(), size=1)
    return IDMapping(container_id=0, host_id=FIRST, size=SIZE)


def confined(
    rootfs: Path,
    *args: str,
    overlay: bool = True,
    user_namespace: bool = True,
    mounts: list[Mount] | None = None,
    resources: Resources | None = None,
    annotations: Mapping[str, str] | None = None,
) -> Config:
    """The config of a container for code that is not trusted, with a writable root.

    Args:
        rootfs: its root file system.
        args: its program.
        overlay: over the root file system; otherwise that is written to itself.
        user_namespace: whether it has one of its own; only root can do without.
        mounts: on top of the usual ones.
        resources: its limits.
        annotations: more annotations.
    """
    config = defaults.spec()
    config.process.terminal = False
    config.process.args = list(args) or ["true"]
    config.process.env = [f"PATH={PATH}"]
    config.linux.resources = resources or Resources()
    own = mapping()
    defaults.confine(config, [own], [own])
    config.root.path, config.root.readonly = str(rootfs), False
    config.mounts = [mount for mount in config.mounts if mount.type != "cgroup"]
    if own.size == 1:
        next(mount for mount in config.mounts if mount.type == "devpts").options.remove("gid=5")
    config.mounts += mounts or []
    if overlay:
        config.annotations[OVERLAY] = f"size={16 * M},inodes=4096"
    if not user_namespace:
        config.linux.namespaces = [each for each in config.linux.namespaces if each.type != "user"]
        config.linux.uid_mappings = config.linux.gid_mappings = []
    elif own.size > 1:
        config.annotations[IDMAP] = "root"
    config.annotations |= annotations or {}
    return config
