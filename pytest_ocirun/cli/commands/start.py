"""``ocirun start``: run the program of a created container."""

from __future__ import annotations

import os

from pytest_ocirun.cli.core import runtime_of
from pytest_ocirun.cli.options import Verb

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pytest_ocirun.cli.options import Given
    from pytest_ocirun.cli.report import Journal
    from pytest_ocirun.cli.settings import Settings

VERB = Verb("start", "CONTAINER-ID", "run the program of a created container")


def run(given: Given, settings: Settings, journal: Journal) -> int:
    """Start a container; returns when its program runs, or with NOTIFY_SOCKET when it is ready."""
    container_id = given.arguments[0]
    runtime = runtime_of(settings, journal)
    if settings.notify and os.path.isdir(f"{settings.root}/{container_id}/notify"):
        from pytest_ocirun.cli.readiness import Relay

        with Relay(settings.root, container_id, settings.notify) as relay:
            runtime.start(container_id)
            relay.wait(runtime.state(container_id)["pid"])
    else:
        runtime.start(container_id)
    return 0
