"""What a mount of type ``cgroup`` or ``cgroup2`` shows a container: its own cgroups. Must not know how it is mounted.

With a cgroup namespace the hierarchies are mounted anew, and the kernel shows them from the container's own
cgroup down. Without one such a mount would show, and if writable give, the whole host's; so the own cgroups
are bound there. A v1 hierarchy in which the container has no cgroup of its own is left out either way: even
in a namespace it would be the host's.

On v1 a ``cgroup`` mount is a tmpfs with a directory for each hierarchy, named as on the host, and links by the names of
single controllers where several share one; beside them, on a hybrid host, ``unified``. On v2 either type is the tree
itself, as a ``cgroup2`` mount is everywhere.
"""

from __future__ import annotations

import os

from pytest_ocirun.runtime.cgroups import detect
from pytest_ocirun.runtime.mount_plan import BIND, LINK, MOUNT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pytest_ocirun.oci.runtime import Config
    from pytest_ocirun.runtime.cgroups import Cgroup

    Hierarchy = list[str]

_UNIFIED = "unified"


def hierarchies(config: Config, cgroup: Cgroup) -> list[Hierarchy]:
    """The directories below a cgroup mount.

    Args:
        config: the container's.
        cgroup: its place.

    Returns:
        ``[name, "mount", file system, option, ...]``, ``[name, "bind", path]`` or ``[name, "link", target]`` for each;
        an empty name is the mount point itself.
    """
    layout, own = detect.layout(), cgroup.paths["dirs"]
    in_namespace = config.linux.namespace("cgroup") is not None
    if layout.kind == "v2":
        if in_namespace:
            return [["", MOUNT, "cgroup2"]]
        return [["", BIND, own[_UNIFIED]]] if own else []
    found: dict[str, Hierarchy] = {}
    for key in own:
        point = layout.v1.get(key, "")
        name = os.path.basename(point) if point else _UNIFIED
        if not in_namespace:
            found[name] = [name, BIND, own[key]]
        elif name == _UNIFIED:
            found[name] = [name, MOUNT, "cgroup2"]
        else:
            together = [each for each in layout.v1 if layout.v1[each] == point]
            options = [word for each in together for word in (["none", each] if each.startswith("name=") else [each])]
            found[name] = [name, MOUNT, "cgroup", *options]
    links = {key: os.path.basename(layout.v1[key]) for key in own if key in layout.v1 and not key.startswith("name=")}
    return [*found.values(), *([key, LINK, name] for key, name in links.items() if key != name)]
