"""Create, exec /bin/true, delete: a container as the fixture makes it, its peers, and the bare kernel."""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path
from typing import Any

from pytest_ocirun.engine.engine import Engine
from pytest_ocirun.engine.request import Limits, Request
from pytest_ocirun.linux import sched
from pytest_ocirun.runtime.defaults import NAMESPACES, PATH
from tests import images
from tests.benchmarks import peers
from tests.benchmarks.launcher import Launcher
from tests.benchmarks.measure import TOTAL, Row, Stopwatch, Times

LIMITS = Limits(memory=1 << 30, pids=512, cpus=None, disk=512 << 20)
"""What the fixture sets if nobody says otherwise."""

TRUE = ["/bin/true"]


@contextmanager
def rows(scratch: Path) -> Iterator[list[Row]]:
    """The rows; the first is ours, the second runc's as it comes.

    Args:
        scratch: an empty directory.
    """
    rootfs = images.busybox(scratch / "rootfs")
    tarball = images.pack(rootfs, scratch / "busybox.tar")
    with ExitStack() as stack:
        launcher = stack.enter_context(Launcher())
        yield [
            *_own(stack, scratch, tarball),
            *_oci(launcher, scratch, rootfs, "runc"),
            *_crun(stack, scratch, rootfs),
            *_bubblewrap(launcher, rootfs),
            *_bare(launcher, rootfs),
        ]


def _own(stack: ExitStack, scratch: Path, tarball: Path) -> Iterator[Row]:
    engine = Engine.open(store=scratch / "store")
    stack.callback(engine.close)
    runtime: Any = engine._runtime
    create, start = Span(runtime.create), Span(runtime.start)
    runtime.create, runtime.start = create, start
    image = engine.image(str(tarball))
    request = Request(image=image, limits=LIMITS, env={"PATH": PATH, "HOME": "/root"})

    def fixture() -> Times:
        watch = Stopwatch()
        container = engine.launch(request)
        watch.lap("launch")
        result = container.exec(TRUE)
        watch.lap("exec")
        container.delete()
        watch.lap("delete")
        assert result.ok, result
        return {"create": create.took, "start": start.took, **watch.stop()}

    job = Request(image=image, limits=LIMITS, env={"PATH": PATH, "HOME": "/root"}, args=tuple(TRUE))

    def run() -> Times:
        watch = Stopwatch()
        container = engine.launch(job)
        watch.lap("launch")
        ended = container.wait(30)
        watch.lap("wait")
        container.delete()
        watch.lap("delete")
        assert ended.code == 0, ended
        return {"create": create.took, "start": start.took, **watch.stop()}

    yield Row("fixture: create + exec + delete", fixture)
    yield Row("engine: /bin/true as pid 1 + delete", run)


class Span:
    """A function that remembers how long its last call took."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self.took = 0.0

    def __call__(self, *args: Any, **options: Any) -> Any:
        """Call the function."""
        watch = Stopwatch()
        try:
            return self._function(*args, **options)
        finally:
            watch.lap(TOTAL)
            self.took = watch.stop()[TOTAL]


def _oci(launcher: Launcher, scratch: Path, rootfs: Path, name: str) -> Iterator[Row]:
    path = peers.program(name)
    if path is None:
        return
    numbers = count(1)
    for kind in ("spec", "confined"):
        bundle = scratch / f"{name}-{kind}"
        if kind == "spec":
            peers.spec_bundle(bundle, rootfs, path, TRUE)
        else:
            peers.confined_bundle(bundle, rootfs, path, TRUE, LIMITS)
        command = [path, "--root", str(scratch / f"{name}-state"), "run", "--bundle", str(bundle)]

        def run(command: list[str] = command) -> Times:
            return {TOTAL: launcher.run([*command, f"bench-{os.getpid()}-{name}-{next(numbers)}"])}

        yield Row(f"{name} run" if kind == "spec" else f"{name} run, confined alike", run)


def _crun(stack: ExitStack, scratch: Path, rootfs: Path) -> Iterator[Row]:
    launcher = stack.enter_context(Launcher(without=peers.hidden_from_crun()))
    yield from _oci(launcher, scratch, rootfs, "crun")


def _bubblewrap(launcher: Launcher, rootfs: Path) -> Iterator[Row]:
    path = peers.program("bwrap")
    if path is not None:
        command = peers.bubblewrap(path, rootfs, TRUE)
        yield Row("bwrap --unshare-all", lambda: {TOTAL: launcher.run(command)})


def _bare(launcher: Launcher, rootfs: Path) -> Iterator[Row]:
    flags = sum(sched.NAMESPACES[name] for name in (*NAMESPACES, "user"))
    program = [str(rootfs / "bin/busybox"), "true"]
    yield Row("bare clone3, the same namespaces", lambda: {TOTAL: launcher.clone(flags, program)})
    yield Row("bare posix_spawn, no namespace", lambda: {TOTAL: launcher.run(program)})
