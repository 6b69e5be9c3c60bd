"""What a user installs: the wheel's content and metadata, and that the suite tests what is installed."""

import os
import re
import subprocess
import sys
import sysconfig
import zipfile
from email.message import Message
from email.parser import Parser
from importlib.util import find_spec
from pathlib import Path

import pytest

import pytest_ocirun

_ROOT = Path(__file__).parents[1]


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The wheel, built from this checkout."""
    for tool in ("build", "hatchling"):
        if find_spec(tool) is None:
            pytest.skip(f"{tool} is not installed: pip install '.[test]'")
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-P", "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(_ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=out)
    assert done.returncode == 0, done.stdout + done.stderr
    [path] = out.glob("*.whl")
    return zipfile.ZipFile(path)


@pytest.fixture(scope="module")
def metadata(wheel: zipfile.ZipFile) -> Message:
    """Its METADATA file."""
    name = f"pytest_ocirun-{pytest_ocirun.__version__}.dist-info/METADATA"
    return Parser().parsestr(wheel.read(name).decode())


def test_wheel_holds_the_package_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    """Every module and py.typed; no test, no page, no tool."""
    package = _ROOT / "pytest_ocirun"
    expected = {
        path.relative_to(_ROOT).as_posix() for path in package.rglob("*") if path.is_file() and path.suffix != ".pyc"
    }
    found = {name for name in wheel.namelist() if ".dist-info/" not in name and ".data/scripts/" not in name}

    assert found == expected
    assert "pytest_ocirun/py.typed" in found


def test_entry_points_are_the_plugin_and_the_command(wheel: zipfile.ZipFile) -> None:
    """The plugin is called ocirun, and so is the command."""
    text = wheel.read(f"pytest_ocirun-{pytest_ocirun.__version__}.dist-info/entry_points.txt").decode()

    assert "[pytest11]\nocirun = pytest_ocirun.plugin.entry" in text
    assert "console_scripts" not in text
    script = wheel.read(f"pytest_ocirun-{pytest_ocirun.__version__}.data/scripts/ocirun").decode()
    assert script.startswith("#!python\n"), "installers put their interpreter there"
    assert "\nimport re" not in script
    [info] = [each for each in wheel.infolist() if each.filename.endswith(".data/scripts/ocirun")]
    assert info.external_attr >> 16 & 0o111 == 0o111


def test_metadata_says_what_it_is(metadata: Message) -> None:
    """Licence, Python, description, and classifiers that match."""
    classifiers = metadata.get_all("Classifier") or []

    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Requires-Python"] == ">=3.11"
    assert "# pytest-ocirun" in metadata.get_payload()
    assert {"Framework :: Pytest", "Typing :: Typed"} <= set(classifiers)


def test_dependencies_are_explained(metadata: Message) -> None:
    """Each one that a user gets has its row in docs/dependencies.md."""
    page = (_ROOT / "docs/dependencies.md").read_text(encoding="utf-8")
    required = [line for line in metadata.get_all("Requires-Dist") or [] if "extra ==" not in line]
    rows = {_normal(name) for name in re.findall(r"^\| ([\w.-]+)", page, re.MULTILINE)}
    names = {_normal(re.split("[<>=~! ;]", line)[0]) for line in required}

    assert names - rows == set()
    assert rows - names == {"package"}


def test_the_installed_package_is_what_is_tested() -> None:
    """In the lanes that say so, the suite imports the wheel, and not the checkout beside it."""
    home = Path(pytest_ocirun.__file__).parents[1]
    if os.environ.get("OCIRUN_EXPECT_INSTALLED"):
        assert home == Path(sysconfig.get_path("purelib"))
    else:
        assert home in {Path(sysconfig.get_path("purelib")), _ROOT}
