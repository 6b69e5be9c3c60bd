"""One test file's run: which guest serves it, what it collected, and one test at a time through its phases.

The host drives: a message is believed only as the answer to what was just asked. Every phase ends in exactly one
report, kept here until pytest asks for it; where the guest has none to give, it tells how the guest died.
"""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING, Any

import pytest

from pytest_ocirun.errors import OcirunError
from pytest_ocirun.plugin import reports
from pytest_ocirun.plugin.guest import GuestDied

if TYPE_CHECKING:
    from pytest_ocirun.plugin.guest import Guest, Launcher
    from pytest_ocirun.plugin.nodes import GuestItem
    from pytest_ocirun.plugin.recorded import Recorder

_FAREWELL_SECONDS = 5.0


class GuestFailure(Exception):
    """Stands on the host for an exception that was raised inside; its report has been made already."""


class Broken(Exception):
    """The worker could not do its work at all: it has no pytest, or pytest refused its arguments.

    Args:
        reason: "import", "usage" or "crash".
        text: what it said about that.
    """

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason
        self.text = text


class Crew:
    """Every guest of this session: started ahead, at work, and saying farewell.

    Args:
        launcher: starts guests.
        recorder: takes the warnings that guests send at any time.
        config: for the hooks.
        timeout: seconds that a guest may take to collect, and for each test.
        order: the parts of a collect message that are the same for every guest.
        cap: how many guests may live beside the one at work.
    """

    def __init__(
        self,
        launcher: Launcher,
        recorder: Recorder,
        config: pytest.Config,
        *,
        timeout: float,
        order: dict[str, Any],
        cap: int,
    ) -> None:
        self.config = config
        self.recorder = recorder
        self.timeout = timeout
        self.cap = cap
        self._launcher = launcher
        self._order = order
        self._spare: deque[Guest] = deque()
        self._at_work: list[Guest] = []
        self._leaving: list[tuple[Guest, float]] = []

    @property
    def living(self) -> int:
        """How many guests there are that serve a file, or are about to."""
        return len(self._spare) + len(self._at_work)

    def start_ahead(self, count: int) -> None:
        """Have *count* guests boot while the host does something else."""
        while len(self._spare) < count:
            self._spare.append(self._launcher.start())

    def put_to_work(self, arguments: list[str], file: str | None) -> Guest:
        """Tell a guest what to collect and return it.

        Args:
            arguments: what a command line would name.
            file: the only file whose nodes count, or None to list the files.
        """
        guest = self._spare.popleft() if self._spare else self._launcher.start()
        self._at_work.append(guest)
        argv = [*self._order["argv"], *arguments]
        guest.send({**self._order, "type": "collect", "argv": argv, "file": file, "enumerate": file is None})
        return guest

    def collected(self, guest: Guest, deadline: float) -> dict[str, Any]:
        """Return what a guest collected.

        Raises:
            GuestDied: it did not live to answer, or the answer was none.
            Broken: it answered that it cannot.
        """
        expected = "ready"
        while True:
            message = self.next(
                guest, deadline, "", f"it was still collecting after {self.timeout:g} s (--ocirun-timeout)"
            )
            if message["type"] == "broken":
                raise Broken(message["reason"], message["text"])
            if message["type"] != expected:
                raise guest.breach(f"{message['type']} where {expected} was due")
            if expected == "collected":
                return message
            expected = "collected"

    def next(self, guest: Guest, deadline: float, nodeid: str, late: str) -> dict[str, Any]:
        """Return a guest's next message, warnings recorded on the way."""
        while True:
            message = guest.receive(deadline, late)
            if message["type"] != "warning":
                return message
            self.recorder.record(message, nodeid if message["when"] == "runtest" else "", guest)

    def dismiss(self, guest: Guest, *, politely: bool) -> None:
        """Let a guest go: kill it, or let it end its session first while others work."""
        if guest in self._at_work:
            self._at_work.remove(guest)
        self._see_off(time.monotonic())
        if politely and not guest.over:
            try:
                guest.send({"type": "finish"})
            except GuestDied:
                guest.close()
            else:
                self._leaving.append((guest, time.monotonic() + _FAREWELL_SECONDS))
        else:
            guest.close()

    def _see_off(self, now: float) -> None:
        staying = []
        for guest, deadline in self._leaving:
            if guest.over or now >= deadline:
                guest.close()
            else:
                staying.append((guest, deadline))
        self._leaving = staying

    def close(self) -> None:
        """End every guest; those that are saying farewell get to the end of it."""
        for guest, deadline in self._leaving:
            try:
                while True:
                    guest.receive(deadline, "")
            except GuestDied:
                pass
            finally:
                guest.close()
        for guest in [*self._at_work, *self._spare]:
            guest.close()
        self._leaving, self._at_work = [], []
        self._spare.clear()


class Run:
    """One test file and the guest that serves it, if one does.

    Args:
        crew: where guests come from.
        path: the file.
        arguments: what to collect of it.
    """

    def __init__(self, crew: Crew, path: str, arguments: list[str]) -> None:
        self.path = path
        self.todo: set[int] = set()
        self.ahead: list[Run] = []
        self._crew = crew
        self._arguments = arguments
        self._guest: Guest | None = None
        self._deadline = 0.0
        self._keys: list[str] = []
        self._guest_index: dict[int, int] = {}
        self._collected = False
        self._replay: dict[str, pytest.TestReport] = {}
        self._running: GuestItem | None = None

    # collecting

    def order(self) -> None:
        """Put a guest to work on this file, unless one is."""
        if self._guest is None:
            self._collected = False
            self._guest = self._crew.put_to_work(self._arguments, self.path)
            self._deadline = time.monotonic() + self._crew.timeout

    def collect(self) -> dict[str, Any]:
        """Return what the file's guest collected, and let the guest go if too many live.

        Raises:
            GuestDied: it died; the next use of this run starts afresh.
            Broken: it cannot work.
        """
        answer = self._answer()
        self._keys = _keys(answer["nodes"])
        strangers = [node["path"] for node in answer["nodes"] if node["kind"] == "file" and node["path"] != self.path]
        if strangers and self._guest is not None:
            raise self._guest.breach(f"it collected {strangers[0]} instead")
        if self._guest is not None and self._crew.living > self._crew.cap:
            self.drop()
        return answer

    def _answer(self) -> dict[str, Any]:
        try:
            self.order()
            assert self._guest is not None  # noqa: S101 - order() just made it so
            answer = self._crew.collected(self._guest, self._deadline)
        except (GuestDied, Broken):
            self.drop()
            raise
        self._collected = True
        self._match(_keys(answer["nodes"]))
        return answer

    def _match(self, keys: list[str]) -> None:
        """Find the host's items in a guest's list; the same list is the rule, a vanished item the exception."""
        places: dict[str, deque[int]] = {}
        for index, key in enumerate(keys):
            places.setdefault(key, deque()).append(index)
        self._guest_index = {}
        for index, key in enumerate(self._keys or keys):
            if places.get(key):
                self._guest_index[index] = places[key].popleft()

    def drop(self) -> None:
        """Kill the guest; a later use of this run starts another."""
        if self._guest is not None:
            guest, self._guest = self._guest, None
            self._crew.dismiss(guest, politely=False)

    def leave(self) -> None:
        """The last item that may use this guest for now is torn down."""
        if self._guest is not None and not self.todo:
            guest, self._guest = self._guest, None
            self._crew.dismiss(guest, politely=True)

    # running

    def setup(self, item: GuestItem) -> None:
        """Run an item's set-up inside."""
        self.todo.discard(item.index)
        self._running = item
        self._replay.clear()
        started = time.time()
        try:
            guest = self._ready(item)
            self._deadline = time.monotonic() + self._crew.timeout
            guest.begin_test()
            following = self._guest_index.get(item.index + 1)
            guest.send({"type": "run", "index": self._guest_index[item.index], "next": following})
        except (GuestDied, Broken, OcirunError) as error:
            self._lost(item, "setup", error, started)
        else:
            self._await(item, "setup", started)
        self._raise("setup")

    def _ready(self, item: GuestItem) -> Guest:
        """Return this file's guest, a fresh one if need be, and order the next file's ahead."""
        if self._guest is not None and self._guest.over:
            self.drop()
        if self._guest is None or not self._collected:
            self._answer()
        assert self._guest is not None  # noqa: S101 - or _answer() would have raised
        if item.index not in self._guest_index:
            raise GuestDied("the test is not there any more in a fresh container", "")
        for run in self.ahead:
            if run.todo and self._crew.living <= self._crew.cap:
                run.order()
        return self._guest

    def call(self, item: GuestItem) -> None:
        """Wait for an item's call."""
        self._await(item, "call", time.time())
        self._raise("call")

    def teardown(self, item: GuestItem, following: pytest.Item | None) -> None:
        """Run an item's tear-down, telling the guest what really comes next."""
        if self._running is not item or self._guest is None:
            return
        started = time.time()
        successor = getattr(following, "index", None) if getattr(following, "run", None) is self else None
        try:
            place = None if successor is None else self._guest_index.get(successor)
            self._guest.send({"type": "teardown", "next": place})
        except GuestDied as error:
            self._lost(item, "teardown", error, started)
        else:
            self._await(item, "teardown", started)
        self._running = None
        self._raise("teardown")

    def take(self, item: GuestItem, when: str) -> pytest.TestReport | None:
        """Return the report of a phase, once."""
        report = self._replay.pop(when, None)
        return report if report is not None and report.nodeid == item.nodeid else None

    def _await(self, item: GuestItem, when: str, started: float) -> None:
        guest = self._guest
        assert guest is not None  # noqa: S101 - a phase follows only upon one that went well
        try:
            data = self._phase(guest, item, when)
            notes = guest.pressure() if data["outcome"] == "failed" else []
            if when == "teardown":
                self._expect_done(guest, item)
        except (GuestDied, Broken) as error:
            self._lost(item, when, error, started)
        except BaseException:
            # Ctrl-C, or an alarm of another plugin: the guest is busy with a test that nobody waits for any more.
            self._running = None
            self.drop()
            raise
        else:
            self._replay[when] = reports.phase_report(item, data, notes)

    def _phase(self, guest: Guest, item: GuestItem, when: str) -> dict[str, Any]:
        while True:
            message = self._next(guest, item)
            kind = message["type"]
            if message.get("index") != self._guest_index[item.index]:
                raise guest.breach(f"a {kind} of a test that is not running")
            if kind == "stopped":
                raise GuestDied(f"the test tried to stop the whole run: {message['text']}", guest.log())
            if kind == "subtest" and when == "call":
                self._log_subtest(item, message["report"])
            elif kind == "report" and message["report"]["when"] == when:
                report: dict[str, Any] = message["report"]
                return report
            else:
                raise guest.breach(f"a {kind} where the report of {when} was due")

    def _expect_done(self, guest: Guest, item: GuestItem) -> None:
        message = self._next(guest, item)
        if message["type"] == "stopped":
            raise GuestDied(f"the test tried to stop the whole run: {message['text']}", guest.log())
        if message != {"type": "done", "index": self._guest_index[item.index]}:
            raise guest.breach(f"a {message['type']} after the last report")

    def _next(self, guest: Guest, item: GuestItem) -> dict[str, Any]:
        late = f"no answer within {self._crew.timeout:g} s (--ocirun-timeout)"
        return self._crew.next(guest, self._deadline, item.nodeid, late)

    def _lost(self, item: GuestItem, when: str, error: Exception, started: float) -> None:
        """Make the report of a phase whose guest is gone, and let the next item start afresh."""
        cause = error.cause if isinstance(error, GuestDied) else str(error)
        log = error.log if isinstance(error, GuestDied) else ""
        self._replay[when] = reports.death_report(item, when, cause, log, started)
        self._running = None
        self.drop()
        self._crew.config.hook.pytest_ocirun_guest_died(config=self._crew.config, nodeid=item.nodeid, cause=cause)

    def _log_subtest(self, item: GuestItem, data: dict[str, Any]) -> None:
        report = reports.subtest_report(item, data)
        if report is None:
            return
        capture = item.config.pluginmanager.getplugin("capturemanager")
        with capture.global_and_fixture_disabled():
            item.ihook.pytest_runtest_logreport(report=report)

    def _raise(self, when: str) -> None:
        """Raise what makes pytest take the same turn as it did inside; the report itself is replayed."""
        report = self._replay.get(when)
        if report is None or report.outcome == "passed":
            return
        if report.outcome == "skipped":
            raise pytest.skip.Exception(report.longrepr[2] if isinstance(report.longrepr, tuple) else "")
        crash = getattr(report.longrepr, "reprcrash", None)
        message = crash.message if crash is not None else str(report.longrepr)
        name, _, text = message.partition(":")
        kind = type(name, (GuestFailure,), {}) if name.isidentifier() else GuestFailure
        raise kind(text.strip() if kind is not GuestFailure else message)


def _keys(nodes: list[dict[str, Any]]) -> list[str]:
    """The items of an answer, by what they are called inside."""
    return [node["nodeid"] for node in nodes if node["kind"] == "item" and node["selected"]]
