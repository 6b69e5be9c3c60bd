"""Prints how fast containers are here, beside runc and others. Nothing is asserted about time."""

import argparse
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple

from tests.benchmarks import cold, execs, lifecycle, sessions
from tests.benchmarks.measure import Row, by_phase, interleave, phases, table


class Section(NamedTuple):
    """One table.

    Attributes:
        title: what stands above it.
        rows: gives what is measured.
        base: the row that the others are compared with, if it could be measured; else the first one.
        block: the most samples of a row in one go.
        paused: whether to idle before each sample.
        by_phase: whether the phases are what matters.
        alternate: whether to change to the next row after each sample, in as many more rounds.
        units: rows that the others are compared with too, in a table of its own.
    """

    title: str
    rows: Callable[[Path], AbstractContextManager[list[Row]]]
    base: str
    block: int = 100
    paused: bool = False
    by_phase: bool = False
    alternate: bool = False
    units: tuple[str, ...] = ()


SECTIONS = {
    "lifecycle": Section("create + exec /bin/true + delete", lifecycle.rows, "runc run", alternate=True),
    "back-to-back": Section("the same, each many times without a pause", lifecycle.rows, "runc run"),
    "paused": Section("the same, idle before each", lifecycle.rows, "runc run", paused=True),
    "exec": Section("exec /bin/true in a running container", execs.rows, "nsenter"),
    "cold": Section("run /bin/true, a cold process each", cold.run_rows, "runc run", block=5),
    "verbs": Section(
        "each verb, a cold process each", cold.verb_rows, "runc", block=2, by_phase=True, units=(cold.PYTHON,)
    ),
    "start": Section("pytest's start, one test", sessions.start_rows, "pytest -p no:ocirun", block=2),
    "suite": Section("500 trivial tests in 10 files", sessions.suite_rows, "plain", block=1),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the sections that are asked for, and print a table for each; returns 1 if a row failed."""
    names = ", ".join(SECTIONS)
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=f"of {names} (default: all)")
    parser.add_argument("--rounds", type=int, default=10, help="how often to come back to each row (default: 10)")
    parser.add_argument("--block", type=int, default=10, help="samples of a row in one go, at most (default: 10)")
    parser.add_argument("--pause", type=float, default=0.05, help="idle seconds of section paused (default: 0.05)")
    parser.add_argument("--only", metavar="TEXT", help="only rows whose name contains this")
    parser.add_argument("--phases", action="store_true", help="also print the medians of each phase")
    options = parser.parse_args(argv)
    unknown = sorted(set(options.sections) - set(SECTIONS))
    if unknown:
        parser.error(f"no section {', '.join(unknown)}; there are {names}")
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    print(f"Linux {os.uname().release}, {os.cpu_count()} processors, load {load}, Python {sys.version.split()[0]}")
    failed: list[str] = []
    for name in options.sections or SECTIONS:
        with tempfile.TemporaryDirectory(prefix="bench-", dir="/var/tmp") as scratch:
            failed += _measure(SECTIONS[name], Path(scratch), options)
    return 1 if failed else 0


def _measure(section: Section, scratch: Path, options: argparse.Namespace) -> list[str]:
    scratch.chmod(0o711)
    pause = options.pause if section.paused else 0.0
    with section.rows(scratch) as offered:
        rows = [row for row in offered if options.only is None or options.only in row.name]
        block = 1 if section.alternate else min(options.block, section.block)
        rounds = options.rounds * (options.block if section.alternate else 1)
        failed = interleave(rows, rounds=rounds, block=block, pause=pause)
    print("\n".join(["", *failed]) if failed else "", end="")
    measured = [row for row in rows if row.times]
    if measured:
        base = next((row for row in measured if row.name == section.base), measured[0])
        title = f"{section.title}, {pause * 1e3:.0f} ms" if pause else section.title
        for unit in (base, *(row for row in measured if row.name in section.units)):
            print((by_phase if section.by_phase else table)(title, measured, base=unit), flush=True)
        if options.phases and not section.by_phase and any(len(row.times[0]) > 1 for row in measured):
            print(phases(title, measured), flush=True)
    return failed


if __name__ == "__main__":
    sys.exit(main())
