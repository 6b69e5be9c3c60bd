"""The runtime as the verbs use it. Must not know: verbs.

A verb that makes a process does so from where no container can reach the host's interpreter: from here, with an usher
between our Python and the container's program, or where that is not enough from the stage, in another process that
begins the verb anew.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

    from pytest_ocirun.cli.report import Journal
    from pytest_ocirun.cli.settings import Settings
    from pytest_ocirun.oci.process import Process
    from pytest_ocirun.oci.runtime import Config
    from pytest_ocirun.runtime.cgroups import Manager
    from pytest_ocirun.runtime.container import Runtime
    from pytest_ocirun.runtime.record import Filter
    from pytest_ocirun.runtime.seccomp import Program
    from pytest_ocirun.runtime.spawn import Plan

SEPARATOR = "--"


def runtime_of(settings: Settings, journal: Journal) -> Runtime:
    """The runtime for the state root, for verbs that make no process."""
    return Footing(settings, journal).runtime


class Footing:
    """The runtime, and the place that it makes a process from.

    Args:
        settings: the global options.
        journal: told each step with ``--debug``, and warnings.
        change: changes the plan of a container.
        manager: makes cgroups, if not as usual.
    """

    def __init__(
        self,
        settings: Settings,
        journal: Journal,
        change: Callable[[Plan], Plan] | None = None,
        manager: Manager | None = None,
    ) -> None:
        from pytest_ocirun.cli.signals import keep_children, wait
        from pytest_ocirun.runtime.container import Runtime
        from pytest_ocirun.runtime.spawner import LocalSpawner

        keep_children()
        run_hooks = None
        if settings.outside >= 0:
            from pytest_ocirun.runtime import outside

            run_hooks = outside.runner(settings.outside, wait)
        debug = journal.debug if settings.debug else None
        self._settings = settings
        self._spawner = LocalSpawner(wait, settings.helper)
        self.runtime = Runtime(
            self._spawner,
            settings.root,
            manager=manager,
            debug=debug,
            run_hooks=run_hooks,
            warn=journal.warning,
            change=change,
        )

    def choose(
        self,
        config: Config,
        process: Process,
        program: Program | Filter | None,
        *,
        joins: bool = False,
        traced: bool = False,
        before_stage: Callable[[], None] | None = None,
    ) -> None:
        """Choose the place. If it is the stage and this process is not on it, this does not return.

        Args:
            config: the container's.
            process: what will run in it.
            program: its compiled filter.
            joins: whether the container exists already, and may be hostile.
            traced: as for ``usher_fit.suits``.
            before_stage: called if it is the stage.
        """
        if self._settings.staged:
            return
        from pytest_ocirun.runtime import usher, usher_fit

        if usher_fit.suits(config, process, program, joins=joins, traced=traced):
            self._spawner.usher = usher.open_memory()
        if self._spawner.usher is None:
            if before_stage is not None:
                before_stage()
            enter_stage(self._settings)

    def take(self) -> None:
        """Go there. Relative paths mean nothing after this."""
        from pytest_ocirun.runtime import stage, state

        state.ensure_root(self._settings.root)
        if self._spawner.usher is not None:
            stage.detach()
        stage.take_place(self._settings.root)


def enter_stage(settings: Settings, container: int | None = None) -> NoReturn:
    """Have the verb begun anew on the stage, by ``cli.staged``.

    Args:
        settings: the global options.
        container: as for ``stage.enter``.
    """
    from pytest_ocirun.runtime import stage

    if settings.helper is not None:
        settings.helper.end()
    argv = [*settings.as_words(), SEPARATOR, *settings.words]
    stage.enter("pytest_ocirun.cli.staged", *argv, container=container, subids=settings.subids)
    raise AssertionError("stage.enter does not return")
