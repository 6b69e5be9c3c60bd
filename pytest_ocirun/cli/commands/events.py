"""``ocirun events``: what a container uses, again and again, and whenever it runs out of memory."""

from __future__ import annotations

import os

from pytest_ocirun.cli.durations import seconds
from pytest_ocirun.cli.options import Option, Usage, Verb
from pytest_ocirun.errors import WrongStatus

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pytest_ocirun.cli.options import Given
    from pytest_ocirun.cli.report import Journal
    from pytest_ocirun.cli.settings import Settings

VERB = Verb(
    "events",
    "CONTAINER-ID",
    "print as JSON what a container uses, and that it ran out of memory, until it ends",
    Option("interval", "time between two statistics: seconds, or as 1m30s; by default 5s", value="TIME"),
    Option("stats", "print the statistics once, and end"),
)


def run(given: Given, settings: Settings, _journal: Journal) -> int:
    """Print a line for each event; returns when the container has ended."""
    from pytest_ocirun.runtime import init, state

    container_id = given.arguments[0]
    interval = seconds(given.text("interval", "5s"), "--interval")
    if not interval:
        raise Usage("--interval: must be longer than 0")
    with state.look(settings.root, container_id) as directory:
        document = directory.read()
        status = directory.status(document)
    pidfd = init.open_pidfd((document["pid"], document["start_time"])) if status in state.ALIVE else None
    if pidfd is None:
        raise WrongStatus(f"watch container {container_id}: container not running: it is {status}")
    try:
        if given.on("stats"):
            _print_stats(container_id, document)
        else:
            _watch(container_id, document, pidfd, interval)
    finally:
        os.close(pidfd)
    return 0


def _watch(container_id: str, document: dict[str, Any], pidfd: int, interval: float) -> None:
    import select
    import time

    from pytest_ocirun.runtime.cgroups.oom import OomWatch

    with OomWatch(document["cgroups"]) as watch:
        poller = select.poll()
        poller.register(pidfd, select.POLLIN)
        watch.register(poller)
        due = time.monotonic() + interval
        while True:
            ready = dict(poller.poll(max(0.0, due - time.monotonic()) * 1000))
            for _time in range(watch.take()):
                _print({"type": "oom", "id": container_id})
            if pidfd in ready:
                return
            if time.monotonic() >= due:
                _print_stats(container_id, document)
                due = max(due + interval, time.monotonic())


def _print_stats(container_id: str, document: dict[str, Any]) -> None:
    from pytest_ocirun.runtime.cgroups import stats

    data = stats.read(document["cgroups"], document["pid"])
    _print({"type": "stats", "id": container_id, "data": data})


def _print(event: dict[str, Any]) -> None:
    """At once: who reads them waits for them."""
    from pytest_ocirun.oci.json_text import dumps

    print(dumps(event), flush=True)
