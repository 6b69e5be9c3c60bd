"""Everything that the kernel counts in a container's cgroups, in the shape that runc's ``events`` gives it.

Responsible for: both versions' files under the one set of names that clients read, v1's: nanoseconds, bytes, memory
and swap in one sum. A controller that is not there leaves its part empty. Must not know: who prints it. Sources:
cgroup-v2.rst and cgroup-v1/*.rst of the kernel, runc's ``types`` for the names.
"""

from __future__ import annotations

import os

from pytest_ocirun.runtime.cgroups import knobs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Counts = dict[str, Any]

UNLIMITED = (1 << 64) - 1
_MEMORY_V1 = {"usage": "memory", "swap": "memory.memsw", "kernel": "memory.kmem", "kernelTCP": "memory.kmem.tcp"}
_BLKIO_V1 = {
    "ioServiceBytesRecursive": ("blkio.bfq.io_service_bytes_recursive", "blkio.throttle.io_service_bytes_recursive"),
    "ioServicedRecursive": ("blkio.bfq.io_serviced_recursive", "blkio.throttle.io_serviced_recursive"),
    "ioQueueRecursive": ("blkio.bfq.io_queued_recursive",),
    "ioServiceTimeRecursive": ("blkio.bfq.io_service_time_recursive",),
    "ioWaitTimeRecursive": ("blkio.bfq.io_wait_time_recursive",),
    "ioMergedRecursive": ("blkio.bfq.io_merged_recursive",),
    "ioTimeRecursive": ("blkio.bfq.time_recursive",),
    "sectorsRecursive": ("blkio.bfq.sectors_recursive",),
}
_IO_V2 = {
    "rbytes": ("ioServiceBytesRecursive", "Read"),
    "wbytes": ("ioServiceBytesRecursive", "Write"),
    "rios": ("ioServicedRecursive", "Read"),
    "wios": ("ioServicedRecursive", "Write"),
}
_CPUSET_FLAGS = {
    "cpu_exclusive": "cpuset.cpu_exclusive",
    "mem_hardwall": "cpuset.mem_hardwall",
    "mem_exclusive": "cpuset.mem_exclusive",
    "memory_migrate": "cpuset.memory_migrate",
    "memory_spread_page": "cpuset.memory_spread_page",
    "memory_spread_slab": "cpuset.memory_spread_slab",
    "memory_pressure": "cpuset.memory_pressure",
    "sched_load_balance": "cpuset.sched_load_balance",
    "sched_relax_domain_level": "cpuset.sched_relax_domain_level",
}


def read(paths: dict[str, Any], pid: int) -> Counts:
    """Read all counts.

    Args:
        paths: of the cgroup, as ``Cgroup.paths`` gives them.
        pid: of the container's init, whose network namespace is asked.
    """
    dirs = paths["dirs"]
    found = _v2(dirs["unified"]) if paths["version"] == "v2" else _v1(dirs)
    hugetlb = dirs.get("hugetlb") or dirs.get("unified")
    return {
        **found,
        "hugetlb": _hugetlb(hugetlb) if hugetlb else {},
        "intel_rdt": {},
        "network_interfaces": interfaces(pid),
    }


def _v1(dirs: dict[str, str]) -> Counts:
    return {
        "cpu": {"usage": _cpu_usage_v1(dirs.get("cpuacct")), "throttling": _throttling_v1(dirs.get("cpu"))},
        "cpuset": _cpuset(dirs.get("cpuset"), "cpuset.cpus", "cpuset.mems"),
        "memory": _memory_v1(dirs.get("memory")),
        "pids": _pids(dirs.get("pids")),
        "blkio": _blkio_v1(dirs.get("blkio")),
    }


def _v2(directory: str) -> Counts:
    cpu = _fields(f"{directory}/cpu.stat")
    usage = {name: cpu.get(f"{key}_usec", 0) * 1000 for name, key in _USAGE_V2}
    throttling = {
        "periods": cpu.get("nr_periods", 0),
        "throttledPeriods": cpu.get("nr_throttled", 0),
        "throttledTime": cpu.get("throttled_usec", 0) * 1000,
    }
    return {
        "cpu": {"usage": usage, "throttling": {name: value for name, value in throttling.items() if value}},
        "cpuset": _cpuset(directory, "cpuset.cpus.effective", "cpuset.mems.effective"),
        "memory": _memory_v2(directory),
        "pids": _pids(directory),
        "blkio": _io_v2(directory),
    }


_USAGE_V2 = (("total", "usage"), ("kernel", "system"), ("user", "user"))


def _cpu_usage_v1(directory: str | None) -> Counts:
    if directory is None:
        return {"kernel": 0, "user": 0}
    ticks = _fields(f"{directory}/cpuacct.stat")
    tick = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
    rows = [line.split() for line in _lines(f"{directory}/cpuacct.usage_all")[1:]]
    return {
        "total": knobs.number(f"{directory}/cpuacct.usage") or 0,
        "percpu": [int(word) for line in _lines(f"{directory}/cpuacct.usage_percpu") for word in line.split()],
        "percpu_kernel": [int(row[2]) for row in rows],
        "percpu_user": [int(row[1]) for row in rows],
        "kernel": ticks.get("system", 0) * tick,
        "user": ticks.get("user", 0) * tick,
    }


def _throttling_v1(directory: str | None) -> Counts:
    found = _fields(f"{directory}/cpu.stat") if directory else {}
    names = {"periods": "nr_periods", "throttledPeriods": "nr_throttled", "throttledTime": "throttled_time"}
    return {name: found[key] for name, key in names.items() if found.get(key)}


def _cpuset(directory: str | None, cpus: str, mems: str) -> Counts:
    found: Counts = dict.fromkeys(_CPUSET_FLAGS, 0)
    if directory is not None:
        found = {name: knobs.number(f"{directory}/{file}") or 0 for name, file in _CPUSET_FLAGS.items()}
    for name, file in (("cpus", cpus), ("mems", mems)):
        numbers = _ranges(knobs.read_or_none(f"{directory}/{file}") or "") if directory else []
        if numbers:
            found[name] = numbers
    return found


def _memory_v1(directory: str | None) -> Counts:
    empty = {"limit": 0, "failcnt": 0}
    if directory is None:
        return dict.fromkeys(_MEMORY_V1, empty)
    raw = _fields(f"{directory}/memory.stat")
    found: Counts = {"cache": raw.get("cache", 0)}
    for name, prefix in _MEMORY_V1.items():
        usage = knobs.number(f"{directory}/{prefix}.usage_in_bytes")
        found[name] = empty
        if usage is not None:
            found[name] = {
                "limit": knobs.number(f"{directory}/{prefix}.limit_in_bytes") or 0,
                "usage": usage,
                "max": knobs.number(f"{directory}/{prefix}.max_usage_in_bytes") or 0,
                "failcnt": knobs.number(f"{directory}/{prefix}.failcnt") or 0,
            }
    return {**found, "raw": raw}


def _memory_v2(directory: str) -> Counts:
    raw = _fields(f"{directory}/memory.stat")
    usage, swap = (_entry_v2(f"{directory}/memory{part}") for part in ("", ".swap"))
    both = {"limit": 0, "failcnt": 0}
    if "usage" in swap:
        limits = (usage["limit"], swap["limit"])
        both = {
            "limit": UNLIMITED if UNLIMITED in limits else sum(limits),
            "usage": usage.get("usage", 0) + swap["usage"],
            "failcnt": 0,
        }
    empty = {"limit": 0, "failcnt": 0}
    return {"cache": raw.get("file", 0), "usage": usage, "swap": both, "kernel": empty, "kernelTCP": empty, "raw": raw}


def _entry_v2(prefix: str) -> Counts:
    usage, limit = knobs.number(f"{prefix}.current"), knobs.number(f"{prefix}.max")
    if usage is None or limit is None:
        return {"limit": 0, "failcnt": 0}
    peak = knobs.number(f"{prefix}.peak")
    entry = {"limit": UNLIMITED if limit < 0 else limit, "usage": usage, "failcnt": 0}
    return entry | ({} if peak is None else {"max": peak})


def _pids(directory: str | None) -> Counts:
    """Processes and threads; no limit is left out, as runc does it."""
    if directory is None:
        return {}
    current, limit = knobs.number(f"{directory}/pids.current"), knobs.number(f"{directory}/pids.max")
    found = {} if current is None else {"current": current}
    return found | ({"limit": limit} if limit is not None and limit > 0 else {})


def _blkio_v1(directory: str | None) -> Counts:
    found: Counts = {}
    for name, files in _BLKIO_V1.items() if directory else ():
        for file in files:
            entries = [entry for line in _lines(f"{directory}/{file}") if (entry := _blkio_entry(line.split()))]
            if entries:
                found[name] = entries
                break
    return found


def _blkio_entry(words: list[str]) -> Counts | None:
    """``8:0 Read 4096``, or ``8:0 4096``; the line that sums up begins with no device."""
    if ":" not in words[0]:
        return None
    major, _, minor = words[0].partition(":")
    entry: Counts = {"major": int(major), "minor": int(minor), "value": int(words[-1])}
    return entry if len(words) < 3 else {**entry, "op": words[1]}


def _io_v2(directory: str) -> Counts:
    found: Counts = {}
    for line in _lines(f"{directory}/io.stat"):
        device, *pairs = line.split()
        major, colon, minor = device.partition(":")
        for key, _, value in (pair.partition("=") for pair in pairs if colon):
            if key in _IO_V2:
                name, op = _IO_V2[key]
                entry = {"major": int(major), "minor": int(minor), "op": op, "value": int(value)}
                found.setdefault(name, []).append(entry)
    return found


def _hugetlb(directory: str) -> Counts:
    """Per page size, from whatever files of that controller the directory has."""
    found: Counts = {}
    try:
        names = os.listdir(directory)
    except FileNotFoundError:
        return found
    for name in names:
        _before, _, rest = name.partition("hugetlb.")
        size, _, file = rest.partition(".")
        if file in ("usage_in_bytes", "current"):
            prefix = f"{directory}/hugetlb.{size}"
            peak = knobs.number(f"{prefix}.max_usage_in_bytes")
            refused = knobs.number(f"{prefix}.failcnt")
            refused = knobs.field(f"{prefix}.events", "max") if refused is None else refused
            found[size] = {"usage": knobs.number(f"{prefix}.{file}") or 0, "failcnt": refused or 0}
            found[size] |= {"max": peak} if peak else {}
    return found


def interfaces(pid: int) -> list[Counts] | None:
    """What went over the network interfaces of a process's own network namespace; None where it is ours too."""
    try:
        if os.readlink(f"/proc/{pid}/ns/net") == os.readlink("/proc/self/ns/net"):
            return None
        lines = _lines(f"/proc/{pid}/net/dev")[2:]
    except OSError:
        return None
    found = []
    for line in lines:
        name, _, rest = line.partition(":")
        counts = [int(word) for word in rest.split()]
        names = ("Bytes", "Packets", "Errors", "Dropped")
        received = {f"Rx{word}": count for word, count in zip(names, counts[:4], strict=True)}
        sent = {f"Tx{word}": count for word, count in zip(names, counts[8:12], strict=True)}
        found.append({"Name": name.strip(), **received, **sent})
    return found


def _fields(path: str) -> dict[str, int]:
    """A file of ``name number`` lines; what is no number is left out."""
    pairs = (line.partition(" ") for line in _lines(path))
    return {name: int(value) for name, _, value in pairs if value.isdigit()}


def _lines(path: str) -> list[str]:
    return [line for line in (knobs.read_or_none(path) or "").splitlines() if line.strip()]


def _ranges(text: str) -> list[int]:
    """``0-2,5`` as numbers."""
    found: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if first:
            found += range(int(first), int(last if dash else first) + 1)
    return found
