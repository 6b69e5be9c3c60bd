"""Every option of the installed pytest has an owner."""

import subprocess
import sys

import pytest

from pytest_ocirun.plugin import options
from pytest_ocirun.plugin.entry import SETTINGS

_PROGRAM = """
import sys, pytest
class Look:
    @pytest.hookimpl(tryfirst=True)
    def pytest_cmdline_main(self, config):
        names = [name for name in vars(config.option) if not name.startswith("ocirun_")]
        print("OPTIONS", *names)
        return 0
pytest.main(["-p", "pytester"], plugins=[Look()])
"""


def _installed() -> set[str]:
    environment = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM], capture_output=True, text=True, check=True, cwd="/", env=environment
    )
    line = next(line for line in done.stdout.splitlines() if line.startswith("OPTIONS"))
    return set(line.split()[1:])


def test_no_option_lacks_an_owner() -> None:
    """A new pytest with a new option makes this fail: decide who acts on it."""
    assert _installed() - options.TABLE.keys() == set()


def test_no_owner_lacks_an_option() -> None:
    """What the table names, some supported pytest has."""
    since = {
        "disable_plugin_autoload": (8, 4),
        "fold_skipped": (8, 3),
        "force_short_summary": (8, 4),
        "xfail_tb": (8, 3),
        "stepwise_reset": (8, 4),
        "max_warnings": (9, 1),
    }
    running = tuple(int(part) for part in pytest.__version__.split(".")[:3])
    expected = {name for name in options.TABLE if running >= since.get(name, (0,))}

    assert expected - _installed() == set()


@pytest.mark.parametrize("name, entry", options.TABLE.items())
def test_forms_are_complete(name: str, entry: tuple[object, ...]) -> None:
    """A form has what guest_arguments takes from it."""
    lengths = {
        options.HOST: 1,
        options.SPECIAL: 1,
        options.FLAG: 2,
        options.EACH: 2,
        options.REFUSED: 2,
        options.VALUE: 3,
    }

    assert len(entry) == lengths[str(entry[0])], name


def test_settings_are_named_once() -> None:
    """Option and ini key come from one list."""
    names = [name for name, *_ in SETTINGS]

    assert len(names) == len(set(names))
