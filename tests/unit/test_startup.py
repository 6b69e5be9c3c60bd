"""What starting costs: the plugin unused, and each verb of the command line, load nothing heavy.

Import time rules the design (docs/dependencies.md), so the sets are held here and not left to a stopwatch.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import pytest_ocirun

_PACKAGE = Path(pytest_ocirun.__file__).parent
_ENTRY = "pytest_ocirun.plugin.entry"
_HEAVY = {"msgspec", "pyroute2", "pyseccomp", "filelock", "asyncio", "ctypes"}
_OWN_HEAVY = {f"pytest_ocirun.{name}" for name in ("engine", "images", "network", "runtime", "oci", "linux", "agent")}

_MAY_LOAD = {
    *("__future__", "pytest_ocirun", "ctypes", "_ctypes", "json", "_json", "struct", "_struct", "fcntl", "errno"),
    *("socket", "_socket", "select", "selectors", "signal", "stat", "time", "math", "array", "re", "enum"),
    "resource",
    "gc",
}
"""What verbs, and the core they stand on, may load before they know what they will need."""


def _loaded(code: str, *flags: str) -> set[str]:
    """The modules that a new interpreter has loaded after ``code``."""
    start, end = (
        f"import sys; sys.path.append({str(_PACKAGE.parent)!r})",
        "import json; print(json.dumps([*sys.modules]))",
    )
    program = f"{start}\n{code}\n{end}"
    done = subprocess.run(
        [sys.executable, "-I", *flags, "-c", program], capture_output=True, text=True, check=False, cwd="/"
    )
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout))


def _modules_of(folder: str) -> list[str]:
    paths = sorted((_PACKAGE / folder).rglob("*.py"))
    return [".".join(path.relative_to(_PACKAGE.parent).with_suffix("").parts) for path in paths]


def test_the_version_loads_nothing_else() -> None:
    """The package's own __init__ is mounted into containers and imports nothing."""
    assert _loaded("import pytest_ocirun", "-S") - _loaded("", "-S") == {"pytest_ocirun"}


def test_the_unused_plugin_loads_nothing_heavy() -> None:
    """Installed but not asked for, the plugin is one module with options, and pytest's own."""
    before = _loaded("import pytest")
    new = _loaded(f"import pytest, {_ENTRY}") - before

    assert {name for name in new if name.split(".")[0] in _HEAVY} == set()
    assert {name for name in new if name.startswith(tuple(_OWN_HEAVY))} == set()
    assert len(new) <= 6, sorted(new)


@pytest.mark.parametrize("module", [m for name in ("cli", "linux", "oci", "runtime") for m in _modules_of(name)])
def test_verbs_and_core_load_only_the_start_up_path(module: str) -> None:
    """Whatever they need beyond that they import in the function that needs it."""
    new = _loaded(f"import {module}", "-S") - _loaded("import ctypes, json", "-S")

    assert sorted(name for name in new if name.split(".")[0] not in _MAY_LOAD) == []
