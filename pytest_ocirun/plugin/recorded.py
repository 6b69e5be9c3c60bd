"""Warnings that were recorded inside, recorded again on the host, where the summary is written.

A category is data: a class of that name is made, none is looked up. The source line comes along, so the host opens
no file that a guest named.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pytest


class Recorder:
    """Hands warnings to pytest; one that every container repeats while it starts is handed on once."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._seen: dict[tuple[Any, ...], object] = {}
        self._categories: dict[str, type[Warning]] = {}

    def record(self, data: dict[str, Any], nodeid: str, source: object) -> None:
        """Record one warning.

        Args:
            data: the guest's message, checked by the schema.
            nodeid: the running test, or nothing.
            source: the guest; only another guest's warning counts as a repetition.
        """
        key = (data["category"], data["message"], data["filename"], data["lineno"])
        if data["when"] != "runtest" and self._seen.setdefault(key, source) is not source:
            return
        category = self._categories.setdefault(data["category"], _category(data["category"]))
        message = warnings.WarningMessage(
            message=category(data["message"]),
            category=category,
            filename=data["filename"],
            lineno=data["lineno"],
            line=data["line"],
        )
        arguments = {"warning_message": message, "nodeid": nodeid, "when": data["when"], "location": None}
        self._config.hook.pytest_warning_recorded.call_historic(kwargs=arguments)


def _category(name: str) -> type[Warning]:
    return type(name if name.isidentifier() else "Warning", (Warning,), {"__module__": "builtins"})
