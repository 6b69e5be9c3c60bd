"""A guest that dies costs its own test a failure that names the cause; the run goes on."""

import subprocess

import pytest

from tests.plugin.conftest import Runner
from tests.requires import requires


def _around(body: str) -> str:
    return f"""
import os, signal, sys, time
import pytest

def test_before():
    pass

{body}

def test_after():
    pass
"""


@pytest.mark.parametrize(
    "body, cause",
    [
        ("def test_it(): os._exit(0)", "it exited with status 0"),
        ("def test_it(): os._exit(3)", "it exited with status 3"),
        ("def test_it(): os.kill(os.getpid(), signal.SIGSEGV)", "it was killed by signal 11 (SIGSEGV)"),
        ("def test_it(): os.kill(os.getpid(), signal.SIGKILL)", "it was killed by signal 9 (SIGKILL)"),
        ("def test_it(): time.sleep(60)", "no answer within 3 s (--ocirun-timeout)"),
        ("def test_it(): pytest.exit('enough', returncode=0)", "the test tried to stop the whole run: Exit: enough"),
        ("def test_it(): raise KeyboardInterrupt", "the test tried to stop the whole run: KeyboardInterrupt"),
        ("def test_it():\n    if os.fork() == 0: time.sleep(600)\n    os._exit(1)", "it exited with status 1"),
    ],
)
def test_death_has_a_name(pytester: pytest.Pytester, inside: Runner, body: str, cause: str) -> None:
    """The test before and the test after pass, in a fresh container."""
    pytester.makepyfile(_around(body))

    outcome = inside("--ocirun-timeout=3", "-v")

    outcome.has("::test_before PASSED", "::test_it FAILED", "::test_after PASSED")
    outcome.has(f"ocirun: the guest died while running this test: {cause}", f"test_it - ocirun: {cause}"[:60])
    assert outcome.status == 1


@requires("root", "cgroup")
def test_out_of_memory(pytester: pytest.Pytester, inside: Runner) -> None:
    """The kernel's own counter tells it from any other SIGKILL."""
    pytester.makepyfile(_around("def test_it():\n    block = b'x' * (400 << 20)"))

    outcome = inside("--ocirun-memory=200m", "-v")

    outcome.has("::test_before PASSED", "::test_it FAILED", "::test_after PASSED")
    outcome.has("the guest died while running this test: out of memory (limit 200m)")


@requires("root", "cgroup")
def test_out_of_processes(pytester: pytest.Pytester, inside: Runner) -> None:
    """A fork bomb gets an ordinary error, and the report says which limit it met."""
    body = "def test_it():\n    for _ in range(100):\n        if os.fork() == 0: time.sleep(600)"
    pytester.makepyfile(_around(body))

    outcome = inside("--ocirun-pids=40", "--ocirun-memory=1g", "-v")

    outcome.has("::test_before PASSED", "::test_it FAILED", "::test_after")
    outcome.has("the container reached its limit of 40 processes and threads")


def test_out_of_disk_is_an_error_inside(pytester: pytest.Pytester, inside: Runner) -> None:
    """A full disk is ENOSPC for the test, not out-of-memory for the container."""
    body = """
def test_it(tmp_path):
    with open(tmp_path / "big", "wb") as file:
        for _ in range(200):
            file.write(bytes(1 << 20))
"""
    pytester.makepyfile(_around(body))

    outcome = inside("--ocirun-memory=400m", "--ocirun-disk=64m", "-v")

    outcome.has("::test_it FAILED", "::test_after", "No space left on device")
    assert "out of memory" not in outcome.raw


def test_output_is_bounded(pytester: pytest.Pytester, inside: Runner) -> None:
    """What a test prints beyond the limit is cut in the middle, and said to be."""
    pytester.makepyfile(_around("def test_it():\n    print('first' + 'x' * 1000000 + 'last')\n    assert 0"))

    outcome = inside("--ocirun-output=4k", "-v")

    outcome.has("first", "bytes cut, the limit is 4096]", "last")
    assert len(outcome.raw) < 20000


def test_noise_outside_capture_is_bounded(pytester: pytest.Pytester, inside: Runner) -> None:
    """Who writes round pytest's capture without end is killed for it."""
    body = """
def test_it(request):
    manager = request.config.pluginmanager.getplugin("capturemanager")
    with manager.global_and_fixture_disabled():
        while True:
            os.write(2, b"noise " * 1000)
"""
    pytester.makepyfile(_around(body))

    outcome = inside("--ocirun-output=64k", "-v")

    outcome.has("::test_before PASSED", "::test_it FAILED", "::test_after PASSED", "too much output (limit 64k)")


def test_phases_reported_before_the_death_stay(pytester: pytest.Pytester, inside: Runner) -> None:
    """A test that passed and died in its tear-down is passed and an error."""
    body = "@pytest.fixture\ndef late():\n    yield\n    os._exit(9)\n\ndef test_it(late): pass"
    pytester.makepyfile(_around(body))

    outcome = inside("-v")

    outcome.has("::test_it PASSED", "::test_it ERROR", "::test_after PASSED", "3 passed, 1 error")


def test_death_in_setup_is_an_error(pytester: pytest.Pytester, inside: Runner) -> None:
    """There is nothing to call, and nothing to tear down."""
    pytester.makepyfile(_around("@pytest.fixture\ndef early(): os._exit(9)\n\ndef test_it(early): pass"))

    outcome = inside("-v")

    outcome.has("::test_it ERROR", "::test_after PASSED", "2 passed, 1 error")


@pytest.mark.parametrize(
    "body, cause",
    [
        ("import os; os._exit(0)", "it exited with status 0"),
        ("import time; time.sleep(60)", "it was still collecting after 3 s (--ocirun-timeout)"),
        ("import os; os.kill(os.getpid(), 11)", "it was killed by signal 11 (SIGSEGV)"),
    ],
)
def test_death_while_collecting_is_that_files_error(
    pytester: pytest.Pytester, inside: Runner, body: str, cause: str
) -> None:
    """Other files are collected and run."""
    pytester.makepyfile(test_bad=body, test_good="def test_good(): pass")

    outcome = inside("--ocirun-timeout=3", "--continue-on-collection-errors", "-v")

    outcome.has("test_good.py::test_good PASSED", "ERROR collecting test_bad.py")
    outcome.has(f"ocirun: the guest died while collecting test_bad.py: {cause}", "1 passed, 1 error")


def test_death_of_a_conftest_ends_the_session(pytester: pytest.Pytester, inside: Runner) -> None:
    """Without a list of files there is nothing to run; a plain run would have exited with status 0 and no word."""
    pytester.makeconftest("import os; os._exit(0)")
    pytester.makepyfile("def test_never(): pass")

    outcome = inside()

    outcome.has("ocirun: listing the tests failed: it exited with status 0")
    assert outcome.status == pytest.ExitCode.USAGE_ERROR


def test_vanished_test_is_an_error(pytester: pytest.Pytester, inside: Runner) -> None:
    """After a restart the container must offer the same tests."""
    pytester.makepyfile(
        """
        import os, random, pytest
        names = [str(random.randrange(1 << 60)) for _ in range(2)]
        def test_dies(): os._exit(1)
        @pytest.mark.parametrize("name", names)
        def test_random(name): pass
        def test_stays(): pass
        """
    )

    outcome = inside("-v")

    outcome.has("the test is not there any more in a fresh container", "1 passed")
    assert "2 errors" in outcome.text


def test_stop_after_a_death(pytester: pytest.Pytester, inside: Runner) -> None:
    """-x counts a death like any failure."""
    pytester.makepyfile(_around("def test_it(): os._exit(1)"))

    outcome = inside("-x", "-v")

    outcome.has("::test_it FAILED", "stopping after 1 failures", "1 failed, 1 passed")
    assert "test_after" not in outcome.raw


def test_nothing_of_a_test_outlives_the_run(pytester: pytest.Pytester, inside: Runner) -> None:
    """A daemon that a test started is gone when pytest is."""
    pytester.makepyfile("import subprocess\ndef test_it(): subprocess.Popen(['sleep', '98765.25'])")

    assert inside().status == 0

    assert subprocess.run(["pgrep", "-f", "sleep 98765.2[5]"], check=False).returncode == 1
