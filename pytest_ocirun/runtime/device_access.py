"""Which device rules a container gets: those of its config, those of every container, or none.

Responsible for: choosing. Must not know: how rules are enforced (``runtime.cgroups.devices``). Imported only when a
config has device rules or no user namespace.

Device rules keep a process from opening devices by nodes that it finds or makes. In a user namespace, or without
CAP_MKNOD, it can make none; what it finds are the nodes that the config gives it, since the root is mounted without
devices. Who denies all devices but some, and gives no others, has said nothing that does not hold by itself: so a
plain user gets the container that root gets.

A config without rules and without a user namespace is treated as one that denies all, as by runc: who has root's
rights over nodes is not given the host's disks for want of a line.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pytest_ocirun.oci.runtime import Config, Resources
    from pytest_ocirun.runtime.cgroups import Manager


def enforceable(config: Config, manager: Manager) -> Resources:
    """The config's resources, with the device rules that are to be enforced.

    Args:
        config: the container's.
        manager: what will make its cgroup.

    Raises:
        Unsupported: the config's rules are needed, and nobody can enforce them here.
    """
    resources = config.linux.resources
    refusal = manager.device_refusal()
    if bool(resources.devices) == (refusal is None):
        return resources
    if refusal is None:
        from pytest_ocirun.oci.runtime import DeviceRule

        rules = [DeviceRule(allow=False, access="rwm")]
    elif _holds_by_itself(config):
        rules = []
    else:
        raise refusal.error("cannot enforce $.linux.resources.devices")
    changed = resources.copy()
    changed.devices = rules
    return changed


def _holds_by_itself(config: Config) -> bool:
    first, *others = config.linux.resources.devices
    denies_all = not first.allow and first.type in ("", "a") and {first.major, first.minor} <= {None, -1}
    if not denies_all or not all(rule.allow for rule in others):
        return False
    sets = config.process.capabilities
    makes_nodes = sets is not None and "CAP_MKNOD" in [*sets.bounding, *sets.permitted]
    return not makes_nodes or config.linux.namespace("user") is not None
