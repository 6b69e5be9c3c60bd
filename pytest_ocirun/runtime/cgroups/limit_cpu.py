"""``linux.resources.cpu`` as files and values of the cpu and cpuset controllers.

Responsible for: see ``limits``, which imports this when a config limits the processor. Must not know: how values are
written.

- cpu.shares 0 is unset, others are clamped to 2..262144; v2's weight is runc 1.3's curve through 1024 -> 100.
- Real-time shares exist on v1 alone (the kernel's Documentation/scheduler/sched-rt-group.rst).
- Shares and idle exclude each other: an idle cgroup has the least weight there is. Both are written, shares first, as
  the kernel takes no shares for an idle one.
"""

from __future__ import annotations

from pytest_ocirun.errors import ConfigError

from .limits import only_on
from .setting import Setting

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pytest_ocirun.oci.runtime import CPU

DEFAULT_PERIOD = 100_000
_SHARES = (2, 262_144)


def v1(cpu: CPU) -> list[Setting]:
    """The settings for cgroup v1, in the order of writing.

    Raises:
        ConfigError: a value is out of its range.
    """
    _check(cpu)
    found = []
    if cpu.shares:
        value = str(min(max(cpu.shares, _SHARES[0]), _SHARES[1]))
        found.append(Setting("cpu.shares", cpu.shares, "cpu", "cpu.shares", value))
    found += _numbers(
        ("cpu.period", cpu.period, "cpu.cfs_period_us"),
        ("cpu.quota", cpu.quota, "cpu.cfs_quota_us"),
        ("cpu.burst", cpu.burst, "cpu.cfs_burst_us"),
        ("cpu.realtimePeriod", cpu.realtime_period, "cpu.rt_period_us"),
        ("cpu.realtimeRuntime", cpu.realtime_runtime, "cpu.rt_runtime_us"),
        ("cpu.idle", cpu.idle, "cpu.idle"),
    )
    return found + _cpuset(cpu)


def v2(cpu: CPU) -> list[Setting]:
    """The settings for cgroup v2, in the order of writing.

    Raises:
        ConfigError: a value is out of its range.
        Unsupported: v2 has no such limit.
    """
    _check(cpu)
    found = []
    for limit, value in (("cpu.realtimePeriod", cpu.realtime_period), ("cpu.realtimeRuntime", cpu.realtime_runtime)):
        if value is not None:
            raise only_on("v2", limit, value, "boot with cgroup v1, or give the processes no real-time scheduling")
    if cpu.shares:
        found.append(Setting("cpu.shares", cpu.shares, "cpu", "cpu.weight", str(weight(cpu.shares))))
    if cpu.quota is not None or cpu.period is not None:
        quota = "max" if cpu.quota is None or cpu.quota == -1 else str(cpu.quota)
        text = f"{quota} {DEFAULT_PERIOD if cpu.period is None else cpu.period}"
        found.append(Setting("cpu.quota and cpu.period", text, "cpu", "cpu.max", text))
    found += _numbers(("cpu.burst", cpu.burst, "cpu.max.burst"), ("cpu.idle", cpu.idle, "cpu.idle"))
    return found + _cpuset(cpu)


def weight(shares: int) -> int:
    """Turn cpu.shares (2..262144) into cpu.weight (1..10000), as runc since 1.3 does: 1024 becomes 100."""
    from math import ceil, log2

    exponent = log2(min(max(shares, _SHARES[0]), _SHARES[1]))
    return max(1, min(10_000, ceil(10 ** ((exponent * exponent + 125 * exponent) / 612 - 7 / 34))))


def members(text: str) -> set[int]:
    """Expand a cpuset(7) list, ``0-2,5``."""
    found: set[int] = set()
    for part in text.strip().split(","):
        if part:
            first, _, last = part.partition("-")
            found.update(range(int(first), int(last or first) + 1))
    return found


def _numbers(*rows: tuple[str, int | None, str]) -> list[Setting]:
    return [Setting(limit, value, "cpu", file, str(value)) for limit, value, file in rows if value is not None]


def _cpuset(cpu: CPU) -> list[Setting]:
    pairs = (("cpus", cpu.cpus), ("mems", cpu.mems))
    return [
        Setting(f"cpu.{name}", text, "cpuset", f"cpuset.{name}", text, check=_same_members)
        for name, text in pairs
        if text
    ]


def _same_members(expected: str, got: str) -> bool:
    return members(expected) == members(got)


def _check(cpu: CPU) -> None:
    if cpu.shares is not None and cpu.shares < 0:
        raise ConfigError(f"cpu.shares is {cpu.shares}: expected a number from 2 to 262144")
    if cpu.quota is not None and (cpu.quota == 0 or cpu.quota < -1):
        raise ConfigError(f"cpu.quota is {cpu.quota}: expected microseconds, or -1 for unlimited")
    if cpu.period is not None and cpu.period <= 0:
        raise ConfigError(f"cpu.period is {cpu.period}: expected microseconds")
    if cpu.burst and cpu.quota is not None and 0 < cpu.quota < cpu.burst:
        raise ConfigError(f"cpu.burst is {cpu.burst}: expected no more than cpu.quota, {cpu.quota}")
    if cpu.idle not in (None, 0, 1):
        raise ConfigError(f"cpu.idle is {cpu.idle}: expected 0 or 1")
    for name, text in (("cpus", cpu.cpus), ("mems", cpu.mems)):
        try:
            members(text)
        except ValueError as error:
            raise ConfigError(f"cpu.{name} is {text!r}: expected a list like 0-2,5") from error
