"""Whether ``linux.resources`` makes sense, in ``config.json`` or alone as ``update --resources`` gives it.

Responsible for: ``check_resources``. Must not know: cgroups, nor what a value is there.
"""

from __future__ import annotations

from pytest_ocirun.errors import ConfigError
from pytest_ocirun.runtime.validate_process import U64, check_ranges, one_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pytest_ocirun.oci.runtime import CPU, DeviceRule, Memory, Resources

_POSITIVE = (1, 2**63 - 1)
_LIMIT = (-1, 2**63 - 1)
_MAJOR = (-1, 2**12 - 1)
_MINOR = (-1, 2**20 - 1)

RANGES = (
    ("devices[].major", _MAJOR),
    ("devices[].minor", _MINOR),
    ("memory.limit", _LIMIT),
    ("memory.reservation", _LIMIT),
    ("memory.swap", _LIMIT),
    ("pids.limit", _LIMIT),
    ("cpu.shares", U64),
    ("cpu.quota", _LIMIT),
    ("cpu.period", _POSITIVE),
)
"""The smallest and largest value of numbers, by attribute of resources."""

DEVICE_KINDS = ("", "a", "b", "c")


def check_resources(resources: Resources, path: str) -> None:
    """Raise ConfigError for the first property that makes no sense.

    Args:
        resources: to be checked.
        path: where they lie in their document, for messages.
    """
    check_ranges(resources, RANGES, path)
    _check_memory(resources.memory, f"{path}.memory")
    _check_cpu(resources.cpu, f"{path}.cpu")
    for index, rule in enumerate(resources.devices):
        _check_device(rule, f"{path}.devices[{index}]")


def _check_memory(memory: Memory, path: str) -> None:
    if memory.swap is not None and memory.limit is not None and -1 < memory.swap < memory.limit:
        raise ConfigError(
            f"{path}.swap: {memory.swap} is memory and swap, so cannot be less than the limit {memory.limit}"
        )


def _check_cpu(cpu: CPU, path: str) -> None:
    for key, text in (("cpus", cpu.cpus), ("mems", cpu.mems)):
        if text and not set(text) <= set("0123456789,-"):
            raise ConfigError(f"{path}.{key}: expected a list such as 0-3,7, got {text!r}")


def _check_device(rule: DeviceRule, path: str) -> None:
    one_of(rule.type, DEVICE_KINDS, f"{path}.type")
    if not set(rule.access) <= set("rwm"):
        raise ConfigError(f"{path}.access: expected letters of 'rwm', got {rule.access!r}")
