"""The comparison with plain runs: that it finds what differs, and that nothing does."""

import copy
from typing import Any

import pytest

from tests import compare_plain
from tests.compare.differences import differences, differing_tests
from tests.requires import requires

_PHASE = {
    "id": "test_a.py::test",
    "when": "call",
    "outcome": "passed",
    "xfail": None,
    "reason": None,
    "output": [],
    "properties": [],
    "location": ["test_a.py", 3, "test"],
}
_TOLD: dict[str, Any] = {
    "items": ["test_a.py::test", "test_b.py::test"],
    "phases": [_PHASE, _PHASE | {"id": "test_b.py::test"}],
    "collection": [],
    "warnings": [],
    "deselected": [],
    "exit": 0,
}


@requires("root", "cgroup", "userns", "idmap", "seccomp", "mmdebstrap")
@pytest.mark.slow
def test_suites_of_others_come_out_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    """Per node id and phase: from the image host, and from Debian with its own Python and pytest."""
    status = compare_plain.main([])

    text = capsys.readouterr().out
    assert status == 0, text
    assert text.endswith("\nno difference\n")


def test_equal_runs_do_not_differ() -> None:
    """The comparison has no opinion of its own."""
    assert differences(_TOLD, copy.deepcopy(_TOLD)) == []


@pytest.mark.parametrize(
    "part, value",
    [
        ("outcome", "failed"),
        ("xfail", "reason: known"),
        ("reason", ["test_a.py", "3", "Skipped: no"]),
        ("output", [["Captured stdout call", "hello"]]),
        ("properties", [["a", "1"]]),
        ("location", ["test_a.py", 4, "test"]),
        ("when", "setup"),
    ],
)
def test_each_part_of_a_phase_counts(part: str, value: Any) -> None:
    """A difference names the test, the phase and both values."""
    other = copy.deepcopy(_TOLD)
    other["phases"][1][part] = value

    found = differences(_TOLD, other)

    assert found[0].startswith("test_b.py::test call")
    assert all(line.startswith("test_b.py::test ") for line in found)
    assert differing_tests(found, _TOLD) == 1


def test_missing_and_double_reports_count() -> None:
    """A phase that one side never saw, or saw twice, is a difference."""
    less, more = copy.deepcopy(_TOLD), copy.deepcopy(_TOLD)
    del less["phases"][1]
    more["phases"].append(more["phases"][0])

    assert differences(_TOLD, less) == ["test_b.py::test call: reported 1 times outside, 0 times inside"]
    assert differences(_TOLD, more) == ["test_a.py::test call: reported 1 times outside, 2 times inside"]


@pytest.mark.parametrize("kind", ["items", "deselected", "collection", "warnings", "exit"])
def test_each_part_of_a_run_counts(kind: str) -> None:
    """Order, deselection, collection errors, warnings and the exit status."""
    other = copy.deepcopy(_TOLD)
    other[kind] = 1 if kind == "exit" else ["test_b.py::test", "test_a.py::test"]

    assert len(differences(_TOLD, other)) == 1


def test_other_versions_word_reasons_otherwise() -> None:
    """On another Python only ids, order and outcomes must be the same."""
    other = copy.deepcopy(_TOLD)
    other["phases"][0]["reason"] = "worded by another pytest"

    assert differences(_TOLD, other, same_python=False) == []
    other["phases"][0]["outcome"] = "failed"
    assert len(differences(_TOLD, other, same_python=False)) == 1
