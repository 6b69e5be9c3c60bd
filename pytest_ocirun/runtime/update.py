"""Changing the limits of a container that was created or runs.

Responsible for: what a change means beside the limits in force, and that the state directory knows of it. Must not
know: files of cgroups, nor where a change came from.

Only what a change names is written, with what it cannot be written without: memory with swap, a quota with its period.
Either all of it comes into force or none: what the kernel refuses takes back what was written before it.
"""

from __future__ import annotations

from pytest_ocirun.errors import Unsupported, WrongStatus
from pytest_ocirun.oci.codec import decode, encode
from pytest_ocirun.oci.runtime import Config, Memory, Resources
from pytest_ocirun.runtime import state
from pytest_ocirun.runtime.cgroups import Cgroup
from pytest_ocirun.runtime.validate_resources import check_resources

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pytest_ocirun.oci.runtime import IntelRdt

_IDENTITIES = (("major", "minor"), ("pageSize",), ("name",))
"""By what the entries of a list are told apart, so that a change replaces its own and no others."""


def update(root: str, container_id: str, change: Resources, rdt: IntelRdt | None = None) -> None:
    """Change the limits of a container.

    Args:
        root: the state root.
        container_id: the container.
        change: what is to be different; what it leaves out stays.
        rdt: a change of its Intel RDT schemas.

    Raises:
        ContainerNotFound: there is no such container.
        WrongStatus: it is still being created, or has stopped.
        ConfigError: a value makes no sense, alone or with the limits in force.
        Unsupported: this host has no such limit.
        KernelRefused: the kernel refused a value; all is as before.
    """
    check_resources(change, "$")
    with state.open_existing(root, container_id) as directory:
        document = directory.read()
        status = directory.status(document)
        if status in (state.CREATING, state.STOPPED):
            raise WrongStatus(f"update container {container_id}: it is {status}")
        config = decode(Config, document["config"])
        changed = merged(config.linux.resources, change)
        check_resources(changed, "$")
        config.linux.resources = changed
        wanted = _with_companions(change, changed)
        if change.devices:
            wanted.devices = _enforceable(config)
        cgroup = Cgroup.from_paths(document["cgroups"])
        try:
            cgroup.limit(wanted, undo=True)
            if rdt is not None:
                _reclass(cgroup, container_id, rdt)
            document["config"].setdefault("linux", {})["resources"] = encode(changed)
        finally:
            document["cgroups"] = cgroup.paths
            directory.write(document)


def merged(old: Resources, change: Resources) -> Resources:
    """The limits of ``old`` with those of ``change`` in their place.

    A memory limit of -1 takes that on swap away too, unless the change says otherwise.
    """
    plain = _merge(encode(old), encode(change))
    if change.memory.limit == -1 and change.memory.swap is None and old.memory.swap is not None:
        plain["memory"]["swap"] = -1
    if change.devices:
        plain["devices"] = encode(change)["devices"]
    return decode(Resources, plain)


def without_zeros(change: Resources) -> Resources:
    """The change without numbers that are 0 where nobody can mean 0: many clients write 0 for "as it is".

    pids.limit, burst, idle, swappiness and rates stay: there 0 says something.
    """
    plain: dict[str, Any] = encode(change)
    for group, names in (
        ("memory", ("limit", "reservation", "swap", "kernel", "kernelTCP")),
        ("cpu", ("shares", "quota", "period", "realtimeRuntime", "realtimePeriod")),
        ("blockIO", ("weight", "leafWeight")),
    ):
        for name in names:
            if plain.get(group, {}).get(name) == 0:
                del plain[group][name]
    return decode(Resources, plain)


def _merge(old: Any, new: Any) -> Any:
    if isinstance(old, dict) and isinstance(new, dict):
        return {**old, **{key: _merge(old.get(key), value) for key, value in new.items()}}
    if isinstance(old, list) and isinstance(new, list):
        return list({**{_identity(item): item for item in old}, **{_identity(item): item for item in new}}.values())
    return new


def _identity(item: dict[str, Any]) -> tuple[object, ...]:
    names = next((names for names in _IDENTITIES if names[0] in item), ())
    return tuple(item[name] for name in names) or (id(item),)


def _with_companions(change: Resources, changed: Resources) -> Resources:
    wanted = change.copy()
    memory, cpu = change.memory, change.cpu
    if memory.limit is not None or memory.swap is not None:
        wanted.memory = Memory(**{**vars(memory), "limit": changed.memory.limit, "swap": changed.memory.swap})
    if cpu.quota is not None or cpu.period is not None:
        wanted.cpu.quota, wanted.cpu.period = changed.cpu.quota, changed.cpu.period
    return wanted


def _reclass(cgroup: Cgroup, container_id: str, rdt: IntelRdt) -> None:
    from pytest_ocirun.runtime.cgroups import resctrl

    resctrl.mount_point()
    if not isinstance(cgroup, resctrl.Classed):
        raise Unsupported(
            f"change the Intel RDT schemas of container {container_id}: it was made without linux.intelRdt",
            hint="create it with an intelRdt, which may be empty",
        )
    cgroup.group.change(rdt)


def _enforceable(config: Config) -> list[Any]:
    from pytest_ocirun.runtime.cgroups import detect
    from pytest_ocirun.runtime.device_access import enforceable

    return enforceable(config, detect.manager()).devices
