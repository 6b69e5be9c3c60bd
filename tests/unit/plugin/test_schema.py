"""What a guest may say, field by field."""

import copy
from typing import Any

import pytest

from pytest_ocirun.errors import ProtocolError
from pytest_ocirun.plugin import schema

_CRASH = {"path": "t.py", "lineno": 3, "message": "boom"}
_ENTRY = {
    "type": "ReprEntry",
    "data": {
        "lines": ["E  boom"],
        "reprfuncargs": {"args": [["x", "1"]]},
        "reprlocals": None,
        "reprfileloc": _CRASH,
        "style": "long",
    },
}
_TRACEBACK = {"reprentries": [_ENTRY], "extraline": None, "style": "long"}
_REPORT: dict[str, Any] = {
    "when": "call",
    "outcome": "failed",
    "longrepr": {
        "reprcrash": _CRASH,
        "reprtraceback": _TRACEBACK,
        "sections": [["name", "text", "-"]],
        "chain": [[_TRACEBACK, _CRASH, None]],
    },
    "sections": [["Captured stdout call", "text"]],
    "duration": 0.5,
    "start": 1.0,
    "stop": 1.5,
    "location": ["t.py", 3, "test_it"],
    "keywords": ["test_it"],
    "properties": [["key", 3]],
    "wasxfail": None,
}
_FILE = {
    "kind": "file",
    "parent": -1,
    "name": "t.py",
    "class": "Module",
    "path": "/tree/t.py",
    "nodeid": "t.py",
    "markers": [{"name": "slow", "args": [1], "kwargs": {"a": None}}],
    "keywords": [],
    "doc": None,
    "report": {"outcome": "passed", "longrepr": None, "sections": []},
}
_ITEM = {
    "kind": "item",
    "parent": 0,
    "name": "test_it",
    "class": "Function",
    "path": None,
    "nodeid": "t.py::test_it",
    "markers": [],
    "keywords": [],
    "doc": None,
    "location": ["t.py", 0, "test_it"],
    "selected": True,
}
_MESSAGES: list[dict[str, Any]] = [
    {"type": "ready", "python": [3, 8, 18], "pytest": "7.0.0"},
    {"type": "broken", "reason": "import", "text": "no pytest"},
    {"type": "collected", "nodes": [_FILE, _ITEM], "session": None, "usage": []},
    {"type": "report", "index": 0, "report": _REPORT},
    {"type": "subtest", "index": 0, "report": {**_REPORT, "subtest": {"msg": None, "kwargs": {"i": "1"}}}},
    {"type": "done", "index": 0},
    {"type": "stopped", "index": 0, "text": "Exit"},
]


@pytest.mark.parametrize("message", _MESSAGES, ids=lambda message: message["type"])
def test_good_messages_pass(message: dict[str, Any]) -> None:
    """And come out as they went in, but for lists of fixed length, which are tuples."""
    checked = schema.from_worker(copy.deepcopy(message))

    assert checked["type"] == message["type"]
    assert checked.keys() == message.keys()


def _paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a message."""
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(found for key, child in children for found in _paths(child, (*path, key)))]


@pytest.mark.parametrize("message", _MESSAGES, ids=lambda message: message["type"])
def test_every_field_is_checked(message: dict[str, Any]) -> None:
    """At every place an object with a foreign key is refused."""
    for path in _paths(message)[1:]:
        broken = copy.deepcopy(message)
        place: Any = broken
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = {"foreign": {"key": 1}}

        with pytest.raises(ProtocolError):
            schema.from_worker(broken)


@pytest.mark.parametrize("message", _MESSAGES, ids=lambda message: message["type"])
def test_no_key_more_and_none_less(message: dict[str, Any]) -> None:
    """An additional attribute would land on pytest's report; a missing one would crash it."""
    with pytest.raises(ProtocolError):
        schema.from_worker({**message, "_id": 1})
    for key in message:
        with pytest.raises(ProtocolError):
            schema.from_worker({name: value for name, value in message.items() if name != key})


@pytest.mark.parametrize(
    "field, value",
    [
        ("outcome", "splendid"),
        ("when", "collect"),
        ("duration", -1),
        ("duration", float("inf")),
        ("duration", True),
        ("duration", 10**400),
        ("location", ["t.py", "3", "x"]),
        ("location", ["t.py", 3]),
        ("keywords", {"a": 1}),
        ("properties", [["key", {"a": 1}]]),
        ("properties", [["key", 1 << 70]]),
        ("longrepr", ["t.py", 3]),
        ("longrepr", {"text": 3}),
        ("sections", [["one"]]),
        ("wasxfail", 1),
    ],
)
def test_wrong_values(field: str, value: object) -> None:
    """Types, bounds and words."""
    with pytest.raises(ProtocolError, match=f"report.report.{field}"):
        schema.from_worker({"type": "report", "index": 0, "report": {**_REPORT, field: value}})


@pytest.mark.parametrize(
    "nodes",
    [
        [_ITEM],
        [{**_ITEM, "parent": 7}],
        [_FILE, _ITEM, {**_ITEM, "parent": 1}],
        [{**_FILE, "parent": 0}],
        [_FILE, {**_FILE, "parent": 0}],
        [{**_FILE, "path": "relative.py"}],
        [{**_FILE, "path": None}],
        [{**_FILE, "kind": "collector"}],
    ],
)
def test_no_tree(nodes: list[dict[str, Any]]) -> None:
    """Parents first, no children of items, files in directories, absolute paths."""
    with pytest.raises(ProtocolError):
        schema.from_worker({"type": "collected", "nodes": nodes, "session": None, "usage": []})


@pytest.mark.parametrize("message", [None, [], "ready", {}, {"type": None}, {"type": ["ready"]}, {"type": "ended"}])
def test_unknown_types(message: Any) -> None:
    """The supervisor's word is none of the worker's."""
    with pytest.raises(ProtocolError):
        schema.from_worker(message)


def test_text_is_escaped_on_the_way_in() -> None:
    """Nothing behind the schema sees a control character."""
    message = {"type": "stopped", "index": 0, "text": "\x1b[2J"}

    assert schema.from_worker(message)["text"] == "\\x1b[2J"


@pytest.mark.parametrize("number", [-1, 0, 128, True, "9"])
def test_supervisors_word_is_checked_too(number: object) -> None:
    """A signal is one."""
    with pytest.raises(ProtocolError):
        schema.from_supervisor({"type": "ended", "exit": None, "signal": number, "breach": None})
