"""``ocirun run``: create, start, wait, delete."""

from __future__ import annotations

from pytest_ocirun.cli import making, stdio
from pytest_ocirun.cli.options import Option, Verb
from pytest_ocirun.errors import ContainerNotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pytest_ocirun.cli.options import Given
    from pytest_ocirun.cli.readiness import Relay
    from pytest_ocirun.cli.report import Journal
    from pytest_ocirun.cli.settings import Settings
    from pytest_ocirun.runtime.container import Runtime

VERB = Verb(
    "run",
    "NEW-CONTAINER-ID",
    "create a container, start it, and delete it when it ends",
    *making.OPTIONS,
    stdio.DETACH,
    Option("keep", "do not delete the container when it ends"),
    Option("no-subreaper", "do not adopt orphans of the container; ocirun never does"),
    staged=True,
)
before_stage = making.before_stage


def run(given: Given, settings: Settings, journal: Journal) -> int:
    """Run a container.

    Returns:
        The exit status of its program, 128 + N for signal N; 0 with ``--detach``.
    """
    from pytest_ocirun.cli.foreground import attend
    from pytest_ocirun.cli.signals import Caught, Deferred

    detached = given.on("detach")
    made = making.Making(given, settings, journal, detached=detached)
    terminal = None
    if made.config.process.terminal and not detached:
        from pytest_ocirun.cli.terminal import Terminal

        terminal = Terminal.find()
    with Deferred():
        runtime, child = made.create()
        try:
            with Caught() as caught:
                if terminal is not None:
                    terminal.prepare(child)
                relay = _relay(settings, made.id)
                runtime.start(made.id)
                if detached:
                    if relay is not None:
                        relay.wait(child.pid)
                    return 0
                code = attend(child, caught, terminal, relay)
        except BaseException:
            making.discard(runtime, made.id, child)
            raise
        if not given.on("keep"):
            _delete(runtime, made.id)
    return code


def _relay(settings: Settings, container_id: str) -> Relay | None:
    if not settings.notify:
        return None
    from pytest_ocirun.cli.readiness import Relay

    return Relay(settings.root, container_id, settings.notify)


def _delete(runtime: Runtime, container_id: str) -> None:
    try:
        runtime.delete(container_id)
    except ContainerNotFound:
        pass  # somebody was quicker: delete --force
