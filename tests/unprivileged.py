"""A user without any right, and a Python with pytest and pytest_ocirun that this user can reach.

The interpreter of whoever runs the suite may lie below a home that nobody else may enter, so it is copied,
with the packages beside it. Rootless tests run through it under root and under a plain user alike.
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

import pytest_ocirun
from tests.requires import SBIN_PATH, UNPRIVILEGED_ID

_LEFT_OUT = ("test", "idlelib", "tkinter", "turtledemo", "ensurepip", "site-packages", "__pycache__", "*.a")


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """Who runs a command, and with what.

    Attributes:
        uid: the user's and the group's id.
        home: a writable folder of the user's own; ``home / "run"`` is XDG_RUNTIME_DIR.
        python: an interpreter that the user can run and that finds pytest and pytest_ocirun.
    """

    uid: int
    home: Path
    python: Path

    def run(
        self, args: Sequence[str | Path], *, cwd: Path | None = None, timeout: float = 60, **env: str
    ) -> "Done":
        """Run ``args`` as the user, with no supplementary groups and an environment of its own."""
        own = os.geteuid() == self.uid
        base = {"PATH": f"{self.python.parent}:{SBIN_PATH}", "HOME": str(self.home), "LANG": "C.UTF-8"}
        base["XDG_RUNTIME_DIR"] = str(self.home / "run")
        base.update({name: os.environ[name] for name in ("OCIRUN_TEST_SESSION",) if name in os.environ})
        return subprocess.run(
            args,
            check=False,
            capture_output=True,
            text=True,
            timeout=timeout,
            stdin=subprocess.DEVNULL,
            cwd=cwd or self.home,
            env=base | env,
            user=None if own else self.uid,
            group=None if own else self.uid,
            extra_groups=None if own else [],
        )


Done = subprocess.CompletedProcess[str]


@contextlib.contextmanager
def prepared() -> Iterator[User]:
    """A user and its Python, in a folder that goes away in the end."""
    uid = os.geteuid() or UNPRIVILEGED_ID
    folder = Path(tempfile.mkdtemp(prefix="ocirun-user-", dir="/var/tmp"))
    try:
        folder.chmod(0o755)
        home = folder / "home"
        (home / "run").mkdir(parents=True)
        for path in (home, home / "run"):
            path.chmod(0o700)
            os.chown(path, uid, uid if not os.geteuid() else -1)
        yield User(uid=uid, home=home, python=copy_python(folder / "python"))
    finally:
        shutil.rmtree(folder)


def copy_python(target: Path) -> Path:
    """Copy the base interpreter, and make a virtual environment of this one's packages beside it.

    Returns:
        the environment's interpreter.
    """
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    base, venv = target / "base", target / "venv"
    _copy_tree(Path(sysconfig.get_path("stdlib")), base / "lib" / version, *_LEFT_OUT)
    (base / "bin").mkdir()
    shutil.copy(os.path.realpath(sys.executable), base / "bin" / version)
    for library in Path(sys.base_prefix, "lib").glob("libpython3*.so*"):
        shutil.copy(library, base / "lib" / library.name)
    packages = venv / "lib" / version / "site-packages"
    for source in {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}:
        _copy_tree(Path(source), packages, "*.pth", "__pycache__")
    own = Path(pytest_ocirun.__file__).parent
    _copy_tree(own, packages / own.name, "__pycache__")
    (venv / "bin").mkdir()
    (venv / "bin/python").symlink_to(base / "bin" / version)
    (venv / "pyvenv.cfg").write_text(
        f"home = {base / 'bin'}\ninclude-system-site-packages = false\n", encoding="utf-8"
    )
    return venv / "bin/python"


def _copy_tree(source: Path, target: Path, *left_out: str) -> None:
    """Copy a folder so that everyone may read the copy, whatever the original's modes."""
    shutil.copytree(source, target, ignore=shutil.ignore_patterns(*left_out), dirs_exist_ok=True)
    for folder, _, names in os.walk(target):
        os.chmod(folder, 0o755)
        for name in names:
            path = os.path.join(folder, name)
            os.chmod(path, os.stat(path).st_mode | 0o444)
