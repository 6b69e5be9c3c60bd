"""Settings as users write them, parsed: sizes, numbers, mounts, variables. Knows no pytest and no precedence.

Every parser takes what to call the setting in an error, and the value; a wrong one raises ConfigError naming both.
"""

from __future__ import annotations

import math
import os
import re
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_ocirun.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable

_SIZE = re.compile(r"(\d{1,15})([kmgt]?)(i?b)?", re.ASCII)
_FACTORS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """A directory or file of the host inside the container."""

    source: str
    destination: str
    readonly: bool


def _wrong(name: str, value: object, expected: str) -> ConfigError:
    return ConfigError(f"{name}: {value!r} is not {expected}")


def size(name: str, value: object, *, lowest: int = 1) -> int:
    """Parse ``512m``, ``2g`` or a number of bytes."""
    match = _SIZE.fullmatch(str(value).strip().lower()) if type(value) in {int, str} else None
    if match is None:
        raise _wrong(name, value, "a size; write it as 512m or 2g")
    count = int(match.group(1)) * _FACTORS[match.group(2)]
    if count < lowest:
        raise _wrong(name, value, f"enough; the least is {human(lowest)}")
    return count


def human(count: int) -> str:
    """Write a number of bytes as a user would."""
    for unit in ("t", "g", "m", "k"):
        if count >= _FACTORS[unit] and count % _FACTORS[unit] == 0:
            return f"{count // _FACTORS[unit]}{unit}"
    return str(count)


def count(name: str, value: object) -> int:
    """Parse a positive whole number."""
    text = str(value).strip() if type(value) in {int, str} else ""
    if not (text.isascii() and text.isdigit() and int(text[:12]) > 0 and len(text) <= 9):
        raise _wrong(name, value, "a positive whole number")
    return int(text)


def number(name: str, value: object, what: str) -> float:
    """Parse a positive number, whole or not."""
    try:
        parsed = float(value) if type(value) in {int, float, str} else math.nan  # type: ignore[arg-type]  # just checked
    except ValueError:
        parsed = math.nan
    if not math.isfinite(parsed) or parsed <= 0:
        raise _wrong(name, value, what)
    return parsed


def choice(name: str, value: object, words: Iterable[str]) -> str:
    """Accept one of a few words."""
    known = tuple(words)
    if value not in known:
        raise _wrong(name, value, " or ".join(known))
    return str(value)


def words(name: str, value: str) -> tuple[str, ...]:
    """Split shell words."""
    try:
        return tuple(shlex.split(value))
    except ValueError as error:
        raise ConfigError(f"{name}: {value!r} cannot be split into words: {error}") from error


def mount(name: str, value: str) -> Mount:
    """Parse ``SRC:DST[:ro|rw]``; the source must exist, the destination is absolute."""
    source, _, rest = value.partition(":")
    destination, _, mode = rest.partition(":")
    if not source or not destination.startswith("/") or mode not in {"", "ro", "rw"}:
        raise _wrong(name, value, "SRC:DST[:ro|rw] with an absolute DST")
    path = os.path.abspath(os.path.expanduser(source))
    if not os.path.exists(path):
        raise ConfigError(f"{name}: {value!r}: there is no {path} on this host")
    parts = os.path.normpath(destination)
    if ".." in destination.split("/") or parts == "/" or parts.split("/")[1] in {"proc", "sys", "dev"}:
        raise _wrong(name, value, "a destination that may be mounted on (not /, /proc, /sys, /dev, and no ..)")
    return Mount(source=path, destination=parts, readonly=mode != "rw")


def variable(name: str, value: str) -> tuple[str, str]:
    """Parse ``NAME=VALUE``, or ``NAME`` for the host's own value of it."""
    key, equals, content = value.partition("=")
    if not _VARIABLE.fullmatch(key) or "\0" in content:
        raise _wrong(name, value, "NAME or NAME=VALUE")
    if not equals:
        if key not in os.environ:
            raise ConfigError(f"{name}: {key!r} is not set on this host; write {key}=VALUE")
        content = os.environ[key]
    return key, content
