"""Runs the test suites of pluggy and iniconfig plainly and inside containers, and compares what pytest reported.

A third suite, of our own, adds every way in which a test can end: those two only pass.

What is compared, for every node id and phase: outcome, xfail reason, skip reason, traceback, captured output,
properties, location; for the run: order, warnings, collection errors, deselection, exit status. What must not differ
does not differ: the reference of each image is a plain run with *that image's* Python and pytest.

=====================  ==================================================================================
image                  the plain run outside that it is compared with
=====================  ==================================================================================
host                   ``pytest`` of this virtual environment
the Debian tarball     ``pytest-3`` of the same tarball, unpacked by tar and entered by chroot: the same Python 3.11
                       and pytest 7.2, but no container and nothing of ours (needs root)
the Debian tarball     ``pytest`` of this virtual environment, another Python and pytest: node ids, order and
                       outcomes of all phases only, as tracebacks and warnings are worded by the version (not
                       for our own suite: versions of pytest differ in what they make of its misdeeds)
=====================  ==================================================================================

Each suite must import the module that lies beside it and not the one that pytest came with. As with any src layout
that is not installed, PYTHONPATH names ``src``: for the plain run in the environment, for the other by
``--ocirun-env``, so the host never imports it. A test that is added to each suite records which module, Python
and pytest it ran with, and takes part in the comparison. pluggy's ``testing/benchmark.py`` needs pytest-benchmark
and is not collected by default, by neither side.

Exits with 1 if anything differs. ``--image host`` compares only that image.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

sys.path.append(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from tests import images
from tests.compare import runs
from tests.compare.differences import Told, count, differences, differing_tests, witness
from tests.compare.suites import SUITES, Suite, unpack

IMAGES = ("host", "debian")
_ROW = "{:10} {:34} {:>6} {:>6} {:>10}"


def main(argv: Sequence[str] | None = None) -> int:
    """Compare, print a table, and return the exit status."""
    parser = argparse.ArgumentParser(description="compare suites run plainly and inside containers")
    parser.add_argument("--image", choices=IMAGES, action="append", help="only this image (default: all)")
    chosen = parser.parse_args(argv).image or IMAGES
    print(_ROW.format("suite", "image, beside which plain run", "tests", "equal", "different"))
    named: list[str] = []
    with tempfile.TemporaryDirectory(prefix="compare-", dir="/var/tmp") as scratch:
        Path(scratch).chmod(0o755)
        for suite, title, outside, inside, same_python in _pairs(Path(scratch), chosen):
            found = differences(outside, inside, same_python=same_python)
            found += _unexpected(suite, inside)
            tests, wrong = count(outside), differing_tests(found, outside)
            print(_ROW.format(suite.name, title, tests, tests - wrong, len(found)), flush=True)
            named += [f"{suite.name}, {title}: {line}" for line in found]
    print("\n".join(["", *named]) if named else "\nno difference")
    return 1 if named else 0


def _pairs(scratch: Path, chosen: Sequence[str]) -> Iterator[tuple[Suite, str, Told, Told, bool]]:
    rootfs, tarball = scratch / "rootfs", None
    if "debian" in chosen:
        tarball = images.debian(("python3", "python3-pytest"))
        rootfs.mkdir()
        subprocess.run(["tar", "-C", rootfs, "-xf", tarball], check=True)
    for suite in SUITES:
        tree = unpack(suite, scratch)
        plain = runs.plain(tree).told
        if "host" in chosen:
            yield suite, "host / this environment", plain, runs.inside(unpack(suite, scratch), "host").told, True
        if tarball is not None:
            inside = runs.inside(unpack(suite, scratch), str(tarball)).told
            below = rootfs / scratch.relative_to("/")
            below.mkdir(parents=True, exist_ok=True)
            chrooted = runs.chrooted(unpack(suite, below), rootfs).told
            yield suite, "Debian tarball / chroot", chrooted, inside, True
            if suite.digest:
                yield suite, "Debian tarball / this environment", plain, inside, False


def _unexpected(suite: Suite, inside: Told) -> list[str]:
    """A comparison of the wrong module, or of nothing, says nothing."""
    found = []
    module = witness(inside).get("module", "none")
    if f"{suite.name}-{suite.version}/src/{suite.name}/" not in module:
        found.append(f"the module that was tested inside is {module}")
    if count(inside) <= 1 or inside["exit"] != suite.exit:
        found.append(f"{count(inside)} tests ran inside, pytest exited with {inside['exit']}, expected {suite.exit}")
    return found


if __name__ == "__main__":
    sys.exit(main())
