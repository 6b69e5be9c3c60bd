"""Create, exec /bin/true, delete: a container as the fixture makes it, its peers, and the bare kernel."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from itertools import count
from pathlib import Path

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
    image = engine.image(str(tarball))
    request = Request(image=image, limits=LIMITS, env={"PATH": PATH, "HOME": "/root"})
    numbers = count(1)

    def fixture(wanted: Request = request) -> Times:
        watch = Stopwatch()
        container = engine.launch(wanted)
        watch.lap("launch")
        result = container.exec(TRUE)
        watch.lap("exec")
        container.delete()
        watch.lap("delete")
        assert result.ok, result
        return watch.stop()

    def run() -> Times:
        watch = Stopwatch()
        container = engine.launch(replace(request, args=tuple(TRUE)))
        watch.lap("launch")
        ended = container.wait(30)
        watch.lap("wait")
        container.delete()
        watch.lap("delete")
        assert ended.code == 0, ended
        return watch.stop()

    yield Row("fixture: create + exec + delete", fixture)
    # The engine begins ahead what it was asked for before; no request equals the last here.
    yield Row("fixture, nothing ahead", lambda: fixture(replace(request, hostname=f"bench{next(numbers)}")))
    yield Row("engine: /bin/true as pid 1 + delete", run)


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
