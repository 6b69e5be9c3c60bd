"""Whether ``linux.resources`` makes sense, in ``config.json`` or alone as ``update --resources`` gives it.

Responsible for: ``check_resources`` and ``resource_warnings``. Must not know: cgroups, nor what a value is there.
"""

from __future__ import annotations

from pytest_ocirun.errors import ConfigError
from pytest_ocirun.oci.codec import member
from pytest_ocirun.runtime.validate_process import U32, U64, check_ranges, one_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pytest_ocirun.oci.codec import Document
    from pytest_ocirun.oci.runtime import CPU, BlockIO, DeviceRule, HugepageLimit, IntelRdt, Memory, Resources

_POSITIVE = (1, 2**63 - 1)
_LIMIT = (-1, 2**63 - 1)
_NUMBER = (0, 2**32 - 1)
_SIZE_UNITS = ("KB", "MB", "GB")

RANGES = {
    "devices": (("major", (-1, 2**12 - 1)), ("minor", (-1, 2**20 - 1))),
    "memory": (
        ("limit", _LIMIT),
        ("reservation", _LIMIT),
        ("swap", _LIMIT),
        ("kernel_tcp", _LIMIT),
        ("swappiness", (0, 100)),
    ),
    "pids": (("limit", _LIMIT),),
    "cpu": (
        ("shares", U64),
        ("quota", _LIMIT),
        ("burst", U64),
        ("period", _POSITIVE),
        ("realtime_runtime", _LIMIT),
        ("realtime_period", _POSITIVE),
        ("idle", (0, 1)),
    ),
    "hugepage_limits": (("limit", U64),),
    "network": (("class_id", U32), ("priorities[].priority", U32)),
}
"""The smallest and largest value of numbers, by group of resources and attribute of its members."""

_THROTTLES = ("throttle_read_bps", "throttle_write_bps", "throttle_read_iops", "throttle_write_iops")
BLOCK_RANGES = (
    ("weight_device[].major", _NUMBER),
    ("weight_device[].minor", _NUMBER),
    *((f"{name}_device[].{part}", _NUMBER) for name in _THROTTLES for part in ("major", "minor")),
    *((f"{name}_device[].rate", U64) for name in _THROTTLES),
)
"""The same, by attribute of ``blockIO``."""

_KEYS = {"hugepage_limits": "hugepageLimits"}

DEVICE_KINDS = ("", "a", "b", "c")


def check_resources(resources: Resources, path: str) -> None:
    """Raise ConfigError for the first property that makes no sense.

    Args:
        resources: to be checked.
        path: where they lie in their document, for messages.
    """
    for name, ranges in RANGES.items():
        group = getattr(resources, name)
        for where, member_of in _members(group, f"{path}.{_KEYS.get(name, name)}"):
            check_ranges(member_of, ranges, where)
    _check_memory(resources.memory, f"{path}.memory")
    _check_cpu(resources.cpu, f"{path}.cpu")
    for index, rule in enumerate(resources.devices):
        _check_device(rule, f"{path}.devices[{index}]")
    if resources.block_io is not None:
        _check_block(resources.block_io, f"{path}.blockIO")
    for index, limit in enumerate(resources.hugepage_limits):
        _check_hugepages(limit, f"{path}.hugepageLimits[{index}].pageSize")
    for device, entry in resources.rdma.items():
        where = member(f"{path}.rdma", device)
        if entry.hca_handles is None and entry.hca_objects is None:
            raise ConfigError(f"{where}: needs hcaHandles or hcaObjects")
        check_ranges(entry, (("hca_handles", U32), ("hca_objects", U32)), where)
    for name in resources.unified:
        controller, _, rest = name.partition(".")
        if not controller or not rest or "/" in name:
            raise ConfigError(f"{member(f'{path}.unified', name)}: must name a file such as memory.high")


def _members(group: Document | list[Document] | None, path: str) -> list[tuple[str, Document]]:
    """The documents of a group that say anything; most groups of most configurations do not."""
    if isinstance(group, list):
        return [(f"{path}[{index}]", item) for index, item in enumerate(group)]
    return [] if group is None or not any(map(_says, vars(group).values())) else [(path, group)]


def _says(value: object) -> bool:
    return value is not None and value not in ("", [])


def check_rdt(rdt: IntelRdt, path: str) -> None:
    """Raise ConfigError for the first property of ``intelRdt`` that makes no sense."""
    if (
        rdt.clos_id in (".", "..", "info", "mon_groups", "mon_data")
        or "/" in rdt.clos_id[1:]
        or rdt.clos_id[:1] == "/" < rdt.clos_id
    ):
        raise ConfigError(f"{path}.closID: must be a single name or '/', got {rdt.clos_id!r}")
    for key, text in (("l3CacheSchema", rdt.l3_cache_schema), ("memBwSchema", rdt.mem_bw_schema)):
        if text.endswith("\n") or (key == "memBwSchema" and "\n" in text):
            raise ConfigError(f"{path}.{key}: must not contain a newline, got {text!r}")
    if rdt.mem_bw_schema and not rdt.mem_bw_schema.startswith("MB:"):
        raise ConfigError(f"{path}.memBwSchema: must begin with 'MB:', got {rdt.mem_bw_schema!r}")


def resource_warnings(resources: Resources, path: str) -> list[str]:
    """Name what is taken and does nothing: limits that the kernel does not have any more."""
    memory, found = resources.memory, []
    if memory.kernel is not None:
        found.append(f"{path}.memory.kernel: does nothing: the kernel has no such limit any more")
    if memory.kernel_tcp is not None:
        found.append(f"{path}.memory.kernelTCP: does nothing on cgroup v2, which has no such limit")
    return found


def _check_memory(memory: Memory, path: str) -> None:
    if memory.swap is not None and memory.limit is not None and -1 < memory.swap < memory.limit:
        raise ConfigError(
            f"{path}.swap: {memory.swap} is memory and swap, so cannot be less than the limit {memory.limit}"
        )


def _check_cpu(cpu: CPU, path: str) -> None:
    for key, text in (("cpus", cpu.cpus), ("mems", cpu.mems)):
        if text and not set(text) <= set("0123456789,-"):
            raise ConfigError(f"{path}.{key}: expected a list such as 0-3,7, got {text!r}")
    if cpu.burst and cpu.quota is not None and 0 < cpu.quota < cpu.burst:
        raise ConfigError(f"{path}.burst: must be no more than the quota {cpu.quota}, got {cpu.burst}")


def _check_device(rule: DeviceRule, path: str) -> None:
    one_of(rule.type, DEVICE_KINDS, f"{path}.type")
    if not set(rule.access) <= set("rwm"):
        raise ConfigError(f"{path}.access: expected letters of 'rwm', got {rule.access!r}")


def _check_block(block: BlockIO, path: str) -> None:
    check_ranges(block, BLOCK_RANGES, path)
    weights = [(path, block.weight, block.leaf_weight)]
    for index, device in enumerate(block.weight_device):
        where = f"{path}.weightDevice[{index}]"
        if device.weight is None and device.leaf_weight is None:
            raise ConfigError(f"{where}: needs weight or leafWeight")
        weights.append((where, device.weight, device.leaf_weight))
    for where, *values in weights:
        for key, value in zip(("weight", "leafWeight"), values, strict=True):
            if value and not 10 <= value <= 1000:
                raise ConfigError(f"{where}.{key}: expected 10 to 1000, or 0 for unset, got {value}")


def _check_hugepages(limit: HugepageLimit, path: str) -> None:
    digits, unit = limit.page_size[:-2], limit.page_size[-2:]
    if unit not in _SIZE_UNITS or not digits.isascii() or not digits.isdigit():
        raise ConfigError(f"{path}: expected a size such as 64KB, 2MB or 1GB, got {limit.page_size!r}")
