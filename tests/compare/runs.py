"""One run of a suite, plain or inside a container, and what its reporters were told."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

from tests.requires import SBIN_PATH

_OBSERVER = Path(__file__).parent / "observer"
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_TIMEOUT = 600
# Text is encoded alike, and sets have one order.
_SAME = {"LANG": "C.UTF-8", "PYTHONHASHSEED": "0"}


class Observed(NamedTuple):
    """What a run came to.

    Attributes:
        told: what the observer wrote down.
        text: the terminal's output.
    """

    told: dict[str, Any]
    text: str


def plain(tree: Path) -> Observed:
    """``pytest`` as this Python's user runs it, with the tree's own module in front."""
    return _run([_pytest()], tree, _environment(f"{_OBSERVER}:{tree / 'src'}"))


def inside(tree: Path, image: str) -> Observed:
    """The same in a container of ``image``: the tree's module is importable in there, and only there."""
    arguments = [f"--ocirun-image={image}", f"--ocirun-env=PYTHONPATH={tree / 'src'}"]
    arguments += [f"--ocirun-env={name}={value}" for name, value in _SAME.items()]
    return _run([_pytest(), *arguments], tree, _environment(str(_OBSERVER)))


def chrooted(tree: Path, rootfs: Path) -> Observed:
    """``pytest`` as the user of that system runs it: its own Python and pytest, a changed root, no container.

    Args:
        tree: below ``rootfs`` at the path where it also lies on the host, so that both see the same names.
        rootfs: where the system's files lie.
    """
    observer, result = rootfs / "observer", rootfs / "observed.json"
    observer.mkdir(exist_ok=True)
    for file in _OBSERVER.glob("*.py"):
        (observer / file.name).write_bytes(file.read_bytes())
    own = Path("/") / tree.relative_to(rootfs)
    environment = _environment(f"/observer:{own / 'src'}")
    environment |= {"PATH": _PATH, "OCIRUN_OBSERVED": f"/{result.name}"}
    pairs = [f"{name}={value}" for name, value in environment.items()]
    return _finish(["chroot", str(rootfs), "env", "-i", "-C", str(own), *pairs, "pytest-3"], result)


def _pytest() -> str:
    """The script, not ``python -m pytest``: the latter would make the suite's folder importable on the host."""
    return os.path.join(os.path.dirname(sys.executable), "pytest")


def _environment(python_path: str) -> dict[str, str]:
    """The same few variables for every run; what belongs to a suite around this one stays out."""
    kept = {"XDG_RUNTIME_DIR", "XDG_CACHE_HOME", "OCIRUN_TEST_SESSION"}
    return {
        **{name: value for name, value in os.environ.items() if name in kept},
        "PATH": SBIN_PATH,
        "HOME": os.path.expanduser("~"),
        **_SAME,
        "PYTEST_PLUGINS": "ocirun_observer",
        "PYTHONPATH": python_path,
    }


def _run(command: list[str], tree: Path, environment: dict[str, str]) -> Observed:
    result = tree.parent / "observed.json"
    return _finish(command, result, cwd=tree, env={**environment, "OCIRUN_OBSERVED": str(result)})


def _finish(command: list[str], result: Path, **options: Any) -> Observed:
    result.unlink(missing_ok=True)
    done = subprocess.run(
        command,
        check=False,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="backslashreplace",
        timeout=_TIMEOUT,
        **options,
    )
    if not result.exists():
        raise RuntimeError(f"{' '.join(command)} exited with {done.returncode} and reported nothing:\n{done.stdout}")
    return Observed(json.loads(result.read_text(encoding="utf-8")), done.stdout)
