"""The pytest plugin of the worker: enumerates files or collects one, then runs items as the host asks.

It takes each phase's report from the call that made it, so no hook of the suspect tree is asked for results. What
goes over the wire is shaped in ``nodes`` and ``reports``.
"""

from __future__ import annotations

import linecache

import pytest
from _pytest.runner import call_and_report

from pytest_ocirun.agent import nodes, output, reports, wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, Iterator

_NOT_HERE = (
    "ocirun: this test runs inside a container, where ocirun_container is not available yet; "
    "run it on the host (--ocirun-run host)"
)


class HostGone(BaseException):
    """The host closed the wire: there is nobody left to run for."""


class _StopAtFiles:
    """Lets pytest walk the directories, and keeps it from looking into a file."""

    @pytest.hookimpl(tryfirst=True)
    def pytest_make_collect_report(self, collector: pytest.Collector) -> pytest.CollectReport | None:
        if nodes.is_file(collector):
            return pytest.CollectReport(collector.nodeid, "passed", None, [])
        return None


class Guest:
    """Collects on order, then waits for the host in place of pytest's own loop over the items."""

    def __init__(self, channel: wire.Channel, order: dict[str, Any]) -> None:
        self.answered = False
        self.internal_error = ""
        self.on_configured: Callable[[], None] = lambda: None
        self._channel = channel
        self._enumerating: bool = order["enumerate"]
        self._file: str | None = order["file"]
        self._inis: list[str] = order["inis"]
        self._markers: list[str] = order["markers"]
        self._limit: int = order["limit"]
        self._items: list[pytest.Item] = []
        self._collected: list[Any] = []
        self._deselected: list[pytest.Item] = []
        self._usage: list[str] = []
        self._running: int | None = None

    # configuration

    def pytest_addoption(self, parser: pytest.Parser) -> None:
        """Know the host's ini keys, or pytest would warn of them."""
        for name in self._inis:
            parser.addini(name, "read by the host", default=None)

    @pytest.hookimpl(tryfirst=True)
    def pytest_configure(self, config: pytest.Config) -> None:
        """Bound captured output; from here on pytest reports by hooks, not on standard error."""
        self.on_configured()
        for line in self._markers:
            config.addinivalue_line("markers", line)
        output.bound(config.pluginmanager.getplugin("capturemanager"), self._limit)
        if self._enumerating:
            config.pluginmanager.register(_StopAtFiles())

    def pytest_internalerror(self, excrepr: object) -> None:
        """Keep what went wrong for the host."""
        self.internal_error = str(excrepr)

    # collection

    @pytest.hookimpl(hookwrapper=True)
    def pytest_collection(self) -> Iterator[None]:
        """Answer the host even if an argument named nothing: the rest was collected."""
        outcome: Any = yield
        error = outcome.excinfo[1] if outcome.excinfo else None
        if isinstance(error, pytest.UsageError) and self._collected:
            self._usage = [str(argument) for argument in error.args]
            outcome.force_result(None)

    @pytest.hookimpl(hookwrapper=True)
    def pytest_make_collect_report(self, collector: pytest.Collector) -> Iterator[None]:
        """Remember every collector and its report."""
        outcome: Any = yield
        if outcome.excinfo is None:
            self._collected.append((collector, outcome.get_result()))

    @pytest.hookimpl(hookwrapper=True, trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> Iterator[None]:
        """Drop what a package brought along from its other files."""
        if self._file is not None:
            items[:] = [item for item in items if nodes.file_path(item) == self._file]
        yield

    def pytest_deselected(self, items: list[pytest.Item]) -> None:
        """Remember what the tree's own hooks took out."""
        self._deselected.extend(items)

    # running

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Answer what was collected, then run what the host names until it has had enough."""
        self._items = list(session.items)
        found, root = nodes.describe(session, self._items, self._deselected, self._collected, self._file)
        self.answered = True
        self._send({"type": "collected", "nodes": found, "session": root, "usage": self._usage})
        while True:
            order = self._receive()
            if order["type"] != "run":
                return True
            self._run(order["index"], order["next"])

    def _run(self, index: int, following: int | None) -> None:
        item = self._items[index]
        self._running = index
        try:
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=self._item(following))
        except HostGone:
            raise
        except BaseException as error:  # noqa: BLE001 - pytest.exit() and KeyboardInterrupt stop nobody else's run
            text = f"{type(error).__name__}: {error}"
            self._send({"type": "stopped", "index": index, "text": text[: self._limit]})
        self._running = None
        self._send({"type": "done", "index": index})

    def pytest_runtest_protocol(self, item: pytest.Item) -> bool | None:
        """Pytest's own protocol, but for one thing: what runs next is asked for when it matters, at teardown."""
        if self._running is None:
            return None
        item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
        has_request = hasattr(item, "_request")
        if has_request and not item._request:  # type: ignore[attr-defined]  # noqa: SLF001 - pytest's own re-run convention
            item._initrequest()  # type: ignore[attr-defined]  # noqa: SLF001
        try:
            setup = call_and_report(item, "setup")
            self._report(setup)
            if setup.passed:
                self._report(call_and_report(item, "call"))
            order = self._receive()
            self._report(call_and_report(item, "teardown", nextitem=self._item(order["next"])))
        finally:
            if has_request:
                item._request = False  # type: ignore[attr-defined]  # noqa: SLF001
                item.funcargs = None  # type: ignore[attr-defined]
        item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
        return True

    def _item(self, index: int | None) -> pytest.Item | None:
        return None if index is None else self._items[index]

    def _report(self, report: pytest.TestReport) -> None:
        hook = self._items[self._running or 0].config.hook
        shaped = reports.shape(hook.pytest_report_to_serializable, report, self._items[0].config, self._limit)
        self._send_bounded({"type": "report", "index": self._running, "report": shaped}, report)

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Pass subtests on: they are the only reports that no phase returns."""
        if self._running is not None and type(report).__name__.lower() == "subtestreport":
            config = self._items[0].config
            shaped = reports.shape_subtest(config.hook.pytest_report_to_serializable, report, config, self._limit)
            self._send_bounded({"type": "subtest", "index": self._running, "report": shaped}, report)

    def pytest_warning_recorded(self, warning_message: Any, when: str) -> None:
        """Pass a warning on, with its source line: the host opens no file that is named here."""
        line = warning_message.line
        if line is None:
            line = linecache.getline(warning_message.filename, warning_message.lineno)
        self._send(
            {
                "type": "warning",
                "when": when,
                "index": self._running if when == "runtest" else None,
                "category": warning_message.category.__name__[:200],
                "message": str(warning_message.message)[: self._limit],
                "filename": str(warning_message.filename)[:4096],
                "lineno": int(warning_message.lineno),
                "line": line.strip()[:4096],
            }
        )

    # the wire

    def _send(self, message: dict[str, Any]) -> None:
        self._channel.send(message)

    def _send_bounded(self, message: dict[str, Any], report: Any) -> None:
        """Send a report; one too large for a frame loses its middle, never its outcome."""
        limit = self._limit
        while True:
            try:
                self._send(message)
            except wire.WireError:
                limit //= 4
                reports.shrink(message["report"], str(report.longrepr), limit)
            else:
                return

    def _receive(self) -> dict[str, Any]:
        order = self._channel.receive()
        if order is None:
            raise HostGone
        return order

    # fixtures that only the host has

    @pytest.fixture
    def ocirun_image(self) -> None:
        """Not available inside a container yet."""

    @pytest.fixture
    def ocirun_container(self) -> None:
        """Not available inside a container yet."""
        pytest.fail(_NOT_HERE, pytrace=False)

    @pytest.fixture
    def ocirun_container_factory(self) -> None:
        """Not available inside a container yet."""
        pytest.fail(_NOT_HERE, pytrace=False)
