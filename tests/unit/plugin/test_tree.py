"""Which directories go inside, and what leaves the import path."""

import os
import sys
from pathlib import Path

import pytest

from pytest_ocirun.errors import ConfigError
from pytest_ocirun.plugin import tree


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with tests, and a neighbour."""
    for name in ("project/tests/deep", "project/src", "other"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "project/tests/test_it.py").touch()
    return tmp_path / "project"


def test_root_directory_is_enough(project: Path) -> None:
    """Arguments below it add nothing."""
    found = tree.directories(str(project), str(project), ["tests", "tests/test_it.py::test_x", "tests/deep"])

    assert found == (str(project),)


def test_start_above_the_root_is_shown(project: Path) -> None:
    """A pytest.ini in tests/ must not hide src/ from who starts pytest in the project."""
    assert tree.directories(str(project / "tests"), str(project), ["tests"]) == (str(project),)


def test_start_elsewhere_is_not_shown(project: Path) -> None:
    """The directory that one happens to be in is no part of the tests."""
    assert tree.directories(str(project), str(project.parent / "other"), [str(project)]) == (str(project),)


def test_arguments_outside_are_shown(project: Path) -> None:
    """Each with its own directory only."""
    other = str(project.parent / "other")

    assert tree.directories(str(project), str(project), ["tests", other]) == (other, str(project))


@pytest.mark.parametrize("root", ["/", "/tmp", "/home", "/usr", "/root"])
def test_broad_root_is_replaced_by_the_arguments(project: Path, root: str) -> None:
    """Pytest may well choose / or a home when there is no ini file."""
    assert tree.directories(root, root, [str(project / "tests")]) == (str(project / "tests"),)


@pytest.mark.parametrize("argument", ["/", "/tmp/test_x.py", "/etc/passwd", "."])
def test_broad_argument_is_refused(argument: str) -> None:
    """Nobody means to show all of /tmp."""
    with pytest.raises(ConfigError, match="holds more than tests"):
        tree.directories("/", "/", [argument])


def test_import_path(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tree's entries go, the interpreter's and ours stay, order and all."""
    own = str(Path(tree.__file__).parents[2])
    before = [str(project), str(project / "src"), own, sys.prefix, "/elsewhere", ""]
    monkeypatch.setattr(sys, "path", list(before))
    monkeypatch.chdir(project)

    taken = tree.take_off_path([str(project), own])

    assert sys.path == [own, sys.prefix, "/elsewhere"]
    assert taken == [str(project), str(project / "src"), str(project)]


def test_imported_modules_are_found(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What had been imported from the tree before the plugin is named."""
    (project / "src" / "eager_module.py").touch()
    monkeypatch.syspath_prepend(str(project / "src"))
    __import__("eager_module")
    try:
        assert tree.imported_from([str(project)]) == ["eager_module"]
    finally:
        del sys.modules["eager_module"]


@pytest.mark.parametrize(
    "argument, expected",
    [
        ("a.py", "/s/a.py"),
        ("a.py::T::t[x::y]", "/s/a.py"),
        ("/x/../y/a.py::t", "/y/a.py"),
        ("d/", "/s/d"),
        ("a.py::t[a/b]", "/s/a.py"),
    ],
)
def test_argument_path(argument: str, expected: str) -> None:
    """Node ids are files to the host."""
    assert tree.argument_path(argument, "/s") == expected
    assert os.path.isabs(expected)
