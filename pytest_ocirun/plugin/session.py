"""Inside mode: what the host's pytest session does differently when its tests run in containers.

It owns the settings, the engine and the crew of guests, and connects pytest's hooks to them. The entry module calls
it for the hooks whose order among plugins matters; the rest are registered here.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_ocirun.errors import OcirunError
from pytest_ocirun.plugin import options, settings, tree, values
from pytest_ocirun.plugin.collection import Collection
from pytest_ocirun.plugin.guest import Launcher
from pytest_ocirun.plugin.nodes import Collected, GuestItem
from pytest_ocirun.plugin.recorded import Recorder
from pytest_ocirun.plugin.runs import Crew, Run

if TYPE_CHECKING:
    from collections.abc import Generator

    from pytest_ocirun.engine.engine import Engine

_AGENT = "/.ocirun"
_BOOT = f"import sys; sys.path[0] = {_AGENT!r}; from pytest_ocirun.agent.__main__ import main; sys.exit(main())"
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# What changes how pytest itself reports, and tells nothing about this host.
_PASSED_ON = ("CI", "BUILD_NUMBER", "PYTEST_DISABLE_PLUGIN_AUTOLOAD")
_ALIVE = 8
_TEXT_CAP = 16 * 1024 * 1024


class Inside:
    """The session's containers and everything that leads to them.

    Args:
        early_config: pytest's configuration before any conftest was looked for.
    """

    def __init__(self, early_config: pytest.Config) -> None:
        self._noconftest: bool = early_config.known_args_namespace.noconftest
        self._tree = self._find_tree(early_config, early_config.known_args_namespace.file_or_dir)
        self._paths: list[str] = []
        self._settings: settings.Settings | None = None
        self._engine: Engine | None = None
        self._crew: Crew | None = None

    def _find_tree(self, config: pytest.Config, arguments: list[str]) -> tuple[str, ...]:
        start = str(config.invocation_params.dir)
        try:
            return tree.directories(str(config.rootpath), start, arguments or [start])
        except OcirunError as error:
            raise pytest.UsageError(str(error)) from error

    def shut_out(self, early_config: pytest.Config) -> None:
        """Keep conftest files and the tree's import paths out of this process."""
        early_config.known_args_namespace.noconftest = True
        self._paths += [path for path in tree.take_off_path(self._tree) if path not in self._paths]

    def configure(self, config: pytest.Config) -> None:
        """Join the session's other plugins; ini keys may have brought import paths back meanwhile."""
        self.shut_out(config)
        config.pluginmanager.register(self, "ocirun-inside")

    # the session

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionstart(self, session: pytest.Session) -> None:
        """Open the engine and the image: what cannot work should fail before anything is printed."""
        config = session.config
        try:
            self._settings = settings.resolve(config)
            options.refuse(config)
            if not config.pluginmanager.hasplugin("dsession"):
                self._crew = self._open(config, self._settings)
        except OcirunError as error:
            raise pytest.UsageError(str(error)) from error

    def _open(self, config: pytest.Config, chosen: settings.Settings) -> Crew:
        from pytest_ocirun.engine.engine import Engine

        self._engine = engine = Engine.open(store=chosen.store, require=chosen.require)
        image = engine.image(chosen.box.image or "")
        python = engine.interpreter(image)
        limits = {"memory": chosen.box.memory, "pids": chosen.box.pids, "output": chosen.output}
        make = _RequestMaker(image, python, chosen, self._tree, str(config.invocation_params.dir))
        argv = options.guest_arguments(config, noconftest=self._noconftest, extra=chosen.args)
        config.hook.pytest_ocirun_guest_arguments(config=config, args=argv)
        from pytest_ocirun.plugin.entry import SETTINGS

        return Crew(
            Launcher(engine.launch, make.request, limits),
            Recorder(config),
            config,
            timeout=chosen.timeout,
            order={
                "argv": argv,
                "paths": self._paths,
                "markers": config.getini("markers"),
                "inis": [f"ocirun_{name}" for name, *_ in SETTINGS],
                "limit": min(chosen.output, _TEXT_CAP),
            },
            cap=_ALIVE,
        )

    def pytest_report_header(self, config: pytest.Config) -> list[str]:
        """Say where the tests run, how well they are contained, and what of the tree is trusted here."""
        chosen = self._settings
        if chosen is None:
            return []
        box = chosen.box
        limits = f"memory {values.human(box.memory)}, disk {values.human(box.disk)}, {box.pids} processes"
        lines = [
            f"ocirun: tests run inside containers of {box.image}, one per file; {limits}, {chosen.timeout:g} s per test"
        ]
        if self._engine is not None:
            lines += [f"ocirun: {line}" for line in self._engine.describe()]
        if config.inipath is not None:
            lines.append(f"ocirun: trusts {config.inipath}, which this pytest has read")
        imported = tree.imported_from(self._tree)
        if imported:
            lines.append(f"ocirun: this process had imported {', '.join(imported[:5])} from the tree before the plugin")
        return lines

    def collect(self, session: pytest.Session) -> bool | None:
        """Collect inside; None leaves it to others (xdist's controller collects nothing)."""
        if self._crew is None:
            return None
        collection = Collection(session, self._crew, ahead=max(2, os.cpu_count() or 2))
        try:
            collection.perform()
        except OcirunError as error:
            raise pytest.UsageError(str(error)) from error
        self._settle(session, list(collection.runs.values()))
        return True

    def _settle(self, session: pytest.Session, runs: list[Run]) -> None:
        """Keep the guests of files that will run; tell each run which files come after it."""
        order: list[Run] = []
        todo: dict[Run, set[int]] = {}
        for item in session.items:
            if isinstance(item, GuestItem):
                if item.run not in todo:
                    order.append(item.run)
                todo.setdefault(item.run, set()).add(item.index)
        for run in runs:
            run.todo = todo.get(run, set())
            if not run.todo or session.config.option.collectonly:
                run.drop()
        for place, run in enumerate(order):
            run.ahead = order[place + 1 : place + 3]

    @pytest.hookimpl(tryfirst=True)
    def pytest_make_collect_report(self, collector: pytest.Collector) -> None:
        """Nothing else may be collected here: to collect is to import."""
        if not isinstance(collector, Collected):
            raise pytest.UsageError(
                f"ocirun: refused to collect {collector.nodeid or 'the session'} on this host: "
                "the tests run inside containers, and so does their collection"
            )

    # running

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_teardown(
        self, item: pytest.Item, nextitem: pytest.Item | None
    ) -> Generator[None, object, object]:
        """Tear down inside first: the host's own tear-down may let the container go."""
        failure: BaseException | None = None
        if isinstance(item, GuestItem):
            try:
                item.run.teardown(item, nextitem)
            except (Exception, pytest.skip.Exception) as error:  # noqa: BLE001 - raised below, with the host's stack in order
                failure = error
        result = yield
        if failure is not None:
            raise failure
        return result

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_makereport(self, item: pytest.Item, call: pytest.CallInfo[None]) -> pytest.TestReport | None:
        """Replay the guest's report of this phase."""
        return item.run.take(item, call.when) if isinstance(item, GuestItem) else None

    @pytest.hookimpl(optionalhook=True, tryfirst=True)
    def pytest_timeout_set_timer(self, item: pytest.Item) -> bool | None:
        """Set none: pytest-timeout acts inside, where the test runs; here it would only cut off our wait for it."""
        return True if isinstance(item, GuestItem) else None

    def close(self) -> None:
        """End every container, then the engine."""
        crew, self._crew = self._crew, None
        engine, self._engine = self._engine, None
        try:
            if crew is not None:
                crew.close()
        finally:
            if engine is not None:
                engine.close()


class _RequestMaker:
    """Makes the engine's requests for guests; they differ in their descriptors only."""

    def __init__(
        self, image: Any, python: str, chosen: settings.Settings, directories: tuple[str, ...], start: str
    ) -> None:
        self._image = image
        self._python = python
        self._chosen = chosen
        self._tree = directories
        self._start = start

    def request(self, fds: dict[int, int]) -> Any:
        """Return the request for one guest.

        Args:
            fds: the guest's descriptors, by number, and ours behind them.
        """
        from pytest_ocirun.engine.request import Bind, Limits, Request

        box = self._chosen.box
        package = Path(__file__).resolve().parent.parent
        binds = [
            Bind(source=package / name, destination=f"{_AGENT}/pytest_ocirun/{name}", idmap=True)
            for name in ("__init__.py", "agent")
        ]
        binds += [
            Bind(source=Path(one.source), destination=one.destination, readonly=one.readonly, idmap=True)
            for one in box.mounts
        ]
        writable = self._chosen.tree == "overlay"
        if not writable:
            binds += [Bind(source=Path(one), destination=one, idmap=True) for one in self._tree]
        return Request(
            image=self._image,
            args=(self._python, "-c", _BOOT),
            env=self._environment(),
            cwd=self._start,
            limits=Limits(memory=box.memory, pids=box.pids, cpus=box.cpus, disk=box.disk),
            overlays=tuple(Path(one) for one in self._tree) if writable else (),
            binds=tuple(binds),
            writable_root=False,
            fds=fds,
        )

    def _environment(self) -> dict[str, str]:
        own = f"{os.path.dirname(sys.executable)}:" if self._chosen.box.image == "host" else ""
        environment = {"PATH": own + _PATH, "HOME": "/tmp", "LANG": "C.UTF-8", "PYTHONDONTWRITEBYTECODE": "1"}
        environment.update({name: os.environ[name] for name in _PASSED_ON if name in os.environ})
        environment.update(self._chosen.box.env)
        return environment
