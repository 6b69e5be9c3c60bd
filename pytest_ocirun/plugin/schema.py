"""What a guest may say: every message is checked here, field by field, before anyone believes it.

A check takes a value and a path to name it by, and returns the value, escaped, or raises ProtocolError. Keys that a
message must not have are as wrong as keys that it lacks. Knows no pytest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pytest_ocirun.errors import ProtocolError
from pytest_ocirun.plugin.text import escape

if TYPE_CHECKING:
    from collections.abc import Callable

    Check = Callable[[Any, str], Any]

_TEXT = 32 * 1024 * 1024
_NAME = 64 * 1024
_MANY = 200_000


def _wrong(path: str, value: Any, expected: str) -> ProtocolError:
    return ProtocolError(f"{path}: expected {expected}, got {type(value).__name__}")


def text(limit: int = _TEXT) -> Check:
    """A string of at most *limit* characters."""

    def check(value: Any, path: str) -> str:
        if not isinstance(value, str) or len(value) > limit:
            raise _wrong(path, value, f"text of at most {limit} characters")
        return escape(value)

    return check


def integer(lowest: int, highest: int) -> Check:
    """An integer within bounds; true and false are none."""

    def check(value: Any, path: str) -> int:
        if type(value) is not int or not lowest <= value <= highest:
            raise _wrong(path, value, f"an integer from {lowest} to {highest}")
        return value

    return check


def seconds(value: Any, path: str) -> float:
    """A finite, non-negative number."""
    if type(value) not in {int, float} or not 0 <= value < 1e12:
        raise _wrong(path, value, "a number of seconds")
    return float(value)


def boolean(value: Any, path: str) -> bool:
    """True or false."""
    if not isinstance(value, bool):
        raise _wrong(path, value, "true or false")
    return value


def scalar(value: Any, path: str) -> Any:
    """What may stand in a mark or a property: text, a number, true, false or null."""
    if isinstance(value, str):
        return NAME(value, path)
    if value is None or isinstance(value, (bool, float)) or (type(value) is int and abs(value) < 1 << 64):
        return value
    raise _wrong(path, value, "a scalar")


def choice(*words: str) -> Check:
    """One of the given words."""

    def check(value: Any, path: str) -> str:
        if not isinstance(value, str) or value not in words:
            raise _wrong(path, value, " or ".join(words))
        return value

    return check


def optional(inner: Check) -> Check:
    """Null, or what *inner* accepts."""

    def check(value: Any, path: str) -> Any:
        return None if value is None else inner(value, path)

    return check


def listing(inner: Check, limit: int = _MANY) -> Check:
    """A list of at most *limit* elements."""

    def check(value: Any, path: str) -> list[Any]:
        if not isinstance(value, list) or len(value) > limit:
            raise _wrong(path, value, f"a list of at most {limit}")
        return [inner(element, f"{path}[{index}]") for index, element in enumerate(value)]

    return check


def row(*inner: Check) -> Check:
    """A list with exactly these elements, as a tuple."""

    def check(value: Any, path: str) -> tuple[Any, ...]:
        if not isinstance(value, list) or len(value) != len(inner):
            raise _wrong(path, value, f"a list of {len(inner)}")
        return tuple(
            one(element, f"{path}[{index}]") for index, (one, element) in enumerate(zip(inner, value, strict=True))
        )

    return check


def mapping(inner: Check, limit: int = 1000) -> Check:
    """An object with any keys, all values alike."""

    def check(value: Any, path: str) -> dict[str, Any]:
        if not isinstance(value, dict) or len(value) > limit:
            raise _wrong(path, value, f"an object of at most {limit} keys")
        return {NAME(key, path): inner(item, f"{path}.{key[:40]}") for key, item in value.items()}

    return check


def record(**fields: Check) -> Check:
    """An object with exactly these keys."""

    def check(value: Any, path: str) -> dict[str, Any]:
        if not isinstance(value, dict) or value.keys() != fields.keys():
            raise _wrong(path, value, f"an object with {', '.join(fields)}")
        return {name: inner(value[name], f"{path}.{name}") for name, inner in fields.items()}

    return check


def either(*alternatives: Check) -> Check:
    """What the first fitting alternative accepts."""

    def check(value: Any, path: str) -> Any:
        *others, last = alternatives
        for alternative in others:
            try:
                return alternative(value, path)
            except ProtocolError:
                continue
        return last(value, path)

    return check


NAME = text(_NAME)
_INDEX = integer(0, _MANY)
_LINE = integer(-1, 1 << 31)
_LOCATION = row(NAME, optional(_LINE), NAME)
_SECTIONS = listing(row(NAME, text()), 10_000)

_STYLE = choice("long", "short", "line", "no", "native", "value", "auto")
_FILE_LOCATION = record(path=NAME, lineno=_LINE, message=text())
_LINES = listing(text())
_ENTRY = record(
    type=choice("ReprEntry"),
    data=record(
        lines=_LINES,
        reprfuncargs=optional(record(args=listing(row(NAME, text())))),
        reprlocals=optional(record(lines=_LINES)),
        reprfileloc=optional(_FILE_LOCATION),
        style=_STYLE,
    ),
)
_NATIVE = record(type=choice("ReprEntryNative"), data=either(record(lines=_LINES), record(lines=_LINES, style=_STYLE)))
_TRACEBACK = record(reprentries=listing(either(_ENTRY, _NATIVE)), extraline=optional(text()), style=_STYLE)
_EXCEPTION = record(
    reprcrash=optional(_FILE_LOCATION),
    reprtraceback=_TRACEBACK,
    sections=listing(row(NAME, text(), NAME)),
    chain=optional(listing(row(_TRACEBACK, optional(_FILE_LOCATION), optional(text())), 1000)),
)


def _longrepr(value: Any, path: str) -> Any:
    if value is None:
        return None
    if isinstance(value, str):
        return text()(value, path)
    if isinstance(value, list):
        return row(NAME, _LINE, text())(value, path)
    if isinstance(value, dict) and value.keys() == {"text"}:
        return _RENDERED(value, path)
    return _EXCEPTION(value, path)


_RENDERED = record(text=text())
_OUTCOME = choice("passed", "failed", "skipped")
_PHASE: dict[str, Check] = {
    "when": choice("setup", "call", "teardown"),
    "outcome": _OUTCOME,
    "longrepr": _longrepr,
    "sections": _SECTIONS,
    "duration": seconds,
    "start": seconds,
    "stop": seconds,
    "location": _LOCATION,
    "keywords": listing(NAME),
    "properties": listing(row(NAME, scalar)),
    "wasxfail": optional(text()),
}
_MARK = record(name=NAME, args=listing(scalar, 1000), kwargs=mapping(scalar))
_NODE: dict[str, Check] = {
    "kind": choice("directory", "file", "collector", "item"),
    "parent": integer(-1, _MANY),
    "name": NAME,
    "class": NAME,
    "path": optional(NAME),
    "nodeid": NAME,
    "markers": listing(_MARK, 10_000),
    "keywords": listing(NAME),
    "doc": optional(NAME),
}
_COLLECTED = record(outcome=_OUTCOME, longrepr=_longrepr, sections=_SECTIONS)
_ITEM_NODE = record(**_NODE, location=_LOCATION, selected=boolean)
_COLLECTOR_NODE = record(**_NODE, report=optional(_COLLECTED))


def _node(value: Any, path: str) -> Any:
    is_item = isinstance(value, dict) and value.get("kind") == "item"
    return (_ITEM_NODE if is_item else _COLLECTOR_NODE)(value, path)


def _tree(value: Any, path: str) -> Any:
    """A list of nodes that is a tree: parents come first, files and directories have paths, items have no children."""
    entries = listing(_node)(value, path)
    for index, entry in enumerate(entries):
        parent = entry["parent"]
        above = entries[parent]["kind"] if 0 <= parent < index else "session"
        if parent >= index or above == "item" or (above in {"file", "collector"} and entry["path"] is not None):
            raise ProtocolError(f"{path}[{index}]: a node under {above} {parent}")
        if (entry["kind"] in {"directory", "file"}) != (entry["path"] is not None and entry["path"].startswith("/")):
            raise ProtocolError(f"{path}[{index}]: a {entry['kind']} with the path {entry['path']!r}")
    return entries


_MESSAGES: dict[str, Check] = {
    "ready": record(type=NAME, python=row(_INDEX, _INDEX, _INDEX), pytest=NAME),
    "broken": record(type=NAME, reason=choice("import", "usage", "crash"), text=text()),
    "collected": record(type=NAME, nodes=_tree, session=optional(_COLLECTED), usage=listing(text(), 1000)),
    "report": record(type=NAME, index=_INDEX, report=record(**_PHASE)),
    "subtest": record(
        type=NAME, index=_INDEX, report=record(**_PHASE, subtest=record(msg=optional(NAME), kwargs=mapping(NAME)))
    ),
    "warning": record(
        type=NAME,
        when=choice("config", "collect", "runtest"),
        index=optional(_INDEX),
        category=text(200),
        message=text(),
        filename=text(4096),
        lineno=_LINE,
        line=text(4096),
    ),
    "done": record(type=NAME, index=_INDEX),
    "stopped": record(type=NAME, index=_INDEX, text=text()),
}
_ENDED = record(
    type=choice("ended"), exit=optional(integer(0, 255)), signal=optional(integer(1, 127)), breach=optional(NAME)
)


def from_worker(message: Any) -> dict[str, Any]:
    """Return a worker's message, checked and escaped.

    Raises:
        ProtocolError: it is none of the messages that a worker may send.
    """
    kind = message.get("type") if isinstance(message, dict) else None
    if not isinstance(kind, str) or kind not in _MESSAGES:
        raise ProtocolError("a message of no known type")
    checked: dict[str, Any] = _MESSAGES[kind](message, kind)
    return checked


def from_supervisor(message: Any) -> dict[str, Any]:
    """Return the supervisor's one message, checked.

    Raises:
        ProtocolError: it is anything else.
    """
    checked: dict[str, Any] = _ENDED(message, "ended")
    return checked
