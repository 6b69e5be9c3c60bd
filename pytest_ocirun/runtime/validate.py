"""Whether a configuration makes sense, before anything of it is carried out.

Responsible for: ``CHECKS``, the list of small checks below. Must not know: how the configuration is carried
out, nor what this version leaves out (``runtime.unsupported``, which ``validate`` asks last).

Sources: runtime-spec 1.3.0 (config.md, config-linux.md) and, where it is silent, what runc refuses. Checks
read nothing of the system, with few exceptions: what a namespace to join is, and whether the kernel and the machine
have what is asked for.
"""

from __future__ import annotations

import os

from pytest_ocirun.errors import ConfigError, Unsupported
from pytest_ocirun.linux.caps import capget
from pytest_ocirun.linux.sched import NAMESPACES, NS_FILES
from pytest_ocirun.oci.codec import member
from pytest_ocirun.runtime.mount_options import PROPAGATIONS
from pytest_ocirun.runtime.seccomp_terms import check_filter
from pytest_ocirun.runtime.unsupported import refuse_unsupported, select
from pytest_ocirun.runtime.validate_mounts import check_devices, check_mapping_rows, check_mounts, mount_warnings
from pytest_ocirun.runtime.validate_process import (
    ID,
    U32,
    check_process,
    check_ranges,
    check_strings,
    one_of,
    process_warnings,
)
from pytest_ocirun.runtime.validate_resources import check_rdt, check_resources, resource_warnings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pytest_ocirun.oci.runtime import Config, Namespace

_POSITIVE = (1, 2**63 - 1)

RANGES = (
    ("linux.uid_mappings[].container_id", ID),
    ("linux.uid_mappings[].host_id", ID),
    ("linux.uid_mappings[].size", (1, 2**32 - 1)),
    ("linux.gid_mappings[].container_id", ID),
    ("linux.gid_mappings[].host_id", ID),
    ("linux.gid_mappings[].size", (1, 2**32 - 1)),
    ("mounts[].uid_mappings[].container_id", ID),
    ("mounts[].uid_mappings[].host_id", ID),
    ("mounts[].uid_mappings[].size", (1, 2**32 - 1)),
    ("mounts[].gid_mappings[].container_id", ID),
    ("mounts[].gid_mappings[].host_id", ID),
    ("mounts[].gid_mappings[].size", (1, 2**32 - 1)),
    ("linux.devices[].major", (0, 2**12 - 1)),
    ("linux.devices[].minor", (0, 2**20 - 1)),
    ("linux.devices[].file_mode", U32),
    ("linux.devices[].uid", ID),
    ("linux.devices[].gid", ID),
    ("hooks.prestart[].timeout", _POSITIVE),
    ("hooks.create_runtime[].timeout", _POSITIVE),
    ("hooks.create_container[].timeout", _POSITIVE),
    ("hooks.start_container[].timeout", _POSITIVE),
    ("hooks.poststart[].timeout", _POSITIVE),
    ("hooks.poststop[].timeout", _POSITIVE),
)
"""The smallest and largest value of numbers, by attribute of a configuration."""

CLOCKS = ("monotonic", "boottime")


def validate(config: Config) -> list[str]:
    """Check a configuration.

    Returns:
        Warnings: what is odd but to be carried on with.

    Raises:
        ConfigError: something makes no sense; the message begins with the property's path.
        Unsupported: it makes sense, but this version cannot do it.
    """
    for check in CHECKS:
        check(config)
    refuse_unsupported(config)
    granted = -1 if config.linux.namespace("user") else capget()[1]
    return [
        *process_warnings(config.process, "$.process", granted=granted),
        *mount_warnings(config),
        *resource_warnings(config.linux.resources, "$.linux.resources"),
    ]


def _check_process(config: Config) -> None:
    check_process(config.process, "$.process")


def _check_version(config: Config) -> None:
    """Take every version 1, also of development: the specification promises that they agree."""
    major, dot, rest = config.oci_version.partition(".")
    if major != "1" or not dot or not rest[:1].isdigit():
        raise ConfigError(f"$.ociVersion: expected a version 1.x.y, got {config.oci_version!r}")


def _check_strings(config: Config) -> None:
    check_strings(config, "$")


def _check_ranges(config: Config) -> None:
    check_ranges(config, RANGES, "$")


def _check_root(config: Config) -> None:
    if not config.root.path:
        raise ConfigError("$.root.path: must not be empty")


def _check_annotations(config: Config) -> None:
    if "" in config.annotations:
        raise ConfigError("$.annotations: a key must not be empty")


def _check_namespaces(config: Config) -> None:
    seen = set()
    for index, namespace in enumerate(config.linux.namespaces):
        where = f"$.linux.namespaces[{index}]"
        one_of(namespace.type, NAMESPACES, f"{where}.type")
        if namespace.type in seen:
            raise ConfigError(f"{where}.type: a namespace of type {namespace.type} is there twice")
        if namespace.path and not namespace.path.startswith("/"):
            raise ConfigError(f"{where}.path: must be absolute, got {namespace.path!r}")
        if namespace.path:
            _check_type(namespace, where)
        seen.add(namespace.type)


def _check_type(namespace: Namespace, where: str) -> None:
    """Look what the file of a namespace stands for; whether it may be joined the kernel says later."""
    from pytest_ocirun.linux.proc import namespace_type

    try:
        found = namespace_type(namespace.path)
    except OSError as error:
        raise ConfigError(f"{where}.path: {namespace.path}: {error.strerror}") from error
    wanted = NAMESPACES[namespace.type]
    if found != wanted:
        kinds = [f"a namespace of type {kind}" for kind, flag in NAMESPACES.items() if flag == found]
        what = kinds[0] if kinds else "no namespace"
        raise ConfigError(f"{where}.path: {namespace.path} is {what}, not of type {namespace.type}")
    if namespace.type == "mount":
        from pytest_ocirun.runtime.stage import shares_mounts

        if shares_mounts(namespace.path):
            raise ConfigError(
                f"{where}.path: {namespace.path} is the host's: its root would be replaced for every process",
                hint="Leave the path out, and the container gets a mount namespace of its own.",
            )


def _check_mount_namespace(config: Config) -> None:
    """Without one, mounts are made in the runtime's, where the root of a user namespace has no say."""
    if config.linux.namespace("mount") is None and config.linux.namespace("user") is not None:
        raise ConfigError("$.linux.namespaces: a container with a user namespace needs a mount namespace too")


def _check_mappings(config: Config) -> None:
    user = config.linux.namespace("user")
    for name, mappings in (("uidMappings", config.linux.uid_mappings), ("gidMappings", config.linux.gid_mappings)):
        if mappings and user is None:
            raise ConfigError(f"$.linux.{name}: needs a namespace of type user in linux.namespaces")
        if user is not None and not user.path and not mappings:
            raise ConfigError(f"$.linux.{name}: a new user namespace needs it: no id would exist inside")
        check_mapping_rows(mappings, f"$.linux.{name}")


def _check_names(config: Config) -> None:
    for key, name in (("hostname", config.hostname), ("domainname", config.domainname)):
        namespace = config.linux.namespace("uts")
        if name and (namespace is None or _is_own(namespace)):
            raise ConfigError(
                f"$.{key}: needs a namespace of type uts in linux.namespaces, other than the runtime's own"
            )
        if len(name.encode()) > 64:
            raise ConfigError(f"$.{key}: the kernel takes 64 bytes, got {len(name.encode())}")


def _check_paths(config: Config) -> None:
    for key, paths in (("maskedPaths", config.linux.masked_paths), ("readonlyPaths", config.linux.readonly_paths)):
        for index, path in enumerate(paths):
            if not path.startswith("/"):
                raise ConfigError(f"$.linux.{key}[{index}]: must be absolute, got {path!r}")
    if ".." in config.linux.cgroups_path.split("/"):
        raise ConfigError(f"$.linux.cgroupsPath: must not contain '..', got {config.linux.cgroups_path!r}")
    one_of(config.linux.rootfs_propagation, ("", *PROPAGATIONS), "$.linux.rootfsPropagation")


def _check_sysctl(config: Config) -> None:
    if not config.linux.sysctl:
        return
    from pytest_ocirun.runtime.sysctls import is_name, namespace_of, sysctl_path

    seen: dict[str, str] = {}
    for name in config.linux.sysctl:
        where = member("$.linux.sysctl", name)
        path = sysctl_path(name)
        if not is_name(path):
            raise ConfigError(f"{where}: is no name of a kernel parameter")
        kind = namespace_of(path)
        if kind is None:
            raise ConfigError(f"{where}: belongs to no namespace: it would change the whole machine")
        namespace = config.linux.namespace(kind)
        if namespace is None or _is_own(namespace):
            raise ConfigError(f"{where}: needs a namespace of type {kind} other than the runtime's own")
        if path in seen:
            raise ConfigError(f"{where}: is the same as {seen[path]!r}")
        seen[path] = name
        if (path, True) in (("kernel/hostname", bool(config.hostname)), ("kernel/domainname", bool(config.domainname))):
            raise ConfigError(f"{where}: $.{path.removeprefix('kernel/')} says it already")


def _is_own(namespace: Namespace) -> bool:
    if not namespace.path:
        return False
    try:
        return os.path.samefile(namespace.path, f"/proc/self/ns/{NS_FILES[namespace.type]}")
    except OSError:
        return False


def _check_time(config: Config) -> None:
    if config.linux.namespace("time") is not None and not os.path.exists("/proc/self/ns/time"):
        raise Unsupported("$.linux.namespaces: this kernel has no time namespaces")
    for clock, offset in config.linux.time_offsets.items():
        where = member("$.linux.timeOffsets", clock)
        one_of(clock, CLOCKS, where)
        namespace = config.linux.namespace("time")
        if namespace is None or namespace.path:
            raise ConfigError(f"{where}: needs a new namespace of type time in linux.namespaces")
        if not 0 <= (offset.nanosecs or 0) < 10**9:
            raise ConfigError(f"{where}.nanosecs: expected 0 to 999999999, got {offset.nanosecs}")


def _check_user(config: Config) -> None:
    """Refuse a user that would not exist inside: every id must be mapped."""
    user, linux = config.process.user, config.linux
    if linux.namespace("user") is None or not linux.uid_mappings:
        return
    wanted = [("uid", user.uid, linux.uid_mappings), ("gid", user.gid, linux.gid_mappings)]
    wanted += [(f"additionalGids[{i}]", gid, linux.gid_mappings) for i, gid in enumerate(user.additional_gids)]
    for name, number, rows in wanted:
        if not any(row.container_id <= number < row.container_id + row.size for row in rows):
            raise ConfigError(f"$.process.user.{name}: the container's user namespace has no id {number}")


def _check_rarities(config: Config) -> None:
    """What few containers ask for; the modules that know more are loaded only then."""
    linux = config.linux
    if linux.personality or linux.memory_policy:
        from pytest_ocirun.runtime import tuning_terms

        if linux.personality:
            tuning_terms.check_personality(linux.personality, "$.linux.personality")
        if linux.memory_policy:
            tuning_terms.check_memory_policy(linux.memory_policy, "$.linux.memoryPolicy")
    if linux.mount_label:
        from pytest_ocirun.runtime.label_plan import check_mounts

        check_mounts(linux.mount_label)
    if linux.net_devices:
        from pytest_ocirun.runtime.net_devices import check

        check(config)


def _check_resources(config: Config) -> None:
    check_resources(config.linux.resources, "$.linux.resources")
    if config.linux.intel_rdt is not None:
        check_rdt(config.linux.intel_rdt, "$.linux.intelRdt")


def _check_seccomp(config: Config) -> None:
    if config.linux.seccomp is not None:
        check_filter(config.linux.seccomp)


def _check_hooks(config: Config) -> None:
    for name in ("prestart", "create_runtime", "create_container", "start_container", "poststart", "poststop"):
        for place, path in select(config, f"hooks.{name}[].path"):
            if isinstance(path, str) and not path.startswith("/"):
                raise ConfigError(f"{place}: must be absolute, got {path!r}")
        for place, variable in select(config, f"hooks.{name}[].env[]"):
            if isinstance(variable, str) and variable.find("=") < 1:
                raise ConfigError(f"{place}: expected NAME=VALUE, got {variable!r}")


CHECKS = (
    _check_version,
    _check_strings,
    _check_ranges,
    _check_root,
    _check_process,
    _check_annotations,
    _check_namespaces,
    _check_mount_namespace,
    _check_mappings,
    _check_names,
    _check_paths,
    check_mounts,
    _check_sysctl,
    _check_time,
    _check_user,
    _check_rarities,
    check_devices,
    _check_resources,
    _check_seccomp,
    _check_hooks,
)
