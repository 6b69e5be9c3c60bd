"""The house of docs/architecture.md: who may import whom, and where heavy dependencies live."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import pytest_ocirun

_PACKAGE = Path(pytest_ocirun.__file__).parent
_NAME = _PACKAGE.name
_ROOT = Path(__file__).parents[2]
_MODULES = sorted(_PACKAGE.rglob("*.py"))

_MAY_IMPORT = {
    "": set[str](),
    "errors": set[str](),
    "linux": {"errors"},
    "oci": {"errors"},
    "runtime": {"oci", "linux", "errors"},
    "images": {"oci", "linux", "errors"},
    "network": {"oci", "linux", "errors"},
    "engine": {"images", "network", "runtime", "oci", "linux", "errors"},
    "plugin": {"engine", "images", "network", "runtime", "oci", "linux", "errors"},
    "cli": {"engine", "images", "network", "runtime", "oci", "linux", "errors"},
    "agent": set[str](),
}
"""What each package may import besides itself and the version; ``plugin`` also ``agent.wire``."""

_HOMES = {
    "pytest": ("plugin/", "agent/"),
    "_pytest": ("plugin/", "agent/"),
    "ctypes": ("linux/", "agent/kernel.py"),
    "pyroute2": ("network/netlink.py",),
    "pyseccomp": ("runtime/seccomp.py",),
    "filelock": ("images/store.py", "network/pool.py"),
}


class Import(NamedTuple):
    """One imported module, by its absolute name, where it stands."""

    name: str
    where: str
    runtime: bool


def _imports(path: Path) -> Iterator[Import]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    typing_only = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and "TYPE_CHECKING" in ast.unparse(block.test)
        for statement in block.body
        for node in ast.walk(statement)
    }
    for node in ast.walk(tree):
        where = f"{path.relative_to(_PACKAGE.parent)}:{getattr(node, 'lineno', 0)}"
        match node:
            case ast.Import(names=names):
                for alias in names:
                    yield Import(alias.name, where, id(node) not in typing_only)
            case ast.ImportFrom(module=module, names=names, level=level):
                base = _absolute(path, module, level)
                for alias in names:
                    yield Import(f"{base}.{alias.name}", where, id(node) not in typing_only)
            case _:
                pass


def _absolute(path: Path, module: str | None, level: int) -> str:
    if not level:
        return module or ""
    above = path.relative_to(_PACKAGE.parent).parts[:-level]
    return ".".join((*above, *((module,) if module else ())))


def _package(name: str) -> str:
    """``linux`` of ``pytest_ocirun.linux.mount.mount``; empty for the version."""
    part = [*name.split("."), ""][1]
    return part if part in _MAY_IMPORT else ""


def _breaches(path: Path) -> Iterator[str]:
    parts = path.relative_to(_PACKAGE).with_suffix("").parts
    own = parts[0] if parts[0] != "__init__" else ""
    assert own in _MAY_IMPORT, f"{path}: not a package that docs/architecture.md knows"
    for found in _imports(path):
        if found.name.split(".")[0] != _NAME:
            continue
        other = _package(found.name)
        allowed = other in {"", own} or other in _MAY_IMPORT[own]
        wire = own == "plugin" and found.name.startswith(f"{_NAME}.agent.wire")
        if not allowed and not wire:
            yield f"{found.where}: {own} must not import {found.name}"


def _squatters(path: Path) -> Iterator[str]:
    relative = path.relative_to(_PACKAGE).as_posix()
    for found in _imports(path):
        homes = _HOMES.get(found.name.split(".")[0])
        if homes and found.runtime and not relative.startswith(homes):
            yield f"{found.where}: {found.name} is imported in {' and '.join(homes)} only"


@pytest.mark.parametrize("path", _MODULES, ids=lambda path: path.relative_to(_PACKAGE).as_posix())
def test_imports_go_down_only(path: Path) -> None:
    """No module imports a package above or beside its own."""
    assert list(_breaches(path)) == []


@pytest.mark.parametrize("path", _MODULES, ids=lambda path: path.relative_to(_PACKAGE).as_posix())
def test_heavy_dependencies_have_one_home(path: Path) -> None:
    """Each is imported in its home and nowhere else."""
    assert list(_squatters(path)) == []


@pytest.mark.parametrize("path", _MODULES, ids=lambda path: path.relative_to(_PACKAGE).as_posix())
def test_modules_say_what_they_are_for(path: Path) -> None:
    """A module begins with its purpose, and is short enough to be read in one go."""
    text = path.read_text(encoding="utf-8")

    assert ast.get_docstring(ast.parse(text)), f"{path} has no docstring"
    assert text.count("\n") <= 400


def test_the_page_draws_the_same_house() -> None:
    """docs/architecture.md names the packages and the homes that this test holds."""
    page = " ".join((_ROOT / "docs/architecture.md").read_text(encoding="utf-8").split())
    rows = set(re.findall(r"\| `(\w+)` \|", page))

    assert rows | {"network"} == set(_MAY_IMPORT) - {""}
    for name in ("ctypes", "pyseccomp", "filelock"):
        assert f"{name} in `{_HOMES[name][0].rstrip('/')}`" in page


@pytest.mark.parametrize(
    "where, text, complaint",
    [
        ("linux/x.py", "from pytest_ocirun.runtime import plan", "linux must not import pytest_ocirun.runtime.plan"),
        ("oci/x.py", "def f():\n    from ..linux import mount", "oci must not import pytest_ocirun.linux.mount"),
        ("images/x.py", "import pytest_ocirun.runtime", "images must not import pytest_ocirun.runtime"),
        ("plugin/x.py", "from pytest_ocirun.agent import worker", "plugin must not import"),
        ("agent/x.py", "from pytest_ocirun import errors", "agent must not import pytest_ocirun.errors"),
        ("runtime/x.py", "import ctypes", "ctypes is imported in linux/"),
        ("engine/x.py", "def f():\n    from pytest import fixture", "pytest.fixture is imported in"),
    ],
)
def test_the_check_sees_a_breach(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str, text: str, complaint: str
) -> None:
    """Every kind of wrong import is caught, at the top and inside functions."""
    house = tmp_path / _NAME
    (house / where).parent.mkdir(parents=True)
    (house / where).write_text(text, encoding="utf-8")
    monkeypatch.setattr(f"{__name__}._PACKAGE", house)

    assert complaint in "\n".join([*_breaches(house / where), *_squatters(house / where)])


@pytest.mark.parametrize("text", ["from pytest_ocirun.agent.wire import Frame", "from pytest_ocirun.agent import wire"])
def test_the_plugin_may_import_the_wire(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """The one file that both sides share."""
    path = tmp_path / _NAME / "plugin/x.py"
    path.parent.mkdir(parents=True)
    path.write_text(text, encoding="utf-8")
    monkeypatch.setattr(f"{__name__}._PACKAGE", tmp_path / _NAME)

    assert list(_breaches(path)) == []
