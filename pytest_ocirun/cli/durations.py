"""Lengths of time as people write them. Must not know: what they are for."""

from __future__ import annotations

from pytest_ocirun.cli.options import Usage

_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
_LONGEST = 1_000_000  # poll(2) takes milliseconds as an int


def seconds(text: str, what: str) -> float:
    """Read a length of time.

    Args:
        text: seconds as ``10`` or ``0.5``, or numbers with units in a row, as ``1m30s`` or ``250ms``.
        what: whose value it is, for the message.

    Raises:
        Usage: it is none, or longer than eleven days.
    """
    total, rest = 0.0, text
    while rest:
        digits = rest[: len(rest) - len(rest.lstrip("0123456789."))]
        rest = rest[len(digits) :]
        unit = rest[: len(rest) - len(rest.lstrip("hmsun"))]
        rest = rest[len(unit) :]
        if (
            not digits.strip(".")
            or digits.count(".") > 1
            or (unit or "s") not in _UNITS
            or (not unit and digits != text)
        ):
            raise _wrong(text, what)
        total += float(digits) * _UNITS[unit or "s"]
    if not text or total > _LONGEST:
        raise _wrong(text, what)
    return total


def _wrong(text: str, what: str) -> Usage:
    return Usage(f"{what}: expected a length of time such as 10, 0.5, 250ms or 1m30s, got {text!r}")
