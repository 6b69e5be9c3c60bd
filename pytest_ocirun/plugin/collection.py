"""Collecting: one guest lists the files, each file's own guest collects it, and the host replays it all to pytest.

The replay calls pytest's hooks in the order in which pytest would: a collector starts, its children follow, its
report comes last. Files are ordered ahead of the replay, so that their containers boot side by side.
"""

from __future__ import annotations

import os
import time
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import pytest

from pytest_ocirun.errors import OcirunError
from pytest_ocirun.plugin import nodes, reports, tree
from pytest_ocirun.plugin.guest import GuestDied
from pytest_ocirun.plugin.runs import Broken, Run

if TYPE_CHECKING:
    from pytest_ocirun.plugin.runs import Crew


class Collection:
    """One session's collection.

    Args:
        session: pytest's; it gets the items.
        crew: the guests.
        ahead: how many files to order ahead.
    """

    def __init__(self, session: pytest.Session, crew: Crew, ahead: int) -> None:
        self.items: list[Any] = []
        self.runs: dict[str, Run] = {}
        self._session = session
        self._config = session.config
        self._hook = session.config.hook
        self._crew = crew
        self._ahead = ahead
        self._start = str(session.config.invocation_params.dir)
        self._entries: list[dict[str, Any]] = []
        self._children: dict[int, list[int]] = {}
        self._queue: list[Run] = []
        self._answers: dict[str, dict[str, Any] | Exception] = {}
        self._deselected: list[Any] = []
        self._seen: set[str] = set()

    def perform(self) -> None:
        """Collect, call every hook of a collection, and leave the items in the session.

        Raises:
            pytest.UsageError: an argument names nothing, or nothing can be collected at all.
        """
        arguments = list(self._config.args)
        self._crew.start_ahead(min(self._ahead, 1 + len(arguments)))
        try:
            report = self._list_files(arguments)
            self._check_arguments(arguments)
            self._grow(self._session, self._children.get(-1, []), report)
            self._order_by_arguments(arguments)
            self._config.pluginmanager.check_pending()
            if self._deselected:
                self._hook.pytest_deselected(items=self._deselected)
            self._session.items = self.items
            self._hook.pytest_collection_modifyitems(session=self._session, config=self._config, items=self.items)
        finally:
            self._hook.pytest_collection_finish(session=self._session)
        self._session.testscollected = len(self.items)

    # listing

    def _list_files(self, arguments: list[str]) -> dict[str, Any] | None:
        """Have one guest walk the directories; return the session's own report, if it has one."""
        guest = self._crew.put_to_work([_without_names(argument) for argument in arguments], None)
        deadline = time.monotonic() + self._crew.timeout
        for argument in arguments:
            path = tree.argument_path(argument, self._start)
            if os.path.isfile(path):
                self._run(path, arguments).order()
        try:
            answer = self._crew.collected(guest, deadline)
        except GuestDied as death:
            raise pytest.UsageError(f"ocirun: listing the tests failed: {death.cause}", death.log) from death
        except Broken as broken:
            raise _usage_error(broken) from broken
        finally:
            self._crew.dismiss(guest, politely=False)
        if answer["usage"]:
            raise pytest.UsageError(*answer["usage"])
        self._entries = answer["nodes"]
        for index, entry in enumerate(self._entries):
            self._children.setdefault(entry["parent"], []).append(index)
            if entry["kind"] == "file":
                run = self._run(entry["path"], arguments)
                if run not in self._queue:
                    self._queue.append(run)
        report: dict[str, Any] | None = answer["session"]
        return report

    def _run(self, path: str, arguments: list[str]) -> Run:
        """Return the run of a file, with those of the arguments that concern it."""
        if path not in self.runs:
            own, above = [], []
            for argument in arguments:
                target = tree.argument_path(argument, self._start)
                if target == path:
                    own.append(argument)
                elif tree.within(path, target):
                    above.append(path)
            self.runs[path] = Run(self._crew, path, above[:1] + own or [path])
        return self.runs[path]

    def _check_arguments(self, arguments: list[str]) -> None:
        """Have the files that were asked for by name answer first: a name that is not there ends the session."""
        errors: list[str] = []
        for argument in arguments:
            run = self.runs.get(tree.argument_path(argument, self._start))
            if "::" in argument and run is not None:
                answer = self._answer(run)
                if isinstance(answer, dict):
                    errors += [error for error in answer["usage"] if error not in errors]
        if errors:
            raise pytest.UsageError(*errors)

    def _answer(self, run: Run) -> dict[str, Any] | Exception:
        """Return what a file's guest collected, or why it did not; the files after it are ordered meanwhile."""
        if run.path not in self._answers:
            place = self._queue.index(run) if run in self._queue else len(self._queue)
            for following in self._queue[place + 1 : place + self._ahead]:
                self._order_ahead(following)
            try:
                self._answers[run.path] = run.collect()
            except (GuestDied, Broken, OcirunError) as error:
                self._answers[run.path] = error
        return self._answers[run.path]

    def _order_ahead(self, run: Run) -> None:
        if run.path not in self._answers:
            try:
                run.order()
            except (GuestDied, OcirunError):
                run.drop()

    # replaying

    def _grow(self, node: Any, children: list[int], data: dict[str, Any] | None) -> None:
        """Replay one directory, or the session, of the enumerator's answer."""
        self._hook.pytest_collectstart(collector=node)
        entries = [self._entries[child] for child in children]
        built = [nodes.build(node, entry, self.nodeid(node, entry)) for entry in entries]
        report = reports.collect_report(node, data, built)
        for child, entry, child_node in zip(children, entries, built, strict=True):
            if entry["kind"] == "directory":
                self._grow(child_node, self._children.get(child, []), entry["report"])
            elif entry["kind"] == "file" and entry["path"] not in self._seen:
                self._seen.add(entry["path"])
                twins = [one for one, twin in zip(built, entries, strict=True) if twin["path"] == entry["path"]]
                self._grow_file(self.runs[entry["path"]], twins)
        self._hook.pytest_collectreport(report=report)

    def _grow_file(self, run: Run, twins: list[Any]) -> None:
        """Replay a file from its own guest's answer; doctests and tests of one file are twin nodes."""
        for node in twins:
            node.run = run
        answer = self._answer(run)
        if isinstance(answer, Exception):
            self._hook.pytest_collectstart(collector=twins[0])
            self._hook.pytest_collectreport(report=self._death(twins[0], answer))
            return
        part = _Part(self, run, answer["nodes"])
        for number, place in enumerate(part.files):
            node = twins[number] if number < len(twins) else part.build(twins[0].parent, place)
            node.run = run
            part.grow(node, place)
        self.items += part.selected
        self._deselected += part.deselected

    def _death(self, node: Any, error: Exception) -> pytest.CollectReport:
        cause = error.cause if isinstance(error, GuestDied) else str(error)
        log = error.log if isinstance(error, GuestDied) else ""
        self._hook.pytest_ocirun_guest_died(config=self._config, nodeid=node.nodeid, cause=cause)
        return reports.collect_death(node, f"ocirun: the guest died while collecting {node.nodeid}: {cause}", log)

    def nodeid(self, parent: Any, entry: dict[str, Any]) -> str:
        """Return the node id that a plain run would give: by path for files and directories, else by parent."""
        if entry["kind"] not in {"directory", "file"}:
            return f"{parent.nodeid}::{entry['name']}"
        try:
            return PurePath(entry["path"]).relative_to(self._config.rootpath).as_posix()
        except ValueError:
            return str(entry["nodeid"])

    def _order_by_arguments(self, arguments: list[str]) -> None:
        """Put items in the order of the arguments that name them: a file named twice has its parts apart."""
        if not any("::" in argument for argument in arguments):
            return
        targets = [(tree.argument_path(one, self._start), one.partition("::")[2]) for one in arguments]

        def rank(item: Any) -> int:
            names = item.nodeid.partition("::")[2]
            for place, (path, wanted) in enumerate(targets):
                if not wanted and tree.within(str(item.path), path):
                    return place
                if wanted and str(item.path) == path and _named(names, wanted):
                    return place
            return len(targets)

        self.items.sort(key=rank)


class _Part:
    """One file's part of the tree, as its guest described it."""

    def __init__(self, collection: Collection, run: Run, entries: list[dict[str, Any]]) -> None:
        self.files = [place for place, entry in enumerate(entries) if entry["kind"] == "file"]
        self._collection = collection
        self._run = run
        self._entries = entries
        self._children: dict[int, list[int]] = {}
        self._items: list[tuple[int, Any]] = []
        order = 0
        self._order: dict[int, int] = {}
        for place, entry in enumerate(entries):
            self._children.setdefault(entry["parent"], []).append(place)
            if entry["kind"] == "item":
                self._order[place] = order
                order += 1

    @property
    def selected(self) -> list[Any]:
        """The items that will run, in the guest's order."""
        return [item for place, item in sorted(self._items, key=_first) if self._entries[place]["selected"]]

    @property
    def deselected(self) -> list[Any]:
        """The items that a hook of the tree took out."""
        return [item for place, item in sorted(self._items, key=_first) if not self._entries[place]["selected"]]

    def build(self, parent: Any, place: int) -> Any:
        """Return the node for one entry."""
        entry = self._entries[place]
        return nodes.build(parent, entry, self._collection.nodeid(parent, entry))

    def grow(self, node: Any, place: int) -> None:
        """Replay one collector and everything below it."""
        hook = node.ihook
        hook.pytest_collectstart(collector=node)
        children = self._children.get(place, [])
        built = [self.build(node, child) for child in children]
        report = reports.collect_report(node, self._entries[place]["report"], built)
        for child, child_node in zip(children, built, strict=True):
            if self._entries[child]["kind"] == "item":
                child_node.run = self._run
                child_node.index = self._order[child]
                self._items.append((child, child_node))
                if self._entries[child]["selected"]:
                    self._run.todo.add(child_node.index)
                hook.pytest_itemcollected(item=child_node)
            else:
                self.grow(child_node, child)
        hook.pytest_collectreport(report=report)


def _first(pair: tuple[int, Any]) -> int:
    return pair[0]


def _without_names(argument: str) -> str:
    """The file that an argument means: listing files needs no names inside them."""
    path, colons, _ = argument.partition("[")[0].partition("::")
    return path if colons else argument


def _named(names: str, wanted: str) -> bool:
    return names == wanted or names.startswith((wanted + "::", wanted + "["))


def _usage_error(broken: Broken) -> pytest.UsageError:
    if broken.reason == "import":
        return pytest.UsageError(f"ocirun: the image's Python cannot run tests: {broken.text}")
    lines = [line.removeprefix("ERROR: ") for line in broken.text.strip().splitlines()]
    return pytest.UsageError(*(lines or ["ocirun: pytest inside the container gave up without a word"]))
