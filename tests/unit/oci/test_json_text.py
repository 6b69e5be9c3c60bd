"""The fast JSON equals the standard library's, and needs it nowhere where it may not be imported."""

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import pytest_ocirun
from pytest_ocirun.oci import json_text

_VALUES: list[Any] = [
    *(None, True, False, 0, -1, 1 << 70, 1.5, -0.0, 1e300, "", "a", '\u00e9\U0001f600\x00\x1f"\\/', "\ud800"),
    *([], {}, [[]], [1, [2, {"a": None}]], {"": {"b": [1.25, "x"]}, "\n": []}),
]


def test_the_interpreters_own_functions_are_used() -> None:
    """Should they change, this is where it shows; all works without them, more slowly."""
    assert json_text._fast


@pytest.mark.parametrize("value", _VALUES, ids=repr)
def test_values_become_the_same_text(value: object) -> None:
    """Byte for byte, also indented, and the way back."""
    assert json_text.dumps(value) == json.dumps(value)
    assert json_text.indented(value, "\t") == json.dumps(value, indent="\t")
    assert json_text.loads(json.dumps(value)) == value
    assert json_text.loads(f" \t\r\n{json.dumps(value, indent=3)}\n ".encode()) == value


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "{",
        "[1,]",
        '{"a":1,}',
        "{} {}",
        "nul",
        "'a'",
        '"a',
        '"\n"',
        "01",
        "1.",
        "+1",
        "\ufeff{}",
        "[1]x",
        '{"a" 1}',
    ],
)
def test_broken_texts_are_told_alike(text: str) -> None:
    """With the place."""
    with pytest.raises(json.JSONDecodeError) as expected:
        json.loads(text)
    with pytest.raises(json.JSONDecodeError) as found:
        json_text.loads(text)

    assert (found.value.msg, found.value.pos) == (expected.value.msg, expected.value.pos)


def test_constants_are_the_callers() -> None:
    """NaN is a number to json, and to nobody who checks its documents."""
    assert math.isnan(json_text.loads("[NaN]")[0])
    assert json_text.loads("[-Infinity]", str) == ["-Infinity"]


@pytest.mark.parametrize("value", [object(), {1, 2}, b"x", [object()]])
def test_other_values_are_refused(value: object) -> None:
    """As json refuses them."""
    with pytest.raises(TypeError):
        json_text.dumps(value)


def test_nothing_is_imported_after_the_import() -> None:
    """Inside a container the interpreter's files are gone, and others may lie in their place."""
    parent = Path(pytest_ocirun.__file__).parents[1]
    code = (
        f"import sys; sys.path.append({str(parent)!r}); from pytest_ocirun.oci import json_text as j\n"
        "before = {*sys.modules}; j.loads(j.dumps({'a': [1, 'b']})); print({*sys.modules} - before, 'json' in before)"
    )
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], check=True, capture_output=True, text=True)

    assert done.stdout == "set() False\n"
