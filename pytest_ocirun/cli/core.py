"""The runtime as the verbs use it. Must not know: verbs."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_ocirun.cli.report import Journal
    from pytest_ocirun.cli.settings import Settings
    from pytest_ocirun.runtime.container import Runtime
    from pytest_ocirun.runtime.spawn import Plan


def runtime_of(settings: Settings, journal: Journal, change: Callable[[Plan], Plan] | None = None) -> Runtime:
    """The runtime for the state root; it spawns only in a process on the stage that has taken its place.

    Args:
        settings: the global options.
        journal: told each step with ``--debug``, and warnings.
        change: changes the plan of a container.
    """
    from pytest_ocirun.cli.signals import wait
    from pytest_ocirun.runtime.container import Runtime
    from pytest_ocirun.runtime.spawner import LocalSpawner

    run_hooks = None
    if settings.outside >= 0:
        from pytest_ocirun.runtime import outside

        run_hooks = outside.runner(settings.outside, wait)
    debug = journal.debug if settings.debug else None
    return Runtime(
        LocalSpawner(wait), settings.root, debug=debug, run_hooks=run_hooks, warn=journal.warning, change=change
    )


def take_place(settings: Settings) -> None:
    """Go where containers are made from. Relative paths mean nothing after this."""
    from pytest_ocirun.runtime import stage, state

    state.ensure_root(settings.root)
    stage.take_place(settings.root)
