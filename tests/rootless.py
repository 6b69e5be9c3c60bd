"""Run the rootless lane: ``python -P tests/rootless.py [PYTEST ARGUMENT...]``.

Whoever starts it, the tests run as a user without any right, from a copy of the suite that is this user's.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(_ROOT))

from tests import unprivileged  # noqa: E402 - the path comes first

_SUITE = ("tests", "docs", "conftest.py", "pyproject.toml", "README.md", "LICENSE")
_PASSED_ON = ("CI", "OCIRUN_STRICT", "OCIRUN_SHARED", "OCIRUN_EXPECT_INSTALLED", "XDG_CACHE_HOME")


def main(arguments: list[str]) -> int:
    """Copy the suite, become the user, run pytest; its exit status."""
    with unprivileged.prepared() as user:
        suite = user.home / "suite"
        suite.mkdir()
        for name in _SUITE:
            source = _ROOT / name
            if source.is_dir():
                shutil.copytree(source, suite / name, ignore=shutil.ignore_patterns("__pycache__"))
            elif source.exists():
                shutil.copy(source, suite / name)
        if not os.geteuid():
            subprocess.run(["chown", "-R", f"{user.uid}:{user.uid}", suite], check=True)
        temporary = user.home / "tmp"
        environment = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
        command = [str(user.python), "-P", "-m", "pytest", f"--basetemp={temporary}", *arguments]
        return user.call(command, cwd=suite, env={"OCIRUN_LANE": "rootless", **environment})


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
