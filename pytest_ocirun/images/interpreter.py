"""Where the running Python lives, down to the last link, so that it can be shown elsewhere at the same paths.

Responsible for virtual environments, pyenv's and uv's links and everything between. Must not know how paths
are shown.
"""

from __future__ import annotations

import os
import site
import sys
import sysconfig
from dataclasses import dataclass, field

from pytest_ocirun.errors import Unsupported

_MOST_LINKS = 40
# What is shown of a prefix when all of it would show too much: one in ~/.local, in a home, in a checkout.
_PIECES = ("bin", "lib", "lib64", "include", "pyvenv.cfg")
_NEVER_WHOLE = ("/", "/root", "/home", "/etc", "/var", "/var/lib", "/run", "/tmp", "/var/tmp", "/mnt", "/srv")


@dataclass(slots=True)
class Trace:
    """Paths taken apart: real places, and the links that lead to them (place -> target as written)."""

    places: set[str] = field(default_factory=set)
    links: dict[str, str] = field(default_factory=dict)

    def follow(self, path: str) -> str:
        """Resolve ``path`` as the kernel does, noting every link on the way, and note the end as a place.

        Returns:
            The end: a real path, which need not exist.

        Raises:
            OSError: the path has too many links.
        """
        real = "/"
        rest = [part for part in path.split("/")[::-1] if part not in {"", "."}]
        hops = 0
        while rest:
            part = rest.pop()
            if part == "..":
                real = os.path.dirname(real)
                continue
            step = os.path.join(real, part)
            try:
                target = os.readlink(step)
            except OSError:
                real = step
                continue
            hops += 1
            if hops > _MOST_LINKS:
                raise OSError(40, f"too many links: {path}")
            self.links[step] = target
            if target.startswith("/"):
                real = "/"
            rest += [piece for piece in target.split("/")[::-1] if piece not in {"", "."}]
        self.places.add(real)
        return real


def trace() -> Trace:
    """Everything that the running interpreter needs to start and to import what it can import here.

    Raises:
        Unsupported: Python does not know its own executable.
    """
    if not sys.executable:
        raise Unsupported("image host: Python does not know where its executable lies, so it cannot be shown inside")
    found = Trace()
    for prefix in (sys.prefix, sys.exec_prefix, sys.base_prefix, sys.base_exec_prefix):
        _add_prefix(found, prefix)
    paths = [sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    base_executable = getattr(sys, "_base_executable", None) or sys.executable
    paths += [path for path in site.getsitepackages() if path in sys.path]
    if user_site() is not None:
        paths.append(str(user_site()))
    for path in paths:
        if os.path.isdir(path):
            _add_inside(found, path)
    for path in (sys.executable, base_executable):
        found.follow(path)
    return found


def user_site() -> str | None:
    """The user's own site-packages, if this interpreter imports from there."""
    path = site.getusersitepackages() if site.ENABLE_USER_SITE else None
    return path if path in sys.path else None


def _add_prefix(found: Trace, prefix: str) -> None:
    real = os.path.realpath(prefix)
    if not shows_too_much(real):
        found.follow(prefix)
        return
    for piece in _PIECES:
        path = os.path.join(prefix, piece)
        if os.path.lexists(path):
            found.follow(path)


def _add_inside(found: Trace, path: str) -> None:
    if not shows_too_much(os.path.realpath(path)):
        found.follow(path)


def shows_too_much(path: str) -> bool:
    """Whether the directory holds more than an interpreter: a home, what holds homes, a checkout."""
    home = os.path.realpath(os.path.expanduser("~"))
    return (
        path in _NEVER_WHOLE
        or os.path.dirname(path) == "/home"
        or os.path.basename(path) == ".local"
        or f"{home}/".startswith(f"{path}/")
        or os.path.lexists(f"{path}/.git")
    )
