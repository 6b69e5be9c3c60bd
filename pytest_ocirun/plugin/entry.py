"""The entry point ``ocirun``: options, ini keys, marker and fixtures; everything else loads when it is asked for.

Installed but unused, this module is all that a run pays for: it imports pytest, which is there already, and nothing
more. The hooks that move tests into containers stand here, and not in a plugin registered later, because pytest
calls later plugins first, and those (xdist's worker, the terminal) must see ``pytest_collection`` before us.
"""

from __future__ import annotations

import pytest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Generator
    from typing import Any

    from pytest_ocirun.plugin.session import Inside

INSIDE: pytest.StashKey[Inside] = pytest.StashKey()
# name, metavar, kind of ini value, help. Kinds: "once" (a string), "each" (repeatable; one per line in an ini file).
SETTINGS = (
    ("image", "IMAGE", "once", "run the tests inside containers of this image: a rootfs tarball, directory or `host`"),
    ("run", "inside|host", "once", "where the tests run (default: inside if --ocirun-image is given, else host)"),
    ("scope", "SCOPE", "once", "what shares one container: module (one per test file)"),
    ("memory", "SIZE", "once", "memory per container (default: 1g)"),
    ("pids", "N", "once", "processes and threads per container (default: 512)"),
    ("cpus", "N", "once", "processors per container, such as 1.5 (default: no limit)"),
    ("disk", "SIZE", "once", "what one container may write (default: 512m or half its memory, whichever is less)"),
    ("timeout", "SECONDS", "once", "time per test (default: 300)"),
    ("output", "SIZE", "once", "output per test (default: 16m)"),
    ("mount", "SRC:DST[:ro|rw]", "each", "show a directory of this host inside (default: ro)"),
    ("env", "NAME[=VALUE]", "each", "set a variable inside; without a value, pass on this host's"),
    ("tree", "overlay|ro", "once", "how the tests' own tree appears inside: writable copy-on-write, or read-only"),
    ("args", "ARGS", "each", "arguments for the pytest inside only, such as a conftest's own options"),
    ("require", "LEVEL", "once", "refuse to run with less isolation than this (default: limits)"),
    ("store", "DIR", "once", "where unpacked images are kept"),
)  # fmt: skip


def pytest_addhooks(pluginmanager: pytest.PytestPluginManager) -> None:
    """Announce the hooks that other plugins may implement."""
    from pytest_ocirun.plugin import hookspecs

    pluginmanager.add_hookspecs(hookspecs)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Register every option and its ini twin; values are parsed when somebody needs them."""
    group = parser.getgroup("ocirun", "OCI container isolation")
    for name, metavar, kind, text in SETTINGS:
        repeatable = kind == "each" or name == "image"
        option = f"--ocirun-{name}"
        group.addoption(option, action="append" if repeatable else "store", default=None, metavar=metavar, help=text)
        ini: Any = "string" if kind == "once" else "linelist"
        parser.addini(f"ocirun_{name}", f"{text} (see {option})", type=ini, default=None)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> Generator[None, Any, Any]:
    """Keep the tree's conftests and import paths out of this process when its tests run inside."""
    option = early_config.known_args_namespace
    if any(getattr(option, f"ocirun_{name}") for name, *_ in SETTINGS):
        from pytest_ocirun.plugin.rootdir import mend

        mend(early_config)
    if not wants_inside(early_config, option):
        return (yield)
    from pytest_ocirun.plugin.session import Inside

    inside = early_config.stash[INSIDE] = Inside(early_config)
    inside.shut_out(early_config)
    result = yield
    inside.shut_out(early_config)
    return result


def wants_inside(config: pytest.Config, option: Any) -> bool:
    """Tell where the tests run; `settings` later refuses values that are neither."""
    if option.ocirun_run is not None:
        return bool(option.ocirun_run != "host")
    return bool(option.ocirun_image) or config.getini("ocirun_run") not in {None, "", "host"}


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker, the fixtures and, inside, the hooks of the session."""
    from pytest_ocirun.plugin import fixtures

    config.addinivalue_line(
        "markers",
        "ocirun(image=None, memory=None, pids=None, cpus=None, disk=None, env=None, mount=None): "
        "settings of this test's ocirun_container",
    )
    config.pluginmanager.register(fixtures, "ocirun-fixtures")
    inside = config.stash.get(INSIDE, None)
    if inside is None and wants_inside(config, config.option):
        raise pytest.UsageError(
            "ocirun: the tests were to run inside containers, but the plugin was loaded too late to keep "
            "their conftests out of this process; load it with -p pytest_ocirun.plugin.entry"
        )
    if inside is not None:
        inside.configure(config)


def pytest_report_header(config: pytest.Config) -> str | None:
    """Say that tests run on the host, if anything could make one think otherwise."""
    if config.stash.get(INSIDE, None) is None and (config.getini("ocirun_image") or config.option.ocirun_run):
        accepted = config.option.ocirun_require or config.getini("ocirun_require")
        weaker = "; WEAKER, accepted: its limits, where this host cannot set them" if accepted == "isolation" else ""
        return f"ocirun: tests run on this host; the image is for ocirun_container{weaker}"
    return None


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Refuse a marker with an argument that nobody reads."""
    for mark in item.iter_markers("ocirun"):
        from pytest_ocirun.plugin.settings import check_marker

        check_marker(mark)


def pytest_collection(session: pytest.Session) -> bool | None:
    """Collect inside containers, if that is where the tests run."""
    inside = session.config.stash.get(INSIDE, None)
    return None if inside is None else inside.collect(session)


def pytest_unconfigure(config: pytest.Config) -> None:
    """End every container that is still there."""
    inside = config.stash.get(INSIDE, None)
    if inside is not None:
        inside.close()
