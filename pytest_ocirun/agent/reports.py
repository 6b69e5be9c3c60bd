"""Reports as plain data for the host: what pytest itself serialises, cut down to the fields that the host accepts.

Anything a plugin hung on a report stays here.
"""

from __future__ import annotations

import math

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable

_SLACK = 200  # room for the note that was put where captured output was cut already
_SCALARS = (bool, int, float, str, type(None))


def shape(serialise: Callable[..., Any], report: Any, config: Any, limit: int) -> dict[str, Any]:
    """Return one phase's report.

    Args:
        serialise: the hook ``pytest_report_to_serializable``.
        report: a TestReport.
        config: pytest's configuration, which the hook wants.
        limit: the most characters of one captured section.
    """
    data = serialise(config=config, report=report)
    path, lineno, domain = report.location
    return {
        "when": report.when,
        "outcome": report.outcome,
        "longrepr": _longrepr(report, data),
        "sections": [[str(name), _cut(str(text), limit)] for name, text in report.sections],
        "duration": float(report.duration),
        "start": float(getattr(report, "start", 0.0)),
        "stop": float(getattr(report, "stop", 0.0)),
        "location": [str(path), lineno, str(domain)],
        "keywords": [str(name) for name in report.keywords],
        "properties": [[str(name), _scalar(value)] for name, value in report.user_properties],
        "wasxfail": str(report.wasxfail) if hasattr(report, "wasxfail") else None,
    }


def shape_subtest(serialise: Callable[..., Any], report: Any, config: Any, limit: int) -> dict[str, Any]:
    """Return the report of one subtest: a phase's report and what the subtest was called."""
    shaped = shape(serialise, report, config, limit)
    context = report.context
    shaped["subtest"] = {
        "msg": None if context.msg is None else str(context.msg),
        "kwargs": {str(name): str(value) for name, value in context.kwargs.items()},
    }
    return shaped


def shape_collect(report: Any) -> dict[str, Any]:
    """Return a collector's report, without the nodes it found."""
    data = report._to_json()  # noqa: SLF001 - as pytest_report_to_serializable does, without a configuration
    return {
        "outcome": report.outcome,
        "longrepr": _longrepr(report, data),
        "sections": [[str(name), str(text)] for name, text in report.sections],
    }


def _longrepr(report: Any, data: dict[str, Any]) -> Any:
    """What pytest makes of it; an object of which it makes plain text is told apart from a text."""
    serialised = data.get("longrepr")
    if isinstance(serialised, str) and not isinstance(report.longrepr, str):
        return {"text": serialised}
    return _plain(serialised)


def shrink(shaped: dict[str, Any], text: str, limit: int) -> None:
    """Cut a shaped report in place until it fits into a frame: sections first, then the traceback becomes text."""
    shaped["sections"] = [[name, _cut(content, limit)] for name, content in shaped["sections"][:64]]
    if isinstance(shaped["longrepr"], dict):
        shaped["longrepr"] = text
    if isinstance(shaped["longrepr"], str):
        shaped["longrepr"] = _cut(shaped["longrepr"], limit)
    shaped["properties"] = [pair for pair in shaped["properties"] if len(str(pair)) <= limit]
    shaped["keywords"] = [name for name in shaped["keywords"][:4096] if len(name) <= limit]


def _cut(text: str, limit: int) -> str:
    """Keep the beginning and the end of a text that is too long, and say what is missing."""
    if len(text) <= limit + _SLACK:
        return text
    half = limit // 2
    return f"{text[:half]}\n[ocirun: {len(text) - 2 * half} characters cut]\n{text[len(text) - half :]}"


def _scalar(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value if type(value) in _SCALARS else str(value)


def _plain(value: Any) -> Any | None:
    """Return *value* with nothing but dicts, lists and scalars in it."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        plain: list[Any] = [_plain(item) for item in value]
        return plain
    return _scalar(value)
