"""Reports on the host, made from a guest's checked words or from how it died. Knows nothing of the wire.

Node id, location of the crash and keywords are the host's where the host knows them; the rest is the guest's.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest
from _pytest._code.code import TerminalRepr
from _pytest.reports import CollectErrorRepr

if TYPE_CHECKING:
    from collections.abc import Iterable

    from _pytest._io import TerminalWriter

    Node = pytest.Item | pytest.Collector


class Rendered(TerminalRepr):
    """A failure that was text by the time it left the guest, though not a plain string to begin with."""

    def __init__(self, text: str) -> None:
        self.text = text

    def toterminal(self, tw: TerminalWriter) -> None:
        """Write it; lines that pytest marks as the error itself are red."""
        for line in self.text.splitlines():
            tw.line(line, red=line.startswith(("E  ", ">  ")))


def phase_report(item: pytest.Item, data: dict[str, Any], notes: Iterable[str] = ()) -> pytest.TestReport:
    """Return the report of one phase.

    Args:
        item: the host's item; its node id stands in the report.
        data: the guest's report, checked by the schema.
        notes: what the host found out about this phase beside it.
    """
    report: pytest.TestReport = item.config.hook.pytest_report_from_serializable(
        config=item.config, data=_serialised(item, data, "TestReport")
    )
    return _finish(report, item, data, notes)


def subtest_report(item: pytest.Item, data: dict[str, Any]) -> pytest.TestReport | None:
    """Return the report of a subtest, or None where the host's pytest knows no subtests."""
    serialised = _serialised(item, data, "SubtestReport")
    serialised.update({"_report_type": "SubTestReport", "_subtest.context": data["subtest"]})
    try:
        from _pytest.subtests import SubtestReport
    except ImportError:
        return None
    report = SubtestReport._from_json(serialised)  # noqa: SLF001 - the form in which pytest itself sends subtests
    object.__setattr__(report.context, "kwargs", data["subtest"]["kwargs"])  # they are reprs already
    for name in ("_report_type", "_subtest.context", "$report_type"):
        report.__dict__.pop(name, None)
    return _finish(report, item, data, ())


def _serialised(item: pytest.Item, data: dict[str, Any], kind: str) -> dict[str, Any]:
    longrepr = data["longrepr"]
    if isinstance(longrepr, dict) and "text" in longrepr:
        longrepr = None
    return {
        "$report_type": kind,
        "nodeid": item.nodeid,
        "location": data["location"],
        "keywords": dict.fromkeys(data["keywords"], 1),
        "outcome": data["outcome"],
        "longrepr": longrepr,
        "when": data["when"],
        "sections": data["sections"],
        "duration": data["duration"],
        "start": data["start"],
        "stop": data["stop"],
        "user_properties": data["properties"],
    }


def _finish(
    report: pytest.TestReport, item: pytest.Item, data: dict[str, Any], notes: Iterable[str]
) -> pytest.TestReport:
    report.__dict__.pop("$report_type", None)
    report.nodeid = item.nodeid
    longrepr = data["longrepr"]
    if isinstance(longrepr, dict) and "text" in longrepr:
        report.longrepr = Rendered(longrepr["text"])
    elif isinstance(longrepr, (list, tuple)):
        report.longrepr = tuple(longrepr)
    if data["wasxfail"] is not None:
        report.wasxfail = data["wasxfail"]
    report.sections += [("ocirun", note) for note in notes]
    return report


def death_report(item: pytest.Item, when: str, cause: str, log: str, started: float) -> pytest.TestReport:
    """Return the report of a phase that the guest did not live to report.

    Args:
        item: the host's item.
        when: the phase that the host was waiting for.
        cause: what the host found out about the death.
        log: the end of what it wrote.
        started: when the phase began, in seconds since the epoch.
    """
    path, lineno, _ = item.location
    stop = time.time()
    data: dict[str, Any] = {
        "when": when,
        "outcome": "failed",
        "longrepr": _sentence(path, lineno, cause),
        "sections": [("Guest log", log)] if log else [],
        "duration": max(0.0, stop - started),
        "start": started,
        "stop": stop,
        "location": item.location,
        "keywords": list(item.keywords),
        "properties": [],
        "wasxfail": None,
    }
    return phase_report(item, data)


def _sentence(path: str, lineno: int | None, cause: str) -> dict[str, Any]:
    """The serialised form of a failure without a traceback; the short summary has room for the cause only."""
    text = f"ocirun: the guest died while running this test: {cause}"
    return {
        "reprcrash": {"path": path, "lineno": (lineno or 0) + 1, "message": f"ocirun: {cause}"},
        "reprtraceback": {
            "reprentries": [{"type": "ReprEntryNative", "data": {"lines": [text + "\n"]}}],
            "extraline": None,
            "style": "native",
        },
        "sections": [],
        "chain": None,
    }


def collect_report(node: Node, data: dict[str, Any] | None, children: list[Any]) -> pytest.CollectReport:
    """Return a collector's report.

    Args:
        node: the host's collector.
        data: what the guest reported, or None if there was nothing to report.
        children: the host's nodes for what was found.
    """
    if data is None:
        return pytest.CollectReport(node.nodeid, "passed", None, children)
    longrepr = data["longrepr"]
    if isinstance(longrepr, dict) and "text" in longrepr:
        longrepr = CollectErrorRepr(longrepr["text"])
    elif isinstance(longrepr, dict):
        serialised = {"$report_type": "CollectReport", "nodeid": node.nodeid, "outcome": data["outcome"]}
        serialised.update(longrepr=longrepr, result=None, sections=[])
        rebuilt = node.config.hook.pytest_report_from_serializable(config=node.config, data=serialised)
        longrepr = rebuilt.longrepr
    elif isinstance(longrepr, str):
        longrepr = CollectErrorRepr(longrepr)
    elif isinstance(longrepr, list):
        longrepr = tuple(longrepr)
    return pytest.CollectReport(node.nodeid, data["outcome"], longrepr, children, data["sections"])


def collect_death(node: Node, cause: str, log: str) -> pytest.CollectReport:
    """Return the failed report of a file whose guest died while collecting it."""
    sections = [("Guest log", log)] if log else []
    return pytest.CollectReport(node.nodeid, "failed", CollectErrorRepr(cause), [], sections)
