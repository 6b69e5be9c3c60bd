"""`ocirun_container` on the host: fresh per test, its image by marker, fixture or ini key, gone afterwards."""

import pytest

from tests.plugin.conftest import Runner
from tests.requires import lack, requires

pytestmark = requires("root", "cgroup")


@pytest.fixture(autouse=True)
def _ini(pytester: pytest.Pytester) -> None:
    pytester.makeini("[pytest]\nocirun_image = host\n")


def test_container_runs_commands(pytester: pytest.Pytester, plain: Runner) -> None:
    """The issue's example: output apart, input, environment, time limit."""
    pytester.makepyfile(
        """
        def test_exec(ocirun_container):
            script = "cat; echo $WORD; echo oops >&2; exit 3"
            result = ocirun_container.exec(["sh", "-c", script], input="in\\n", env={"WORD": "w"})
            assert (result.exit_code, result.stdout, result.stderr) == (3, "in\\nw\\n", "oops\\n")
            assert not result.timed_out and not result.oom_killed and result.signal is None
            assert 0 < result.duration < 10

        def test_timeout(ocirun_container):
            result = ocirun_container.exec(["sh", "-c", "sleep 60 & wait"], timeout=0.5)
            assert result.timed_out
        """
    )

    outcome = plain("-v")

    outcome.has("test_exec PASSED", "test_timeout PASSED")
    assert outcome.status == 0


def test_container_is_fresh_per_test(pytester: pytest.Pytester, plain: Runner) -> None:
    """What one test writes the next does not see, and a factory's containers do not see each other."""
    pytester.makepyfile(
        """
        import pytest
        @pytest.mark.parametrize("attempt", [1, 2])
        def test_write(ocirun_container, attempt):
            assert ocirun_container.exec(["sh", "-c", "test ! -e /tmp/x && echo > /tmp/x"]).exit_code == 0

        def test_factory(ocirun_container_factory):
            with ocirun_container_factory() as one, ocirun_container_factory(pids=20) as two:
                assert one.id != two.id
                one.exec(["touch", "/tmp/y"], check=True)
                assert two.exec(["test", "-e", "/tmp/y"]).exit_code == 1
        """
    )

    assert plain().status == 0


def test_containers_are_deleted(pytester: pytest.Pytester, plain: Runner) -> None:
    """After the test its process is gone, also when the test failed and left it to the factory."""
    pytester.makepyfile(
        """
        import os, time
        left = []
        def test_leaves(ocirun_container_factory):
            left.extend([ocirun_container_factory(), ocirun_container_factory()])
            assert 0
        def test_gone():
            deadline = time.monotonic() + 5
            while any(os.path.exists(f"/proc/{container.pid}") for container in left):
                assert time.monotonic() < deadline
                time.sleep(0.01)
        """
    )

    plain().has("1 failed, 1 passed")


def test_marker_wins_over_fixture_over_ini(pytester: pytest.Pytester, plain: Runner) -> None:
    """Three places may name the image; the tests stay on the host."""
    pytester.makepyfile(
        """
        import os, pytest
        def test_ini(ocirun_container):
            assert not os.path.exists("/.ocirun")
            ocirun_container.exec(["true"], check=True)

        class TestFixture:
            @pytest.fixture
            def ocirun_image(self): return "/no/such/image-of-the-fixture"
            def test_fixture(self, ocirun_container): pass
            @pytest.mark.ocirun(image="host", memory="100m")
            def test_marker(self, ocirun_container): ocirun_container.exec(["true"], check=True)
        """
    )

    outcome = plain("-v")

    outcome.has("test_ini PASSED", "test_fixture ERROR", "test_marker PASSED", "image-of-the-fixture")


@pytest.mark.parametrize(
    "mark, message",
    [
        ("memorry='1g'", "@pytest.mark.ocirun does not take memorry"),
        ("'host'", "@pytest.mark.ocirun does not take 'host'"),
        ("memory='lots'", "memory: 'lots' is not a size; write it as 512m or 2g"),
        ("pids=0", "pids: 0 is not a positive whole number"),
        ("pids=True", "pids: True is not a positive whole number"),
        ("cpus=-1", "cpus: -1 is not a positive number"),
        ("disk='2g', memory='1g'", "disk: '2g' must be below the memory limit, which is 1g"),
        ("image=7", "image: 7 is no image"),
        ("mount='/etc'", "'/etc' is not SRC:DST[:ro|rw] with an absolute DST"),
    ],
)
def test_wrong_marker_is_one_clear_error(pytester: pytest.Pytester, plain: Runner, mark: str, message: str) -> None:
    """It costs the test, and says what, where and what would be right."""
    pytester.makepyfile(f"import pytest\n@pytest.mark.ocirun({mark})\ndef test_it(ocirun_container): pass")

    outcome = plain()

    outcome.has(message, "1 error")


def test_without_an_image(pytester: pytest.Pytester, plain: Runner) -> None:
    """The error says all three ways to name one."""
    pytester.makeini("[pytest]\n")
    pytester.makepyfile("def test_it(ocirun_container): pass")

    plain().has("ocirun_container: no image is configured", "Set ocirun_image in the ini file")


def test_inside_it_says_that_it_is_not_there(pytester: pytest.Pytester, inside: Runner) -> None:
    """Tests that run inside cannot have it yet; the message says where they can."""
    pytester.makepyfile("def test_it(ocirun_container): pass\ndef test_other(): pass")

    inside("-v").has("test_it ERROR", "test_other PASSED", "run it on the host (--ocirun-run host)")


def test_limits_are_the_containers(pytester: pytest.Pytester, plain: Runner) -> None:
    """A memory limit from the marker bites."""
    assert lack("cgroup") is None
    pytester.makepyfile(
        """
        import pytest, sys
        @pytest.mark.ocirun(memory="64m")
        def test_it(ocirun_container):
            result = ocirun_container.exec(["sh", "-c", "head -c 200000000 /dev/zero | tail -c 200000000 > /dev/null"])
            assert result.exit_code != 0 or result.oom_killed
            assert result.oom_killed
        """
    )

    assert plain().status == 0
