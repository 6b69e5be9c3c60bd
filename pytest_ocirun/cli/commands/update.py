"""``ocirun update``: change the limits of a container."""

from __future__ import annotations

from pytest_ocirun.cli.options import Option, Usage, Verb

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pytest_ocirun.cli.options import Given
    from pytest_ocirun.cli.report import Journal
    from pytest_ocirun.cli.settings import Settings
    from pytest_ocirun.oci.runtime import IntelRdt, Resources

_NUMBERS = (
    ("cpu-period", "cpu", "period", "length of a period in microseconds"),
    ("cpu-quota", "cpu", "quota", "processor time in microseconds in each period; -1 for no limit"),
    ("cpu-burst", "cpu", "burst", "processor time in microseconds that may be saved up for later periods"),
    ("cpu-share", "cpu", "shares", "share of the processor beside other containers, 1024 by default"),
    ("cpu-rt-period", "cpu", "realtimePeriod", "length of a real-time period in microseconds"),
    ("cpu-rt-runtime", "cpu", "realtimeRuntime", "real-time processor time in microseconds in each period"),
    ("cpu-idle", "cpu", "idle", "1 to run only when nothing else does, 0 otherwise"),
    ("pids-limit", "pids", "limit", "most processes and threads; -1 for no limit"),
    ("blkio-weight", "blockIO", "weight", "share of block devices, 10 to 1000"),
)
_SIZES = (
    ("memory", "limit", "memory in bytes, or as 512m; -1 for no limit"),
    ("memory-reservation", "reservation", "memory that is kept as long as others need none"),
    ("memory-swap", "swap", "memory and swap together; -1 for no limit"),
    ("kernel-memory", "kernel", "does nothing: the kernel has no such limit any more"),
    ("kernel-memory-tcp", "kernelTCP", "memory of the kernel for TCP; does nothing on cgroup v2"),
)
_LISTS = (
    ("cpuset-cpus", "cpus", "processors to run on, as 0-2,5"),
    ("cpuset-mems", "mems", "memory nodes to use, as 0-1"),
)
_NAMES = tuple(row[0] for row in (*_NUMBERS, *_SIZES, *_LISTS))
_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40, "p": 1 << 50}

VERB = Verb(
    "update",
    "CONTAINER-ID",
    "change the limits of a container",
    Option(
        "resources",
        "read the limits from this file, or standard input, as linux.resources of a config.json; all options but "
        "those of Intel RDT are left aside then",
        short="r",
        value="FILE|-",
    ),
    *(Option(name, text, value="NUMBER") for name, _group, _key, text in _NUMBERS),
    *(Option(name, text, value="BYTES") for name, _key, text in _SIZES),
    *(Option(name, text, value="LIST") for name, _key, text in _LISTS),
    Option("l3-cache-schema", "Intel RDT: the schema of the L3 cache", value="SCHEMA"),
    Option("mem-bw-schema", "Intel RDT: the schema of memory bandwidth", value="SCHEMA"),
)


def run(given: Given, settings: Settings, journal: Journal) -> int:
    """Change the limits."""
    from pytest_ocirun.runtime.update import update, without_zeros
    from pytest_ocirun.runtime.validate_resources import resource_warnings

    file = given.text("resources")
    change = without_zeros(_read(file) if file else _change(given))
    for name in [name for name in _NAMES if given.has(name)] if file else ():
        journal.warning(f"--{name} is left aside: --resources says all")
    for warning in resource_warnings(change, "$"):
        journal.warning(warning)
    update(settings.root, given.arguments[0], change, _schemas(given))
    return 0


def _schemas(given: Given) -> IntelRdt | None:
    cache, bandwidth = given.text("l3-cache-schema"), given.text("mem-bw-schema")
    if not cache and not bandwidth:
        return None
    from pytest_ocirun.oci.runtime import IntelRdt
    from pytest_ocirun.runtime.validate_resources import check_rdt

    rdt = IntelRdt(l3_cache_schema=cache, mem_bw_schema=bandwidth)
    check_rdt(rdt, "$.linux.intelRdt")
    return rdt


def _change(given: Given) -> Resources:
    from pytest_ocirun.oci.codec import decode
    from pytest_ocirun.oci.runtime import Resources

    plain: dict[str, dict[str, Any]] = {}
    for name, group, key, _text in _NUMBERS:
        if given.has(name):
            plain.setdefault(group, {})[key] = whole(given.text(name), f"--{name}")
    for name, key, _text in _SIZES:
        if given.has(name):
            plain.setdefault("memory", {})[key] = size(given.text(name), f"--{name}")
    for name, key, _text in _LISTS:
        if given.text(name):
            plain.setdefault("cpu", {})[key] = given.text(name)
    return decode(Resources, plain)


def _read(file: str) -> Resources:
    import os

    from pytest_ocirun.errors import ConfigError
    from pytest_ocirun.oci.codec import SIZE_CAP, load
    from pytest_ocirun.oci.runtime import Resources

    name = "standard input" if file == "-" else file
    try:
        with open(0 if file == "-" else file, "rb", closefd=file != "-") as stream:
            text = stream.read(SIZE_CAP + 1)
    except OSError as error:
        raise ConfigError(f"read {name}: {os.strerror(error.errno or 0)}") from error
    return load(Resources, text, name)


def whole(text: str, what: str) -> int:
    """Read a number with or without a sign.

    Raises:
        Usage: it is none.
    """
    digits = text.removeprefix("-")
    if not digits.isascii() or not digits.isdigit() or len(digits) > 20:
        raise Usage(f"{what}: expected a number, got {text!r}")
    return int(text)


def size(text: str, what: str) -> int:
    """Read a number of bytes: ``1048576``, ``512m``, ``1.5GiB``, or -1.

    Raises:
        Usage: it is none.
    """
    if text == "-1":
        return -1
    number = text.lower().removesuffix("b").removesuffix("i")
    unit = number[-1:] if number[-1:] in _UNITS else ""
    number = number.removesuffix(unit)
    before, dot, after = number.partition(".")
    plain = before + after
    if not plain.isascii() or not plain.isdigit() or len(plain) > 20 or (dot and not after):
        raise Usage(f"{what}: expected a number of bytes such as 536870912 or 512m, or -1, got {text!r}")
    return int(before or "0") * _UNITS[unit] + (int(after) * _UNITS[unit] // 10 ** len(after) if dot else 0)
