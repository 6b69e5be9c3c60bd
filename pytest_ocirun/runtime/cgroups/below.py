"""A cgroup below a container's that somebody made there, for one more process. Must not know: who made it.

Sources: cgroups(7); runc's ``exec --cgroup``.
"""

from __future__ import annotations

import os

from pytest_ocirun.errors import ConfigError, Unsupported

from . import Cgroup

_TREE = "unified"


def find(cgroup: Cgroup, wanted: dict[str, str]) -> Cgroup:
    """Find the cgroup of a process below its container's; nothing is made.

    Args:
        cgroup: the container's.
        wanted: controller to path below the container's cgroup; "" stands for all hierarchies, on v2 for the one
            that there is. A v2 tree beside v1 is only joined there if it has the path.

    Raises:
        ConfigError: a path leads upwards or to no cgroup, or there is no such controller.
        Unsupported: the container has no cgroup.
    """
    paths = cgroup.paths
    dirs = dict(paths["dirs"])
    if not dirs:
        raise Unsupported("join a cgroup below the container's: this container was made without a cgroup")
    for controller, path in wanted.items():
        if ".." in path.split("/") or "\0" in path:
            raise ConfigError(f"join the cgroup {path!r} below the container's: it leads upwards")
        if controller and (controller not in paths["dirs"] or paths["version"] == "v2"):
            have = "on cgroup v2 a path has no controller" if paths["version"] == "v2" else ", ".join(paths["dirs"])
            raise ConfigError(f"join the {controller} cgroup {path!r} below the container's: no such hierarchy: {have}")
        above = paths["dirs"].get(controller)
        for name, directory in paths["dirs"].items():
            if controller and directory != above:  # controllers that are mounted together move together
                continue
            below = os.path.normpath(f"{directory}/{path}")
            if os.path.isdir(below):
                dirs[name] = below
            elif controller or name != _TREE or paths["version"] == "v2":
                raise ConfigError(f"join the cgroup {below}: there is none", hint="Make it first.")
    return Cgroup.from_paths({**paths, "dirs": dirs, "made": []})
