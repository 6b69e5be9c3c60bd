"""A pytest plugin that writes down all that a run told its reporters. Runs on Python 3.8 and pytest 7 too.

Loaded by PYTEST_PLUGINS, it acts where the user's pytest runs: for tests inside containers that is the host. What a
clock says is left out, everything else is kept: order, phases, reasons, tracebacks, captured output, warnings.
"""

from __future__ import annotations

import json
import os
from typing import Any

_seen: dict[str, list[Any]] = {"items": [], "phases": [], "collection": [], "warnings": [], "deselected": []}


def pytest_collection_finish(session: Any) -> None:
    """Keep the order in which tests will run."""
    _seen["items"] = [item.nodeid for item in session.items]


def pytest_deselected(items: list[Any]) -> None:
    """Keep what was deselected."""
    _seen["deselected"] += [item.nodeid for item in items]


def pytest_collectreport(report: Any) -> None:
    """Keep what could not be collected."""
    if not report.passed:
        _seen["collection"].append([report.nodeid, report.outcome, _reason(report)])


def pytest_runtest_logreport(report: Any) -> None:
    """Keep a phase of a test."""
    _seen["phases"].append(
        {
            "id": report.nodeid,
            "when": report.when,
            "outcome": report.outcome,
            "xfail": getattr(report, "wasxfail", None),
            "reason": _reason(report),
            "output": [list(section) for section in report.sections],
            "properties": [list(pair) for pair in report.user_properties],
            "location": list(report.location),
        }
    )


def pytest_warning_recorded(warning_message: Any, when: str, nodeid: str) -> None:
    """Keep a warning."""
    place = f"{warning_message.filename}:{warning_message.lineno}"
    kind = warning_message.category.__name__
    _seen["warnings"].append([when, nodeid, kind, str(warning_message.message), place])


def pytest_sessionfinish(session: Any, exitstatus: int) -> None:
    """Write it all to the file that the environment names."""
    with open(os.environ["OCIRUN_OBSERVED"], "w", encoding="utf-8") as file:
        json.dump(dict(_seen, exit=int(exitstatus)), file)


def _reason(report: Any) -> list[str] | str | None:
    if isinstance(report.longrepr, tuple):
        return [str(part) for part in report.longrepr]
    return None if report.longrepr is None else str(report.longrepr)
