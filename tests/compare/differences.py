"""Where two runs of one suite differ, by name. Pure.

What differs between any two plain runs too is made alike first: addresses of objects and the number of the run in
the names of temporary directories. So is what differs on purpose: what could steer the user's terminal comes out of
a container escaped, and out of a plain run raw; and where a message lists all fixtures, ours are among them inside.
"""

import re
from collections.abc import Iterator
from itertools import zip_longest
from typing import Any

from pytest_ocirun.plugin.text import escape
from tests.compare.suites import WITNESS

Told = dict[str, Any]

_CHANGING = (
    (re.compile(r"\b0x[0-9a-f]{6,}"), "0x..."),
    (re.compile(r"\bid='\d+'"), "id='...'"),
    (re.compile(r"\bocirun_\w+, "), ""),
    (re.compile(r"/pytest-of-(\w+)/pytest-\d+"), r"/pytest-of-\1/pytest-..."),
)

_PARTS = ("outcome", "xfail", "reason", "output", "properties", "location")
_OUTCOMES = ("outcome", "xfail")


def count(told: Told) -> int:
    """How many tests were run."""
    return len({phase["id"] for phase in told["phases"]})


def differences(outside: Told, inside: Told, *, same_python: bool = True) -> list[str]:
    """Each difference, a line each; a node id is named once for each phase and part in which it differs.

    Args:
        outside: what the plain run's reporters were told.
        inside: what the other's were.
        same_python: whether both ran on the same Python and pytest. If not, only node ids, their order and the
            outcomes of their phases can be the same, and texts are left alone.
    """
    outside, inside = _alike(outside), _alike(inside)
    found = [f"exit status: {outside['exit']} outside, {inside['exit']} inside"]
    if outside["exit"] == inside["exit"]:
        found.clear()
    found += _phases(_by_phase(outside), _by_phase(inside), _PARTS if same_python else _OUTCOMES)
    lists = ("items", "deselected", "collection", "warnings") if same_python else ("items", "deselected")
    for kind in lists:
        for position, (left, right) in enumerate(zip_longest(outside[kind], inside[kind])):
            if left != right:
                found.append(f"{kind}[{position}]: {left!r} outside, {right!r} inside")
                break
    return found


def _alike(value: Any) -> Any:
    """The same document with all texts made comparable."""
    if isinstance(value, dict):
        return {key: _alike(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_alike(each) for each in value]
    if not isinstance(value, str):
        return value
    for pattern, instead in _CHANGING:
        value = pattern.sub(instead, value)
    return escape(value)


def differing_tests(found: list[str], told: Told) -> int:
    """How many tests the differences name."""
    return len({phase["id"] for phase in told["phases"] if any(line.startswith(phase["id"] + " ") for line in found)})


def witness(told: Told) -> dict[str, str]:
    """What the added test saw: module, python, pytest."""
    for phase in told["phases"]:
        if phase["id"].endswith(WITNESS) and phase["when"] == "call":
            return dict(phase["properties"])
    return {}


def _by_phase(told: Told) -> dict[tuple[str, str], list[Told]]:
    found: dict[tuple[str, str], list[Told]] = {}
    for phase in told["phases"]:
        found.setdefault((phase["id"], phase["when"]), []).append(phase)
    return found


def _phases(
    outside: dict[tuple[str, str], list[Told]], inside: dict[tuple[str, str], list[Told]], parts: tuple[str, ...]
) -> Iterator[str]:
    for key in [*outside, *(key for key in inside if key not in outside)]:
        name = " ".join(key)
        left, right = outside.get(key, []), inside.get(key, [])
        if len(left) != len(right):
            yield f"{name}: reported {len(left)} times outside, {len(right)} times inside"
            continue
        for one, other in zip(left, right, strict=True):
            for part in parts:
                if one[part] != other[part]:
                    yield f"{name}: {part} {one[part]!r} outside, {other[part]!r} inside"
