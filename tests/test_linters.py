"""ruff and mypy as tests, over the package and the suite. A missing tool skips here and fails in CI."""

import subprocess
import sys
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[1]


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [
        pytest.param(("ruff", "check", "--quiet", "--output-format=concise"), id="ruff-check"),
        pytest.param(("ruff", "format", "--check", "--quiet"), id="ruff-format"),
        pytest.param(("mypy", "--no-error-summary"), id="mypy-strict"),
    ],
)
def test_linter_is_content(command: tuple[str, ...]) -> None:
    """The whole checkout is clean under the rules of pyproject.toml."""
    tool, *rest = command
    known = subprocess.run([sys.executable, "-P", "-m", tool, "--version"], capture_output=True, check=False)
    if known.returncode:
        pytest.skip(f"{tool} is not installed: pip install '.[test]'")
    done = subprocess.run(
        [sys.executable, "-P", "-m", tool, *rest], capture_output=True, text=True, check=False, cwd=_ROOT
    )

    assert done.returncode == 0, done.stdout + done.stderr
