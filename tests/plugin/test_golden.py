"""Inside containers, pytest says what it says in a plain run, line by line."""

import os
import shlex
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from tests.plugin import suites
from tests.plugin.conftest import Runner


@pytest.fixture(autouse=True)
def suite(pytester: pytest.Pytester) -> Path:
    """A suite with everything in it, a package below, and files that cannot be collected."""
    pytester.makeini(suites.INI)
    pytester.makeconftest(suites.CONFTEST)
    pytester.makepyfile(
        test_outcomes=suites.OUTCOMES,
        doctests=suites.DOCTESTS,
        test_unimportable="import no_such_module",
        test_skipped_whole="import pytest\npytest.skip('the whole module', allow_module_level=True)",
    )
    package = pytester.mkpydir("pkg")
    (package / "conftest.py").write_text(suites.NEAR_CONFTEST)
    (package / "test_near.py").write_text(suites.NEAR)
    folder = pytester.mkdir("folder")
    (folder / "test_path.py").write_text(
        "import sys\ndef test_path(): assert any(path.endswith('folder') for path in sys.path)"
    )
    return pytester.path


@pytest.mark.parametrize(
    "arguments",
    [
        "",
        "--continue-on-collection-errors",
        "--continue-on-collection-errors -v -rA",
        "--continue-on-collection-errors -q --tb=short --doctest-modules",
        "--continue-on-collection-errors -vv --tb=line --showlocals -rfEs",
        "-x",
        "test_outcomes.py -x",
        "test_outcomes.py pkg --maxfail=2 -v",
        "test_outcomes.py -v -k fails",
        "test_outcomes.py pkg folder -v -m slow",
        "test_outcomes.py pkg -m 'slow and not fast' -q",
        "test_outcomes.py --deselect test_outcomes.py::test_fails --deselect test_outcomes.py::TestClass -q",
        "test_outcomes.py::TestClass::test_two folder 'test_outcomes.py::test_parametrized[a b]' -v",
        "test_outcomes.py::nobody test_outcomes.py::TestClass::nobody",
        "nowhere.py",
        "pkg folder --durations=3 --durations-min=1000 -v",
        "test_outcomes.py --runxfail --tb=native -rf",
        "test_outcomes.py -W error -q",
        "test_outcomes.py -W ignore --strict-markers",
        "pkg folder --import-mode=importlib -v",
        "doctests.py --doctest-modules -v",
        "test_outcomes.py -o xfail_strict=true --log-level=INFO --no-header -rXx",
        "test_outcomes.py --capture=sys --tb=no --show-capture=no",
        "folder pkg -p no:cacheprovider --ignore=folder",
        "--collect-only -q --continue-on-collection-errors",
        "--collect-only test_outcomes.py pkg folder",
        "--collect-only -v doctests.py test_outcomes.py --doctest-modules",
        "--collect-only test_outcomes.py -q -k passes",
    ],
)
def test_output_is_the_same(same: Runner, arguments: str) -> None:
    """Exit status, progress, tracebacks, captured output, warnings, summary."""
    same(*shlex.split(arguments))


def test_junit_is_the_same(plain: Runner, inside: Runner, suite: Path) -> None:
    """Names, outcomes, messages, properties and captured output in the XML."""

    def read(name: str) -> list[tuple[object, ...]]:
        cases = ET.parse(suite / name).getroot().iter("testcase")
        return [
            (
                case.get("classname"),
                case.get("name"),
                [(child.tag, child.get("message"), child.get("type")) for child in case],
                [(one.get("name"), one.get("value")) for one in case.iter("property")],
            )
            for case in cases
        ]

    arguments = ("test_outcomes.py", "pkg", "-o", "junit_family=xunit1")
    plain(*arguments, "--junitxml=plain.xml")
    inside(*arguments, "--junitxml=inside.xml")

    assert read("plain.xml")
    assert read("inside.xml") == read("plain.xml")


def test_last_failed_is_shared(plain: Runner, inside: Runner) -> None:
    """What failed inside is what --lf runs next, inside and plainly."""
    inside("pkg", "folder", "-q")
    again = inside("pkg", "folder", "--lf", "-q")

    again.has("1 failed")
    assert "1 passed" not in again.text
    plain("pkg", "folder", "--lf", "-q").has("1 failed")


def test_options_that_the_host_does_not_know(pytester: pytest.Pytester, inside: Runner) -> None:
    """A conftest's own option reaches the guest by --ocirun-args."""
    pytester.makepyfile(test_option="def test_option(request): assert request.config.getoption('--runslow')")

    assert inside("test_option.py", "--ocirun-args=--runslow").status == 0
    assert inside("test_option.py").status == 1


def test_import_paths_of_the_host_are_the_guests(
    pytester: pytest.Pytester, inside: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PYTHONPATH=src works inside, though src leaves the host's sys.path."""
    source = pytester.mkdir("src")
    (source / "mylib.py").write_text("answer = 42")
    pytester.makepyfile(test_lib="import mylib\ndef test_lib(): assert mylib.answer == 42")
    monkeypatch.setenv("PYTHONPATH", str(source), prepend=os.pathsep)

    assert inside("test_lib.py").status == 0


def test_tree_is_writable_but_not_the_hosts(pytester: pytest.Pytester, inside: Runner) -> None:
    """A test may write beside itself; another container and the host never see it."""
    write = """
    from pathlib import Path
    def test_write():
        here = Path(__file__).parent
        assert not (here / "written").exists()
        (here / "written").write_text("x")
        assert (here / "written").read_text() == "x"
    """
    pytester.makepyfile(test_write_one=write, test_write_two=write)

    assert inside("test_write_one.py", "test_write_two.py").status == 0
    assert not (pytester.path / "written").exists()
    refused = inside("test_write_one.py", "--ocirun-tree=ro")
    refused.has("Read-only file system")


def test_image_value_is_no_test_path(
    pytester: pytest.Pytester, plain: Runner, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Pytest takes `--ocirun-image PATH` for a test path when it looks for the root directory; ids stay right."""
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "no-image.tar"
    elsewhere.write_bytes(b"no tarball")
    mended = plain("folder", "--ocirun-run=host", "--ocirun-image", elsewhere, "-v")

    mended.has(f"rootdir: {pytester.path}", "folder/test_path.py::test_path PASSED")
