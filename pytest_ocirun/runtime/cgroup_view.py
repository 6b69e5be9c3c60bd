"""What a mount of type ``cgroup`` shows a container: its own cgroups. Must not know how it is mounted.

With a cgroup namespace the hierarchies are mounted anew, and the kernel shows them from the container's own
cgroup down. Without one such a mount would show, and if writable give, the whole host's; so the own cgroups
are bound there. A v1 hierarchy in which the container has no cgroup of its own is left out either way: even
in a namespace it would be the host's.
"""

from __future__ import annotations

import os

from pytest_ocirun.errors import ConfigError
from pytest_ocirun.runtime.cgroups import detect
from pytest_ocirun.runtime.mount_plan import BIND, MOUNT

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
        ``[name, "mount", option, ...]`` or ``[name, "bind", path]`` for each directory; an empty name is the mount
        point itself.

    Raises:
        ConfigError: what is asked for would show the host's cgroups.
    """
    layout, own = detect.layout(), cgroup.paths["dirs"]
    in_namespace = config.linux.namespace("cgroup") is not None
    if not in_namespace and any(mount.type == "cgroup2" for mount in config.mounts):
        raise ConfigError(
            "$.mounts: without a cgroup namespace a mount of type cgroup2 would show the host's cgroups",
            hint="give it type cgroup, or the container a cgroup namespace",
        )
    if layout.kind == "v2":
        if in_namespace:
            return [["", MOUNT]]
        return [["", BIND, own[_UNIFIED]]] if own else []
    names = {key: os.path.basename(layout.v1[key]) if key in layout.v1 else _UNIFIED for key in own}
    if not in_namespace:
        return [[name, BIND, path] for name, path in {names[key]: own[key] for key in own}.items()]
    found: dict[str, Hierarchy] = {}
    for controller, point in layout.v1.items():
        if os.path.basename(point) in names.values():
            options = ["none", controller] if controller.startswith("name=") else [controller]
            found.setdefault(point, [os.path.basename(point), MOUNT]).extend(options)
    return list(found.values())
