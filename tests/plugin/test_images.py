"""Other images than the host: their own Python, their own pytest, the same outcomes."""

import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from tests.plugin import suites
from tests.plugin.conftest import Runner, weaker
from tests.requires import requires


def _outcomes(path: Path) -> dict[tuple[str | None, str | None], list[str]]:
    verdicts = {"failure", "error", "skipped"}
    return {
        (case.get("classname"), case.get("name")): [child.tag for child in case if child.tag in verdicts]
        for case in ET.parse(path).getroot().iter("testcase")
    }


@requires("root")
def test_debian_tarball(pytester: pytest.Pytester, plain: Runner, debian_tarball: Path) -> None:
    """Debian's pytest 7.2 inside, whatever outside: outcome per node id, assertion text and captured output."""
    pytester.makeini(suites.INI)
    pytester.makeconftest(suites.CONFTEST)
    pytester.makepyfile(test_outcomes=suites.OUTCOMES, test_unimportable="import no_such_module")
    package = pytester.mkpydir("pkg")
    (package / "conftest.py").write_text(suites.NEAR_CONFTEST)
    (package / "test_near.py").write_text(suites.NEAR)
    options = ("--continue-on-collection-errors", "-v")

    plain("--junitxml=plain.xml", *options)
    inside = plain("--junitxml=inside.xml", "--ocirun-image", debian_tarball, *weaker(), *options)

    expected = _outcomes(pytester.path / "plain.xml")
    assert len(expected) > 30
    assert _outcomes(pytester.path / "inside.xml") == expected
    inside.has("E         {'b': [1, 2, 3]} != {'b': [1, 2, 4]}", "Captured stdout call", "to stdout")
    inside.has("to stderr", "to the log")


@requires("root")
def test_debian_tarball_death(pytester: pytest.Pytester, plain: Runner, debian_tarball: Path) -> None:
    """The agent speaks the same words under another Python."""
    pytester.makepyfile("import os\ndef test_dies(): os._exit(3)\ndef test_after(): pass")

    plain("--ocirun-image", debian_tarball, *weaker()).has("it exited with status 3", "1 failed, 1 passed")


def test_image_without_python(pytester: pytest.Pytester, plain: Runner, busybox_tarball: Path) -> None:
    """A usage error that says what the image would need."""
    pytester.makepyfile("def test_it(): pass")

    outcome = plain("--ocirun-image", busybox_tarball, *weaker())

    outcome.has("no Python")
    assert outcome.status == pytest.ExitCode.USAGE_ERROR


def test_python_without_pytest(pytester: pytest.Pytester, inside: Runner) -> None:
    """Said once, as a usage error, and not once per test."""
    pytester.makepyfile("def test_it(): pass")
    (pytester.mkdir("fake") / "pytest.py").write_text("raise ImportError('no pytest in this image')")

    outcome = inside(f"--ocirun-env=PYTHONPATH={pytester.path / 'fake'}")

    outcome.has("ocirun: the image's Python cannot run tests: no pytest in this image")
    assert outcome.status == pytest.ExitCode.USAGE_ERROR
