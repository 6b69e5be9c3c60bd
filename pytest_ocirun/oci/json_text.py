"""JSON by the interpreter's own scanner and encoder, without the ``json`` package around them.

Importing ``json`` takes as long as starting the interpreter (it brings ``re``, ``enum`` and ``collections``),
and every verb of the command line and every zygote would pay for it. The C functions below are what ``json``
itself calls, but private: where they do not behave as expected, ``json`` is used. That is found out at
import, since nothing may be imported inside a container. Must not know what the values mean.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_SPACE = " \t\n\r"
_PROBE = {"a": [1, -2.5, "\u00e9\n", None, True], "b": {}}
_PROBE_TEXT = '{"a": [1, -2.5, "\\u00e9\\n", null, true], "b": {}}'


class _Decoder:
    """What the scanner asks of its decoder; the values are those of ``json.JSONDecoder``."""

    def __init__(self, parse_constant: Callable[[str], object]) -> None:
        self.strict = True
        self.object_hook = None
        self.object_pairs_hook = None
        self.parse_float = float
        self.parse_int = int
        self.parse_constant = parse_constant
        self.memo: dict[str, str] = {}


def _scan(text: str, parse_constant: Callable[[str], object]) -> Any:
    import _json

    decoder: Any = _Decoder(parse_constant)
    value, end = _json.make_scanner(decoder)(text, len(text) - len(text.lstrip(_SPACE)))
    if text[end:].strip(_SPACE):
        raise ValueError("extra data")
    return value


def _encode(value: object) -> str:
    import _json

    encode = _json.make_encoder({}, _refuse, _json.encode_basestring_ascii, None, ": ", ", ", False, False, True)
    return "".join(encode(value, 0))


def _refuse(value: object) -> object:
    raise TypeError(f"{type(value).__name__} is no JSON value")


def _works() -> bool:
    try:
        return _encode(_PROBE) == _PROBE_TEXT and _scan(f" {_PROBE_TEXT}\n", float) == _PROBE
    except (ImportError, AttributeError, TypeError, ValueError):
        return False


_fast = _works()
if not _fast:
    import json


def loads(text: str | bytes, parse_constant: Callable[[str], object] = float) -> Any:
    """As ``json.loads``; bytes must be UTF-8. Not for use inside a container.

    Args:
        text: one JSON value, with white space around it.
        parse_constant: called with NaN, Infinity and -Infinity.

    Raises:
        ValueError: as ``json.loads``, with the place.
    """
    plain = text if isinstance(text, str) else text.decode()
    if _fast:
        try:
            return _scan(plain, parse_constant)
        except (StopIteration, SystemError, ValueError):
            pass  # let json say where it is wrong; SystemError is how Python 3.11 says that json is not loaded yet
    import json

    return json.loads(plain, parse_constant=parse_constant)


def dumps(value: object) -> str:
    """As ``json.dumps`` without options.

    Raises:
        TypeError, ValueError: it is no plain JSON value.
    """
    return _encode(value) if _fast else json.dumps(value)


def indented(value: object, unit: str, margin: str = "") -> str:
    """As ``json.dumps(value, indent=unit)``, for people.

    Args:
        value: a plain JSON value with keys that are strings.
        unit: what each level is indented by.
        margin: what this level is indented by already.
    """
    inner = f"{margin}{unit}"
    if isinstance(value, dict) and value:
        lines = [f"{inner}{dumps(key)}: {indented(item, unit, inner)}" for key, item in value.items()]
        return "{\n" + ",\n".join(lines) + f"\n{margin}}}"
    if isinstance(value, list) and value:
        return "[\n" + ",\n".join(f"{inner}{indented(item, unit, inner)}" for item in value) + f"\n{margin}]"
    return dumps(value)
