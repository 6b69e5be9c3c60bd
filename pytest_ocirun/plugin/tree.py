"""Which directories are the tests' tree, and keeping them off this process's import path.

Knows nothing of containers: it answers "what must be shown inside" and "what must not be imported here".
"""

from __future__ import annotations

import os
import pwd
import sys
from typing import TYPE_CHECKING

from pytest_ocirun.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable

_OWN_ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
_TOO_BROAD = (
    "/", "/bin", "/boot", "/dev", "/etc", "/home", "/lib", "/lib64", "/media", "/mnt", "/opt", "/proc", "/root",
    "/run", "/sbin", "/srv", "/sys", "/tmp", "/usr", "/usr/local", "/var", "/var/tmp",
)  # fmt: skip


def argument_path(argument: str, start: str) -> str:
    """Return the absolute path that a command-line argument means, without its ``::`` part."""
    return os.path.abspath(os.path.join(start, argument.partition("[")[0].partition("::")[0]))


def too_broad(directory: str) -> bool:
    """Tell whether showing *directory* inside would show far more than tests: a system directory, a home.

    The home is the one of the password database: $HOME may well be set to a workspace.
    """
    try:
        home = pwd.getpwuid(os.getuid()).pw_dir
    except KeyError:  # a uid without an account, as containers have them
        home = "/"
    return directory in _TOO_BROAD or directory == home or within(home, directory)


def within(path: str, directory: str) -> bool:
    """Tell whether *path* is *directory* or below it."""
    return path == directory or path.startswith(directory.rstrip("/") + "/")


def directories(rootdir: str, start: str, arguments: Iterable[str]) -> tuple[str, ...]:
    """Return the directories to show inside: the root directory, the one pytest started in, and every argument's.

    A root or start directory that is too broad is left out as long as the arguments have directories of their own.

    Raises:
        ConfigError: tests lie directly in a directory that is too broad.
    """
    wanted = {rootdir} if within(start, rootdir) or not _related(start, rootdir) else {rootdir, start}
    shown = {directory for directory in wanted if not too_broad(directory)}
    for argument in arguments:
        path = argument_path(argument, start)
        directory = path if os.path.isdir(path) else os.path.dirname(path)
        if any(within(directory, one) for one in shown):
            continue
        if too_broad(directory):
            raise ConfigError(
                f"ocirun: {argument}: {directory} holds more than tests, so it is not shown inside a container",
                hint="Put the tests into a directory of their own, with a pytest.ini beside them.",
            )
        shown.add(directory)
    return tuple(sorted(one for one in shown if not any(one != other and within(one, other) for other in shown)))


def _related(one: str, other: str) -> bool:
    return within(one, other) or within(other, one)


def take_off_path(tree: Iterable[str]) -> list[str]:
    """Remove the tree's entries from sys.path and return them.

    The interpreter's own directories stay (a virtual environment often lies in the tree), and so does the one
    that pytest_ocirun itself was imported from.
    """
    kept: list[str] = []
    taken: list[str] = []
    for entry in sys.path:
        path = os.path.abspath(entry)
        inside = any(within(path, directory) for directory in tree)
        (taken if inside and not _ours(path) else kept).append(entry)
    sys.path[:] = kept
    return [os.path.abspath(entry) for entry in taken]


def _ours(path: str) -> bool:
    prefixes = {sys.prefix, sys.base_prefix, sys.exec_prefix, sys.base_exec_prefix}
    return path == _OWN_ROOT or any(within(path, prefix) for prefix in prefixes)


def imported_from(tree: Iterable[str]) -> list[str]:
    """Return the names of modules that this process has imported from the tree already."""
    directories = tuple(tree)
    names = []
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if not isinstance(file, str) or name.partition(".")[0] == "pytest_ocirun":
            continue
        path = os.path.abspath(file)
        if any(within(path, directory) for directory in directories) and not _ours(path):
            names.append(name)
    return sorted(names)
