"""Paths of cgroups, and what is refused before the file system is touched."""

import pytest

from pytest_ocirun.errors import ConfigError
from pytest_ocirun.runtime.cgroups import tree


@pytest.mark.parametrize(
    "path, expected",
    [
        (None, (False, "ocirun/id1")),
        ("", (False, "ocirun/id1")),
        ("a/b", (False, "ocirun/a/b")),
        ("./a//b/", (False, "ocirun/a/b")),
        ("/a/b", (True, "a/b")),
        ("/ocirun/x", (True, "ocirun/x")),
        ("system.slice:docker:abc", (False, "ocirun/system.slice:docker:abc")),
    ],
)
def test_cgroups_path_is_resolved_as_documented(path: str | None, expected: tuple[bool, str]) -> None:
    """Absent, relative and absolute."""
    assert tree.resolve(path, "id1") == expected


@pytest.mark.parametrize("path", ["..", "a/../b", "/..", "/a/..", "/", "///", "/ocirun", ".", "a\0b", "a\nb"])
def test_paths_that_leave_or_name_no_container_are_refused(path: str) -> None:
    """Neither upwards nor the hierarchy's top nor the shared parent."""
    with pytest.raises(ConfigError):
        tree.resolve(path, "id1")


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/a", "a\0", "a\n"])
def test_a_container_id_is_one_path_component(name: str) -> None:
    """Even if nobody checked it before."""
    with pytest.raises(ConfigError):
        tree.resolve(None, name)
