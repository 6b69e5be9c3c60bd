"""Whose the tree is: a checkout rarely belongs to root, and root inside has no capability to get round permissions."""

import os

import pytest

from tests.plugin.conftest import Runner
from tests.requires import requires

pytestmark = requires("root", "idmap")


@pytest.mark.parametrize("owner", [1001, 200_000])
def test_tree_of_another_owner_is_root_s_inside(pytester: pytest.Pytester, inside: Runner, owner: int) -> None:
    """Closed directories can be entered and written to; on the host nothing changes, and nothing changes hands."""
    pytester.makeini("[pytest]")
    closed = pytester.mkdir("closed")
    (closed / "old").write_text("old")
    (closed / "test_it.py").write_text(
        "import os, pathlib\n"
        "def test_it():\n"
        "    here = pathlib.Path(__file__).parent\n"
        "    (here / 'new').write_text('')\n"
        "    (here / 'old').write_text('changed')\n"
        "    assert {os.stat(path).st_uid for path in (here, here / 'old', here / 'new')} == {0}\n"
    )
    closed.chmod(0o700)
    for path in (pytester.path, *pytester.path.rglob("*")):
        os.chown(path, owner, owner)

    inside().has("1 passed")

    assert ((closed / "old").read_text(), os.stat(closed).st_uid) == ("old", owner)
