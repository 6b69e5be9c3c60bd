"""OCI resources as cgroup files and values: all of them, and of memory and pids.

Responsible for: which file takes which limit, the value's arithmetic and range. Must not know: where a cgroup is or
how it was made, how values are written (``setting``). The other controllers' are in ``limit_cpu`` and ``limit_more``,
imported when a config has such limits.

What the values mean, as in runtime-spec 1.3 (config-linux.md, "Memory", "CPU", "PIDs") and, where it is
silent, as in runc:

- memory.limit without memory.swap means no swap at all (v2 ``memory.swap.max`` 0, v1 memsw = limit), wherever
  the kernel accounts for swap. runc leaves swap unlimited then; a limit meant for a test would only make it
  slow.
- memory.swap counts memory plus swap; v2 takes the difference. -1 is unlimited.
- memory limits are rounded down to whole pages by the kernel.
- memory.kernel does nothing, as in runc: the kernel took the limit away. memory.kernelTCP is written where the kernel
  still has it, on v1, and does nothing elsewhere.
- pids.limit 0 is written as 1: the first process is in, and cannot fork. The kernel's 0 would differ only in
  refusing ``CLONE_INTO_CGROUP`` as well.
- A memory limit, quota or period of 0 is refused: nothing could run.
"""

from __future__ import annotations

import os

from pytest_ocirun.errors import ConfigError, Unsupported

from .setting import Setting

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from pytest_ocirun.oci.runtime import Memory, Resources

PAGE = os.sysconf("SC_PAGE_SIZE")
UNLIMITED_V1 = (2**63 - 1) // PAGE * PAGE
CORE = "cgroup"
"""What stands for a controller in the names of files that every cgroup v2 has."""


def settings(resources: Resources | None, on_v2: Callable[[str], bool]) -> list[Setting]:
    """Translate resources, but for device rules, in the order of writing.

    Args:
        resources: what is asked for.
        on_v2: says of a controller whether it is to be had on cgroup v2; otherwise v1's files are named.

    Raises:
        ConfigError: a value is out of its range.
        Unsupported: that version of cgroups has no such limit.
    """
    if resources is None:
        return []
    found = (_memory_v2 if on_v2("memory") else _memory_v1)(resources.memory)
    found += _pids(resources.pids.limit)
    cpu = resources.cpu
    if any(value not in (None, "") for value in vars(cpu).values()):
        from . import limit_cpu

        found += (limit_cpu.v2 if on_v2("cpu") else limit_cpu.v1)(cpu)
    if resources.block_io or resources.hugepage_limits or resources.network or resources.rdma or resources.unified:
        from . import limit_more

        found += limit_more.settings(resources, on_v2)
    return found


def settings_v1(resources: Resources | None) -> list[Setting]:
    """The same where every controller is on cgroup v1."""
    return settings(resources, lambda _controller: False)


def settings_v2(resources: Resources | None) -> list[Setting]:
    """The same where every controller is on cgroup v2."""
    return settings(resources, lambda _controller: True)


def controllers(settings: Iterable[Setting]) -> list[str]:
    """List the controllers that settings cannot do without, in their order, each once."""
    named = (setting.controller for setting in settings if not setting.optional)
    return [name for name in dict.fromkeys(named) if name != CORE]


def only_on(version: str, limit: str, value: object, instead: str) -> Unsupported:
    """The error for a limit that one version of cgroups does not have."""
    return Unsupported(f"cannot set {limit} to {value}: cgroup {version} has no such limit", hint=instead)


def _memory_v1(memory: Memory) -> list[Setting]:
    found = []
    limit, swap = _checked_memory(memory)
    total = limit if swap is None else swap
    if memory.use_hierarchy is not None:
        # Where there is no such file, or no such controller, nothing can be without hierarchy.
        found.append(_switch("useHierarchy", memory.use_hierarchy, "memory.use_hierarchy", default=True))
    if limit is not None:
        found.append(_bytes_v1("memory.limit", limit, "memory.limit_in_bytes"))
    if total is not None:
        found.append(_bytes_v1("memory.swap", total, "memory.memsw.limit_in_bytes", optional=swap is None))
    if memory.reservation is not None:
        found.append(_bytes_v1("memory.reservation", memory.reservation, "memory.soft_limit_in_bytes"))
    if memory.kernel_tcp is not None:
        found.append(_bytes_v1("memory.kernelTCP", memory.kernel_tcp, "memory.kmem.tcp.limit_in_bytes", optional=True))
    if memory.swappiness is not None:
        text = str(memory.swappiness)
        found.append(Setting("memory.swappiness", memory.swappiness, "memory", "memory.swappiness", text))
    if memory.disable_oom_killer is not None:
        found.append(_switch("disableOOMKiller", memory.disable_oom_killer, "memory.oom_control", default=False))
    return found


def _switch(name: str, asked: bool, file: str, *, default: bool) -> Setting:  # noqa: FBT001 - the OCI value
    return Setting(
        *(f"memory.{name}", str(asked).lower(), "memory", file, str(int(asked))),
        check=_first_number,
        only_if_other=True,
        optional=asked == default,
    )


def _first_number(expected: str, got: str) -> bool:
    """Compare with ``1``, or with ``oom_kill_disable 1`` and more lines."""
    return got.partition("\n")[0].rpartition(" ")[2] == expected


def _bytes_v1(limit: str, value: int, file: str, *, optional: bool = False) -> Setting:
    expected = UNLIMITED_V1 if value == -1 else min(value // PAGE * PAGE, UNLIMITED_V1)
    return Setting(limit, value, "memory", file, str(value), expected=str(expected), optional=optional)


def _memory_v2(memory: Memory) -> list[Setting]:
    found = []
    limit, swap = _checked_memory(memory)
    if limit is not None:
        used = "memory.current" if memory.check_before_update and limit != -1 else ""
        found.append(_bytes_v2("memory.limit", limit, limit, "memory.max", at_least=used))
        if swap is None and limit != -1:
            found.append(_bytes_v2("memory.swap", limit, 0, "memory.swap.max", optional=True))
    if swap is not None:
        beyond = -1 if swap == -1 else swap - (limit or 0)
        found.append(_bytes_v2("memory.swap", swap, beyond, "memory.swap.max"))
    if memory.reservation is not None:
        found.append(_bytes_v2("memory.reservation", memory.reservation, memory.reservation, "memory.low"))
    if memory.swappiness is not None:
        raise only_on("v2", "memory.swappiness", memory.swappiness, "limit swap by memory.swap instead")
    if memory.disable_oom_killer:
        raise only_on("v2", "memory.disableOOMKiller", "true", "there a memory limit always kills; leave it out")
    if memory.use_hierarchy is False:
        raise only_on("v2", "memory.useHierarchy", "false", "there limits always count what is below; leave it out")
    return found


def _bytes_v2(limit: str, asked: int, value: int, file: str, *, optional: bool = False, at_least: str = "") -> Setting:
    text = "max" if value == -1 or value >= UNLIMITED_V1 else str(value)
    expected = text if text == "max" else str(value // PAGE * PAGE)
    at_least = "" if text == "max" else at_least
    return Setting(limit, asked, "memory", file, text, expected=expected, optional=optional, at_least=at_least)


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
