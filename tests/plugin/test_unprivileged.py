"""The plugin for a user without any right, and without a cgroup of its own."""

from tests.plugin.conftest import LOADED
from tests.requires import requires
from tests.unprivileged import User

pytestmark = requires("unprivileged")

SUITE = """
def test_exec(ocirun_container):
    result = ocirun_container.exec(["sh", "-c", "cat; id -u; exit 3"], input="in\\n")
    assert (result.exit_code, result.stdout) == (3, "in\\n0\\n")


def test_two_at_once(ocirun_container_factory):
    one, two = ocirun_container_factory(), ocirun_container_factory()
    one.exec(["touch", "/tmp/x"], check=True)
    assert two.exec(["test", "-e", "/tmp/x"]).exit_code == 1
"""


def test_the_fixture_runs_commands(unprivileged_user: User) -> None:
    """A container is joined from the user namespace that it was made in; no other has rights over it."""
    suite = unprivileged_user.home / "suite"
    suite.mkdir()
    (suite / "test_it.py").write_text(SUITE)
    (suite / "pytest.ini").write_text("[pytest]\nocirun_image = host\n")
    options = [*LOADED, "--ocirun-require=isolation", "-p", "no:cacheprovider"]

    done = unprivileged_user.run([unprivileged_user.python, "-P", "-m", "pytest", *options], cwd=suite)

    assert "2 passed" in done.stdout, done.stdout + done.stderr
