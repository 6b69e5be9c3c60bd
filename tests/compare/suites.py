"""The suites that are compared. Those of others are fetched once, by digest; all are laid out afresh for each run."""

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import NamedTuple

from tests import images


class Suite(NamedTuple):
    """A source tree with tests in it.

    Attributes:
        name: its package, and its module below ``src``.
        version: one whose tests take Debian 12's pytest 7.2 and the newest (pluggy's next asks for pytest 8).
        digest: SHA-256 of the source distribution; empty for a suite of our own, below ``data``.
        exit: what a plain run exits with.
    """

    name: str
    version: str
    digest: str
    exit: int = 0


SUITES = (
    Suite("pluggy", "1.5.0", "2cffa88e94fdc978c4c574f15f9e59b7f4201d439195c3715ca9e2486f1d0cf1"),
    Suite("iniconfig", "2.3.1", "67f4b9c50da0dedf52af349e7749a80a9057a5031199791b906c3bb3ae878960"),
    # Neither of the two fails, skips or warns; this one ends in every way that pytest knows.
    Suite("outcomes", "0", "", exit=1),
)

_OWN = Path(__file__).parent / "data"
_WITNESS = '''\
"""Added by the comparison: which module, Python and pytest this suite really runs with."""

import platform

import pytest
import {module}


def test_witness(record_property):
    record_property("module", {module}.__file__)
    record_property("python", platform.python_version())
    record_property("pytest", pytest.__version__)
'''
WITNESS = "test_witness.py::test_witness"


def fetch(suite: Suite) -> Path:
    """The source distribution, from the cache or by pip.

    Pip builds the metadata of what it downloads, which takes a while and happens once.

    Raises:
        RuntimeError: pip could not get it, or it is not the file that is expected.
    """
    folder = images.cache() / "sdists"
    target = folder / f"{suite.name}-{suite.version}.tar.gz"
    if not target.exists():
        folder.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as part:
            _download(suite, part)
            os.rename(os.path.join(part, target.name), target)
    found = hashlib.sha256(target.read_bytes()).hexdigest()
    if found != suite.digest:
        raise RuntimeError(f"{target}: its SHA-256 is {found}, expected {suite.digest}; remove it to fetch it again")
    return target


def _download(suite: Suite, folder: str) -> None:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:"]
    command += ["--dest", folder, f"{suite.name}=={suite.version}"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed: {done.stderr[-2000:]}")


def unpack(suite: Suite, folder: Path) -> Path:
    """A pristine tree of the suite below ``folder``, in place of any other; its path is always the same."""
    tree = folder / f"{suite.name}-{suite.version}"
    shutil.rmtree(tree, ignore_errors=True)
    if suite.digest:
        with tarfile.open(fetch(suite)) as archive:
            if hasattr(tarfile, "data_filter"):
                archive.extractall(folder, filter="data")
            else:  # Debian 12's own Python; the digest has vouched for the content
                archive.extractall(folder)
    else:
        shutil.copytree(_OWN / suite.name, tree, ignore=shutil.ignore_patterns("__pycache__"))
    witness = tree / "testing" / WITNESS.partition("::")[0]
    witness.write_text(_WITNESS.format(module=suite.name), encoding="utf-8")
    return tree
