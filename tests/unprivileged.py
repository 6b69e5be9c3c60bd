"""A user without any right, who can still reach the interpreter and the packages of whoever runs the suite.

These may lie below a home that nobody else may enter. So root runs each command in a mount namespace of its
own, where such a home holds nothing but the interpreter's and the packages' folders, bound at their places.
A plain user who runs the suite is that user already.
"""

import contextlib
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from subprocess import CompletedProcess

import pytest_ocirun
from tests.leaks import SESSION_VARIABLE
from tests.requires import SBIN_PATH, UNPRIVILEGED_ID

_PACKAGE_PARENT = Path(pytest_ocirun.__file__).parents[1]

_BECOME = """
kept=$1 closed=$2 uid=$3; shift 3
mount -t tmpfs -o mode=755 none /mnt
n=0; for path in $kept; do
    n=$((n + 1)); mkdir "/mnt/$n"; mount --rbind "$path" "/mnt/$n"
done
for path in $closed; do mount -t tmpfs -o mode=755 none "$path"; done
n=0; for path in $kept; do
    n=$((n + 1)); mkdir -p "$path"; mount --move "/mnt/$n" "$path"
done
umount /mnt
exec setpriv --reuid "$uid" --regid "$uid" --clear-groups --inh-caps=-all "$@"
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """Who runs a command.

    Attributes:
        uid: the user's and the group's id.
        home: a writable folder of the user's own; ``home / "run"`` is XDG_RUNTIME_DIR.
        python: the running interpreter, which finds pytest and pytest_ocirun for the user as well.
    """

    uid: int
    home: Path
    python: Path

    def run(
        self, args: Sequence[str | Path], *, cwd: Path | None = None, timeout: float = 60, **env: str
    ) -> CompletedProcess[str]:
        """Run ``args`` as the user, with no supplementary groups and an environment of its own."""
        return subprocess.run(
            self._command(args),
            check=False,
            capture_output=True,
            text=True,
            timeout=timeout,
            stdin=subprocess.DEVNULL,
            cwd=cwd or self.home,
            env=self._environment(env),
        )

    def call(self, args: Sequence[str | Path], *, cwd: Path, env: dict[str, str]) -> int:
        """The same with our own output, and no limit of time; the exit status."""
        command, environment = self._command(args), self._environment(env)
        return subprocess.call(command, stdin=subprocess.DEVNULL, cwd=cwd, env=environment)

    def _command(self, args: Sequence[str | Path]) -> list[str]:
        plain = [os.fspath(arg) for arg in args]
        if os.geteuid() == self.uid:
            return plain
        kept, closed = _closed_to(self.uid)
        become = ["unshare", "--mount", "--propagation=private", "sh", "-euc", _BECOME, "sh"]
        return [*become, " ".join(kept), " ".join(closed), str(self.uid), *plain]

    def _environment(self, more: dict[str, str]) -> dict[str, str]:
        own = {
            "PATH": f"{self.python.parent}:{SBIN_PATH}",
            "HOME": str(self.home),
            "LANG": "C.UTF-8",
            "XDG_RUNTIME_DIR": str(self.home / "run"),
        }
        if SESSION_VARIABLE in os.environ:
            own[SESSION_VARIABLE] = os.environ[SESSION_VARIABLE]
        if str(_PACKAGE_PARENT) != sysconfig.get_path("purelib"):
            own["PYTHONPATH"] = str(_PACKAGE_PARENT)
        return own | more


@contextlib.contextmanager
def prepared() -> Iterator[User]:
    """A user with a home that goes away in the end."""
    uid = os.geteuid() or UNPRIVILEGED_ID
    home = Path(tempfile.mkdtemp(prefix="ocirun-user-", dir="/var/tmp"))
    try:
        (home / "run").mkdir(mode=0o700)
        if not os.geteuid():
            for path in (home, home / "run"):
                os.chown(path, uid, uid)
        yield User(uid=uid, home=home, python=Path(sys.executable))
    finally:
        shutil.rmtree(home)


def _closed_to(uid: int) -> tuple[list[str], list[str]]:
    """The folders that the user needs and cannot reach, and the topmost folders that keep it out."""
    kept: list[str] = []
    closed: list[str] = []
    for needed in sorted({sys.prefix, sys.base_prefix, str(_PACKAGE_PARENT)}):
        barrier = next((str(path) for path in _ancestors(needed) if not _enters(uid, path)), None)
        if barrier is not None and not any(needed.startswith(f"{path}/") for path in kept):
            kept.append(needed)
            closed.extend({barrier} - set(closed))
    return kept, closed


def _ancestors(path: str) -> list[Path]:
    return [*reversed(Path(path).parents), Path(path)]


def _enters(uid: int, path: Path) -> bool:
    """Whether a user of that id and group may pass through; access lists are not looked at."""
    status = path.stat()
    shift = 6 if status.st_uid == uid else 3 if status.st_gid == uid else 0
    return bool(status.st_mode >> shift & 1)
