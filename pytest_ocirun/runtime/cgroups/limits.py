"""OCI resources as cgroup files and values, and back.

Responsible for: which file takes which limit, the value's arithmetic and range, writing, reading back. Must
not know: where a cgroup is or how it was made.

What the values mean, as in runtime-spec 1.3 (config-linux.md, "Memory", "CPU", "PIDs") and, where it is
silent, as in runc:

- memory.limit without memory.swap means no swap at all (v2 ``memory.swap.max`` 0, v1 memsw = limit), wherever
  the kernel accounts for swap. runc leaves swap unlimited then; a limit meant for a test would only make it
  slow.
- memory.swap counts memory plus swap; v2 takes the difference. -1 is unlimited.
- memory limits are rounded down to whole pages by the kernel.
- pids.limit 0 is written as 1: the first process is in, and cannot fork. The kernel's 0 would differ only in
  refusing ``CLONE_INTO_CGROUP`` as well.
- cpu.shares 0 is unset, others are clamped to 2..262144; v2's weight is runc 1.3's curve through 1024 -> 100.
- A memory limit, quota or period of 0 is refused: nothing could run.
"""

from __future__ import annotations

import errno
import os

from pytest_ocirun.errors import ConfigError, KernelRefused, Unsupported

from . import knobs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from pytest_ocirun.oci.runtime import CPU, Memory, Resources

PAGE = os.sysconf("SC_PAGE_SIZE")
UNLIMITED_V1 = (2**63 - 1) // PAGE * PAGE
DEFAULT_PERIOD = 100_000
_SHARES = (2, 262_144)
_REFUSED = {
    "memory": ("kernel", "kernel_tcp", "swappiness", "disable_oom_killer"),
    "cpu": ("burst", "realtime_runtime", "realtime_period", "idle"),
    "": ("block_io", "hugepage_limits", "network", "rdma", "unified"),
}


class Setting:
    """One value for one file.

    Args:
        limit: the OCI name, ``memory.limit``.
        asked: the OCI value, for messages.
        controller: the controller that owns the file.
        file: the file's name.
        value: what to write.
        expected: what to read back; ``value`` when None.
        optional: whether a kernel without the file is good enough.
    """

    __slots__ = ("asked", "controller", "expected", "file", "limit", "optional", "value")

    def __init__(
        self,
        limit: str,
        asked: object,
        controller: str,
        file: str,
        value: str,
        *,
        expected: str | None = None,
        optional: bool = False,
    ) -> None:
        self.limit = limit
        self.asked = asked
        self.controller = controller
        self.file = file
        self.value = value
        self.expected = value if expected is None else expected
        self.optional = optional

    def write(self, directory: str) -> None:
        """Write the value into the cgroup ``directory`` and read it back.

        Raises:
            KernelRefused: the kernel refused the value or reads back another.
            Unsupported: the file is missing.
        """
        path = f"{directory}/{self.file}"
        attempt = f"cannot set {self.limit} to {self.asked} (write {self.value!r} to {path})"
        try:
            knobs.put(path, self.value)
            got = knobs.read(path)
        except FileNotFoundError as error:
            if self.optional:
                return
            raise Unsupported(f"{attempt}: there is no such file", hint=_missing_hint(self)) from error
        except OSError as error:
            raise knobs.refused(attempt, error, _refusal_hint(self)) from error
        if not _same(self.file, self.expected, got):
            message = f"{attempt}: the kernel reads back {got!r}"
            raise KernelRefused(message, errno=errno.ERANGE, hint=_refusal_hint(self))


def settings_v1(resources: Resources | None) -> list[Setting]:
    """Translate resources for cgroup v1, in the order of writing.

    Raises:
        ConfigError: a value is out of its range.
        Unsupported: a member of resources is not implemented.
    """
    if resources is None:
        return []
    _refuse_unknown(resources)
    return [*_memory_v1(resources.memory), *_pids(resources.pids.limit), *_cpu_v1(resources.cpu)]


def settings_v2(resources: Resources | None) -> list[Setting]:
    """Translate resources for cgroup v2, in the order of writing.

    Raises:
        ConfigError: a value is out of its range.
        Unsupported: a member of resources is not implemented.
    """
    if resources is None:
        return []
    _refuse_unknown(resources)
    return [*_memory_v2(resources.memory), *_pids(resources.pids.limit), *_cpu_v2(resources.cpu)]


def controllers(settings: Iterable[Setting]) -> list[str]:
    """List the controllers that settings cannot do without, in their order, each once."""
    return list(dict.fromkeys(setting.controller for setting in settings if not setting.optional))


def weight(shares: int) -> int:
    """Turn cpu.shares (2..262144) into cpu.weight (1..10000), as runc since 1.3 does: 1024 becomes 100."""
    from math import ceil, log2

    exponent = log2(min(max(shares, _SHARES[0]), _SHARES[1]))
    return max(1, min(10_000, ceil(10 ** ((exponent * exponent + 125 * exponent) / 612 - 7 / 34))))


def _memory_v1(memory: Memory) -> list[Setting]:
    found = []
    limit, swap = _checked_memory(memory)
    total = limit if swap is None else swap
    if limit is not None:
        found.append(_bytes_v1("memory.limit", limit, "memory.limit_in_bytes"))
    if total is not None:
        found.append(_bytes_v1("memory.swap", total, "memory.memsw.limit_in_bytes", optional=swap is None))
    if memory.reservation is not None:
        found.append(_bytes_v1("memory.reservation", memory.reservation, "memory.soft_limit_in_bytes"))
    return found


def _bytes_v1(limit: str, value: int, file: str, *, optional: bool = False) -> Setting:
    expected = UNLIMITED_V1 if value == -1 else min(value // PAGE * PAGE, UNLIMITED_V1)
    return Setting(limit, value, "memory", file, str(value), expected=str(expected), optional=optional)


def _memory_v2(memory: Memory) -> list[Setting]:
    found = []
    limit, swap = _checked_memory(memory)
    if limit is not None:
        found.append(_bytes_v2("memory.limit", limit, limit, "memory.max"))
        if swap is None and limit != -1:
            found.append(_bytes_v2("memory.swap", limit, 0, "memory.swap.max", optional=True))
    if swap is not None:
        beyond = -1 if swap == -1 else swap - (limit or 0)
        found.append(_bytes_v2("memory.swap", swap, beyond, "memory.swap.max"))
    if memory.reservation is not None:
        found.append(_bytes_v2("memory.reservation", memory.reservation, memory.reservation, "memory.low"))
    return found


def _bytes_v2(limit: str, asked: int, value: int, file: str, *, optional: bool = False) -> Setting:
    text = "max" if value == -1 or value >= UNLIMITED_V1 else str(value)
    expected = text if text == "max" else str(value // PAGE * PAGE)
    return Setting(limit, asked, "memory", file, text, expected=expected, optional=optional)


def _checked_memory(memory: Memory) -> tuple[int | None, int | None]:
    limit, swap, reservation = memory.limit, memory.swap, memory.reservation
    for name, value in (("limit", limit), ("swap", swap)):
        if value is not None and (value == 0 or value < -1):
            raise ConfigError(
                f"memory.{name} is {value}: expected a number of bytes above 0, or -1 for unlimited",
                hint="leave it out to set no limit",
            )
    if reservation is not None and reservation < -1:
        raise ConfigError(f"memory.reservation is {reservation}: expected bytes, or -1 for unlimited")
    if swap is not None and swap != -1:
        if limit is None or limit == -1:
            raise ConfigError(
                f"memory.swap is {swap} without a memory.limit", hint="it limits memory plus swap: set both"
            )
        if swap < limit:
            raise ConfigError(
                f"memory.swap is {swap}, below memory.limit {limit}",
                hint="it limits memory plus swap: give at least the memory limit",
            )
    return limit, swap


def _pids(limit: int | None) -> list[Setting]:
    if limit is None:
        return []
    if limit < -1:
        raise ConfigError(f"pids.limit is {limit}: expected a number of processes, or -1 for unlimited")
    value = "max" if limit == -1 else str(max(limit, 1))
    return [Setting("pids.limit", limit, "pids", "pids.max", value)]


def _cpu_v1(cpu: CPU) -> list[Setting]:
    _check_cpu(cpu)
    found = []
    if cpu.shares:
        value = str(min(max(cpu.shares, _SHARES[0]), _SHARES[1]))
        found.append(Setting("cpu.shares", cpu.shares, "cpu", "cpu.shares", value))
    if cpu.period is not None:
        found.append(Setting("cpu.period", cpu.period, "cpu", "cpu.cfs_period_us", str(cpu.period)))
    if cpu.quota is not None:
        found.append(Setting("cpu.quota", cpu.quota, "cpu", "cpu.cfs_quota_us", str(cpu.quota)))
    return found + _cpuset(cpu)


def _cpu_v2(cpu: CPU) -> list[Setting]:
    _check_cpu(cpu)
    found = []
    if cpu.shares:
        found.append(Setting("cpu.shares", cpu.shares, "cpu", "cpu.weight", str(weight(cpu.shares))))
    if cpu.quota is not None or cpu.period is not None:
        quota = "max" if cpu.quota is None or cpu.quota == -1 else str(cpu.quota)
        value = f"{quota} {DEFAULT_PERIOD if cpu.period is None else cpu.period}"
        found.append(Setting("cpu.quota and cpu.period", value, "cpu", "cpu.max", value))
    return found + _cpuset(cpu)


def _cpuset(cpu: CPU) -> list[Setting]:
    pairs = (("cpus", cpu.cpus), ("mems", cpu.mems))
    return [Setting(f"cpu.{name}", text, "cpuset", f"cpuset.{name}", text) for name, text in pairs if text]


def _check_cpu(cpu: CPU) -> None:
    if cpu.shares is not None and cpu.shares < 0:
        raise ConfigError(f"cpu.shares is {cpu.shares}: expected a number from 2 to 262144")
    if cpu.quota is not None and (cpu.quota == 0 or cpu.quota < -1):
        raise ConfigError(f"cpu.quota is {cpu.quota}: expected microseconds, or -1 for unlimited")
    if cpu.period is not None and cpu.period <= 0:
        raise ConfigError(f"cpu.period is {cpu.period}: expected microseconds")
    for name, text in (("cpus", cpu.cpus), ("mems", cpu.mems)):
        try:
            _members(text)
        except ValueError as error:
            raise ConfigError(f"cpu.{name} is {text!r}: expected a list like 0-2,5") from error


def _refuse_unknown(resources: Resources) -> None:
    for owner, names in _REFUSED.items():
        holder = getattr(resources, owner, None) if owner else resources
        for name in names:
            if _is_set(getattr(holder, name, None)):
                path = f"{owner}.{name}" if owner else name
                raise Unsupported(
                    f"linux.resources.{path} is asked for, and this version cannot set it",
                    hint="remove it from the config; memory, pids, cpu and cpuset limits can be had",
                )


def _is_set(value: object) -> bool:
    """Whether a decoded property asks for anything: clients write ``"blockIO": {}`` and ``false``."""
    if value is None or value is False:
        return False
    if isinstance(value, (int, str)):
        return value != ""
    if isinstance(value, dict):
        return any(_is_set(item) for item in value.values())
    if isinstance(value, (list, tuple)):
        return bool(value)
    slots = getattr(type(value), "__slots__", ())
    members = [getattr(value, name, None) for name in slots] + list(getattr(value, "__dict__", {}).values())
    return any(_is_set(member) for member in members)


def _same(file: str, expected: str, got: str) -> bool:
    if file.startswith("cpuset."):
        return _members(expected) == _members(got)
    return expected == got


def _members(text: str) -> set[int]:
    """Expand a cpuset(7) list, ``0-2,5``."""
    found: set[int] = set()
    for part in text.strip().split(","):
        if part:
            first, _, last = part.partition("-")
            found.update(range(int(first), int(last or first) + 1))
    return found


def _missing_hint(setting: Setting) -> str:
    if setting.limit == "memory.swap":
        return "the kernel does not account for swap: boot it with swapaccount=1, or leave memory.swap out"
    return f"the {setting.controller} controller is not enabled here, or this kernel's has no {setting.file}"


def _refusal_hint(setting: Setting) -> str | None:
    return {
        "cpu": "quota at least 1000, period 1000 to 1000000, and no more than the parent cgroups allow",
        "cpuset": "name processors and memory nodes that are online and allowed in the parent cgroup",
        "memory": "the memory in use may be above the limit already",
    }.get(setting.controller)
