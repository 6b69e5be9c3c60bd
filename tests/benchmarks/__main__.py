"""Prints how fast containers are here, beside runc and others. Nothing is asserted about time."""

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.benchmarks import lifecycle
from tests.benchmarks.measure import interleave, phases, table

SECTIONS = ("lifecycle", "paused")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the sections that are asked for, and print a table for each."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=f"of {', '.join(SECTIONS)} (default: all)")
    parser.add_argument("--rounds", type=int, default=10, help="how often to come back to each row (default: 10)")
    parser.add_argument("--block", type=int, default=10, help="samples of a row in one go (default: 10)")
    parser.add_argument("--pause", type=float, default=0.05, help="idle seconds of section paused (default: 0.05)")
    parser.add_argument("--only", metavar="TEXT", help="only rows whose name contains this")
    parser.add_argument("--phases", action="store_true", help="also print the medians of each phase")
    options = parser.parse_args(argv)
    unknown = sorted(set(options.sections) - set(SECTIONS))
    if unknown:
        parser.error(f"no section {', '.join(unknown)}; there are {', '.join(SECTIONS)}")
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    print(f"Linux {os.uname().release}, {os.cpu_count()} processors, load {load}, Python {sys.version.split()[0]}")
    for section in options.sections or SECTIONS:
        with tempfile.TemporaryDirectory(prefix="bench-", dir="/var/tmp") as scratch:
            _lifecycle(section, Path(scratch), options)
    return 0


def _lifecycle(section: str, scratch: Path, options: argparse.Namespace) -> None:
    scratch.chmod(0o711)
    pause = options.pause if section == "paused" else 0.0
    title = "create + exec /bin/true + delete" + (f", idle for {pause * 1e3:.0f} ms before each" if pause else "")
    with lifecycle.rows(scratch) as rows:
        chosen = [row for row in rows if options.only is None or options.only in row.name]
        interleave(chosen, rounds=options.rounds, block=options.block, pause=pause)
    base = next((row for row in chosen if row.name == "runc run"), chosen[0])
    print(table(title, chosen, base=base))
    if options.phases:
        print(phases(title, chosen))


if __name__ == "__main__":
    sys.exit(main())
