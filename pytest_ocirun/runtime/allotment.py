"""The cgroup of a new container: made with its limits, device rules and class of service.

Must not know: how cgroups are made (``runtime.cgroups``).
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pytest_ocirun.oci.runtime import Config
    from pytest_ocirun.runtime.cgroups import Cgroup, Manager


def make(manager: Manager, container_id: str, config: Config, *, allow_none: bool) -> Cgroup:
    """Make a container's cgroup.

    Args:
        manager: makes it.
        container_id: names it unless the config does.
        config: the container's.
        allow_none: go on without cgroups where none can be had and no limit is asked for.

    Raises:
        ConfigError, ContainerExists, KernelRefused, Unsupported: as ``Manager.create``.
    """
    resources = config.linux.resources
    if resources.devices or config.linux.namespace("user") is None:
        from pytest_ocirun.runtime.device_access import enforceable

        resources = enforceable(config, manager)
    rdt, path = config.linux.intel_rdt, config.linux.cgroups_path or None
    everywhere = any(mount.type == "cgroup" for mount in config.mounts)
    if rdt is None:
        return manager.create(path, container_id, resources, allow_none=allow_none, everywhere=everywhere)
    from pytest_ocirun.runtime.cgroups import resctrl

    top = resctrl.mount_point()
    cgroup = manager.create(path, container_id, resources, allow_none=allow_none, everywhere=everywhere)
    try:
        return resctrl.Classed(cgroup, resctrl.find(top, container_id, rdt))
    except BaseException:
        cgroup.remove()
        raise
