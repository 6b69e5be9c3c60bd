"""Scores OCI runtimes by the programs of OCI runtime-tools' validation suite.

``python -m tests.validation DIRECTORY ocirun runc crun``. The directory is a built checkout of the suite: programs
``validation/NAME/NAME.t``, ``runtimetest`` and the root file system lie there. Each program runs with each runtime, one
after the other. A program is clean when it exits with 0, no assertion of it fails, and its report names no error: some
programs only print one. ``--show NAME`` prints all that a program said. Exits with 1 if the first runtime is clean in
fewer programs than ``--least``.

Old versions of crun, such as Debian 12's, refuse a hybrid host's cgroup v2 tree and documents of version 1.1 and later:
crun runs without that tree and reads 1.0.2 in their place. A container that shares its mounts with the program leaves
them behind, so every program has a mount namespace of its own.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from tests import clients

_CRUN = """#!/bin/sh
previous=
for word; do
    if [ "$previous" = --bundle ]; then
        sed -i 's/"ociVersion": "1[.][0-9.]*"/"ociVersion": "1.0.2"/' "$word/config.json"
    fi
    previous=$word
done
exec {path} "$@"
"""
_HYBRID = "/sys/fs/cgroup/unified"
_SECONDS = 120
_FAILED = re.compile(r"^\s*not ok\b(?!.*# TODO)", re.MULTILINE)
_PASSED = re.compile(r"^\s*ok\b", re.MULTILINE)
_ERROR = re.compile(r"^\s*\"?error\"?: *\"?(?P<text>[^\"\n].*)$", re.MULTILINE)


class Outcome(NamedTuple):
    """What a program made of a runtime.

    Attributes:
        code: its exit status; -1 if it had to be killed.
        passed: how many assertions held.
        failed: how many did not.
        reported: whether it asserted nothing and printed an error.
        text: all that it said.
    """

    code: int
    passed: int
    failed: int
    reported: bool
    text: str

    @property
    def clean(self) -> bool:
        """Whether nothing is wrong."""
        return not (self.code or self.failed or self.reported)

    def __str__(self) -> str:
        wrong = [f"exit {self.code}"] if self.code else []
        wrong += [f"{self.failed} failed"] if self.failed else []
        wrong += ["error"] if self.reported else []
        return ", ".join(wrong) or "clean"


def main(argv: Sequence[str] | None = None) -> int:
    """Run all programs with all runtimes, print a table, and return the exit status."""
    parser = argparse.ArgumentParser(description="score OCI runtimes by runtime-tools' validation suite")
    parser.add_argument("directory", type=Path, help="a built checkout of the suite")
    parser.add_argument("runtimes", nargs="+", help="ocirun, or another runtime's name")
    parser.add_argument("--only", action="append", help="run only this program")
    parser.add_argument("--show", action="store_true", help="print what the programs say")
    parser.add_argument("--least", type=int, default=0, help="how many programs must be clean with the first runtime")
    given = parser.parse_args(argv)
    clean = dict.fromkeys(given.runtimes, 0)
    names = list(_programs(given.directory, given.only))
    with tempfile.TemporaryDirectory(prefix="validation-", dir="/var/tmp") as scratch:
        paths = {name: _entry(name, Path(scratch)) for name in given.runtimes}
        print(f"{'program':32}", *(f"{name:24}" for name in given.runtimes))
        for name in names:
            outcomes = {runtime: run(given.directory, name, path) for runtime, path in paths.items()}
            print(f"{name:32}", *(f"{outcome!s:24}" for outcome in outcomes.values()), flush=True)
            for runtime, outcome in outcomes.items():
                clean[runtime] += outcome.clean
                if given.show:
                    print(f"--- {name} with {runtime}\n{outcome.text}")
    print(f"{f'clean, of {len(names)}':32}", *(f"{count:<24}" for count in clean.values()))
    return 1 if clean[given.runtimes[0]] < given.least else 0


def _programs(directory: Path, only: Sequence[str] | None) -> Iterator[str]:
    for path in sorted(directory.glob("validation/*/*.t")):
        if not only or path.stem in only:
            yield path.stem


def _entry(runtime: str, scratch: Path) -> str:
    """The program to call for a runtime."""
    path = clients.program(runtime)
    if runtime != "crun":
        return path
    wrapper = scratch / runtime
    wrapper.write_text(_CRUN.format(path=path))
    wrapper.chmod(0o755)
    return str(wrapper)


def run(directory: Path, name: str, runtime: str) -> Outcome:
    """Run one program with one runtime; what they mount is gone afterwards."""
    hide = f"umount {_HYBRID}; " if runtime.endswith("/crun") and os.path.ismount(_HYBRID) else ""
    # crun 1.8 makes the container's user the owner of its stdin, which is the programs' /dev/null.
    null = 'mknod -m 666 "$TMPDIR/null" c 1 3; mount --bind "$TMPDIR/null" /dev/null; '
    script = f'{null}{hide}exec timeout --kill-after=5 {_SECONDS} "$0"'
    with tempfile.TemporaryDirectory(prefix="validation-", dir="/var/tmp") as scratch:
        done = subprocess.run(
            ["unshare", "--mount", "sh", "-c", script, directory.absolute() / f"validation/{name}/{name}.t"],
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            cwd=directory,
            env={**os.environ, "RUNTIME": runtime, "TMPDIR": scratch},
        )
    passed, failed = len(_PASSED.findall(done.stdout)), len(_FAILED.findall(done.stdout))
    reported = passed + failed == 0 and bool(_ERROR.search(done.stdout))
    return Outcome(done.returncode, passed, failed, reported, done.stdout)


if __name__ == "__main__":
    sys.exit(main())
