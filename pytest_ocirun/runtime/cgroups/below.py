"""A cgroup below a container's that somebody made there, for one more process. Must not know: who made it.

Sources: cgroups(7); runc's ``exec --cgroup``.
"""

from __future__ import annotations

import os

from pytest_ocirun.errors import ConfigError, Unsupported

from . import Cgroup, knobs

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


def beside(cgroup: Cgroup, pid: int) -> Cgroup:
    """Find the cgroup of v2 where one more process can be: the container's, or where its init has moved.

    A container that manages cgroups, with systemd for one, hands the controllers of its own down; the kernel then lets
    no process into it (cgroup-v2.rst, "No Internal Process Constraint"). Its init is in one that takes some.

    Args:
        cgroup: the container's, on v2.
        pid: its init.
    """
    own = cgroup.v2_dir
    if own is None or not knobs.read_or_none(f"{own}/cgroup.subtree_control"):
        return cgroup
    lines = (knobs.read_or_none(f"/proc/{pid}/cgroup") or "").splitlines()
    path = next((line[3:] for line in lines if line.startswith("0::")), "")
    # The path may be seen from a cgroup namespace of ours, so the part that is the container's is looked for.
    parts = path.split("/")
    for count in range(len(parts), 1, -1):
        if own.endswith("/".join(parts[:count])):
            found = "/".join((own, *parts[count:]))
            return Cgroup.from_paths({**cgroup.paths, "dirs": {_TREE: found}, "made": []})
    return cgroup
