"""/bin/true in a container that runs already: the fixture's exec beside nsenter and the bare spawn."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from pytest_ocirun.engine.engine import Engine
from pytest_ocirun.engine.request import Request
from pytest_ocirun.runtime.defaults import PATH
from tests import images
from tests.benchmarks import peers
from tests.benchmarks.launcher import Launcher
from tests.benchmarks.lifecycle import LIMITS, TRUE
from tests.benchmarks.measure import TOTAL, Row, Stopwatch, Times


@contextmanager
def rows(scratch: Path) -> Iterator[list[Row]]:
    """The rows; the first is ours, the second nsenter's.

    Args:
        scratch: an empty directory.
    """
    rootfs = images.busybox(scratch / "rootfs")
    tarball = images.pack(rootfs, scratch / "busybox.tar")
    with ExitStack() as stack:
        launcher = stack.enter_context(Launcher())
        engine = Engine.open(store=scratch / "store")
        stack.callback(engine.close)
        request = Request(image=engine.image(str(tarball)), limits=LIMITS, env={"PATH": PATH, "HOME": "/root"})
        container = stack.enter_context(engine.launch(request))

        def own() -> Times:
            watch = Stopwatch()
            result = container.exec(TRUE)
            watch.lap("exec")
            assert result.ok, result
            return watch.stop()

        enter = [peers.program("nsenter") or "nsenter", "-t", str(container.pid), "-a", "--root", "--wd=/", *TRUE]
        program = [str(rootfs / "bin/busybox"), "true"]
        yield [
            Row("fixture: exec", own),
            Row("nsenter", lambda: {TOTAL: launcher.run(enter)}),
            Row("bare posix_spawn", lambda: {TOTAL: launcher.run(program)}),
        ]
