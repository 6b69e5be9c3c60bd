"""Keeps the value of one of our options from being taken for a test path.

Pytest chooses its root directory before it has loaded plugins: ``--ocirun-image /images/debian.tar tests`` looks to
it like two test paths, whose common ancestor is ``/``. Node ids and the ini file hang on that choice, so it is made
again here, with the test paths only. Pytest has no public way to do that; what cannot be mended is a usage error.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import pytest
from _pytest.config.findpaths import determine_setup

if TYPE_CHECKING:
    from pathlib import Path


def mend(config: pytest.Config) -> None:
    """Give *config* the root directory and ini file that a run without our options would have.

    Args:
        config: as it is when initial conftests are about to be loaded.

    Raises:
        pytest.UsageError: the right ini file has ``addopts``, which cannot be applied any more.
    """
    option = config.known_args_namespace
    known = inspect.signature(determine_setup).parameters
    arguments = {
        "inifile": option.inifilename,
        "override_ini": option.override_ini,
        "args": option.file_or_dir,
        "rootdir_cmd_arg": option.rootdir,
        "invocation_dir": config.invocation_params.dir,
    }
    setup: Any = determine_setup(**{name: value for name, value in arguments.items() if name in known})
    rootpath: Path = setup[0]
    inipath: Path | None = setup[1]
    if inipath != config.inipath:
        if "addopts" in setup[2]:
            raise pytest.UsageError(
                f"ocirun: pytest took an option's value for a test path and overlooked {inipath}; "
                "write the option with an equals sign: --ocirun-image=IMAGE"
            )
        config._inipath = inipath  # noqa: SLF001 - see the module
        config._inicfg = setup[2]  # noqa: SLF001
        config._inicache.clear()  # noqa: SLF001
    config._rootpath = rootpath  # noqa: SLF001
