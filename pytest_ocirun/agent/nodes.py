"""Collected nodes as plain data for the host. Knows pytest 7 (a Package is a File) and 8 (a Directory).

Marks are data too: only those arguments travel that ``-m`` can match and the host can hold without evaluating.
"""

from __future__ import annotations

import inspect
import os

import _pytest.mark
import pytest

from pytest_ocirun.agent import reports

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_MAX_TEXT = 4096
_HUGE = 1 << 53


def is_file(node: Any) -> bool:
    """Tell whether *node* is a test file, as opposed to a directory or what is in a file."""
    return isinstance(node, pytest.File) and not isinstance(node, pytest.Package)


def file_path(node: Any) -> str | None:
    """Return the path of the test file that *node* lies in."""
    for parent in reversed(node.listchain()):
        if is_file(parent):
            return str(parent.path)
    return None


def describe(
    session: pytest.Session,
    items: list[pytest.Item],
    deselected: list[pytest.Item],
    collected: list[tuple[pytest.Collector, pytest.CollectReport]],
    only: str | None,
) -> tuple[list[dict[str, Any]], dict[str, Any] | None]:
    """Return every collected node, and the session's own report.

    Parents come before children, items in the order in which they would run.

    Args:
        session: the root; it is not in the list, a parent of -1 means it.
        items: what will run.
        deselected: what hooks of the tree took out.
        collected: every collector that was asked to collect, and its report.
        only: the one file whose nodes count; every other file's are left out.
    """
    listing = _Listing(session, only)
    for collector, report in collected:
        listing.add(collector)
        listing.reports[id(collector)] = report
    for item in items:
        listing.add_item(item, selected=True)
    for item in deselected:
        listing.add_item(item, selected=False)
    own = listing.reports.get(id(session))
    return listing.finish(), None if own is None else reports.shape_collect(own)


class _Listing:
    def __init__(self, session: pytest.Session, only: str | None) -> None:
        self.reports: dict[int, pytest.CollectReport] = {}
        self._only = only
        self._indices: dict[int, int] = {id(session): -1}
        self._nodes: list[tuple[Any, dict[str, Any]]] = []

    def add(self, node: Any) -> None:
        """List a collector, and its parents first."""
        if isinstance(node, pytest.Item) or id(node) in self._indices or self._foreign(node):
            return
        self._append(node, _kind(node), {})

    def add_item(self, item: pytest.Item, *, selected: bool) -> None:
        """List an item; it may be listed twice if it will run twice."""
        if not self._foreign(item):
            path, lineno, domain = item.location
            extra = {"location": [str(path)[:_MAX_TEXT], lineno, str(domain)[:_MAX_TEXT]], "selected": selected}
            self._append(item, "item", extra)

    def _foreign(self, node: Any) -> bool:
        path = file_path(node)
        return self._only is not None and path is not None and path != self._only

    def _append(self, node: Any, kind: str, extra: dict[str, Any]) -> None:
        if node.parent is not None and id(node.parent) not in self._indices:
            self._append(node.parent, _kind(node.parent), {})
        entry = {
            "kind": kind,
            "parent": self._indices[id(node.parent)],
            "name": str(node.name),
            "class": type(node).__name__[:200],
            "path": _path(node, kind),
            "nodeid": str(node.nodeid),
            "markers": [_mark(mark) for mark in node.own_markers],
            "keywords": _keywords(node),
            "doc": _doc(node),
        }
        entry.update(extra)
        self._indices[id(node)] = len(self._nodes)
        self._nodes.append((node, entry))

    def finish(self) -> list[dict[str, Any]]:
        """Return the list, with the outcome of every collector that was asked to collect."""
        for node, entry in self._nodes:
            if entry["kind"] != "item":
                report = self.reports.get(id(node))
                entry["report"] = None if report is None else reports.shape_collect(report)
        return [entry for _, entry in self._nodes]


def _kind(node: Any) -> str:
    if isinstance(node, pytest.Package):
        return "directory"
    if isinstance(node, pytest.File):
        return "file"
    return "directory" if isinstance(node, getattr(pytest, "Directory", ())) else "collector"


def _path(node: Any, kind: str) -> str | None:
    if kind not in ("directory", "file"):
        return None
    path = str(node.path)
    if kind == "directory" and os.path.basename(path) == "__init__.py":
        path = os.path.dirname(path)
    return path


def _mark(mark: Any) -> dict[str, Any]:
    args = [value for value in mark.args if _simple(value)]
    kwargs = {str(name): value for name, value in mark.kwargs.items() if _simple(value)}
    return {"name": str(mark.name), "args": args, "kwargs": kwargs}


def _doc(node: Any) -> str | None:
    """What --collect-only -v shows below a node, of an object that is loaded; the property ``obj`` would import."""
    loaded = vars(node).get("_obj")
    found = None if loaded is None else inspect.getdoc(loaded)
    return None if found is None else found[:_MAX_TEXT]


def _simple(value: Any) -> bool:
    kind = type(value)
    return value is None or kind in {bool, str} or (kind in {int, float} and abs(value) < _HUGE)


def _keywords(node: Any) -> list[str]:
    """What ``-k`` may match beside names and marks: extra matches, and a function's attributes."""
    names = {str(name) for name in node.extra_keyword_matches}
    function = getattr(node, "function", None) if isinstance(node, pytest.Item) else None
    names.update(str(name) for name in getattr(function, "__dict__", {}) if _matchable(name))
    return sorted(names)


# Since pytest 9.2 not every attribute of a function can be matched; before, each one could.
_matchable = getattr(_pytest.mark, "_is_matchable_function_attribute", lambda _: True)
