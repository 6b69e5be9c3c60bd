"""Block devices, huge pages, network, RDMA and ``unified`` as files and values of their controllers.

Responsible for: see ``limits``, which imports this when a config has one of these. Must not know: how values are
written. Sources: the kernel's cgroup-v2.rst and Documentation/admin-guide/cgroup-v1.

- Block weights: by the BFQ scheduler's file where it is there, else by CFQ's (v1) or io.weight (v2), on whose scale of
  1 to 10000 a weight of 10 to 1000 is mapped evenly, as in runc. 0 is unset. Leaf weights were CFQ's alone.
- A rate of 0 takes a limit away.
- Huge pages are limited when they are reserved and, for kernels that cannot, when they are used; sizes are rounded down
  to whole pages.
- ``unified`` is written last, a line at a time, whatever the file; nothing is read back, as each has a form of its own.
"""

from __future__ import annotations

from pytest_ocirun.errors import ConfigError, Unsupported

from .limits import UNLIMITED_V1, only_on
from .setting import Setting, has_line, has_words, last_word

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_ocirun.oci.runtime import BlockIO, HugepageLimit, NetworkLimits, Rdma, Resources, WeightDevice

    Where = Callable[[str], bool]

_UNITS = {"KB": 1 << 10, "MB": 1 << 20, "GB": 1 << 30}
_THROTTLES = (
    ("throttleReadBpsDevice", "throttle_read_bps_device", "read_bps_device", "rbps"),
    ("throttleWriteBpsDevice", "throttle_write_bps_device", "write_bps_device", "wbps"),
    ("throttleReadIOPSDevice", "throttle_read_iops_device", "read_iops_device", "riops"),
    ("throttleWriteIOPSDevice", "throttle_write_iops_device", "write_iops_device", "wiops"),
)


def settings(resources: Resources, on_v2: Where) -> list[Setting]:
    """The settings of these groups, in the order of writing.

    Raises:
        ConfigError: a value makes no sense.
        Unsupported: that version of cgroups has no such limit.
    """
    found: list[Setting] = []
    if resources.block_io is not None:
        found += (_block_v2 if on_v2("io") else _block_v1)(resources.block_io)
    for limit in resources.hugepage_limits:
        found += _hugepages(limit, v2=on_v2("hugetlb"))
    if resources.network is not None:
        found += _network(resources.network, on_v2)
    for device, entry in resources.rdma.items():
        found.append(_rdma(device, entry))
    for name, value in resources.unified.items():
        found.append(_unified(name, value, on_v2))
    return found


def _block_v1(block: BlockIO) -> list[Setting]:
    found = []
    if block.weight:
        found.append(_weight("blockIO.weight", block.weight, "blkio", "blkio.bfq.weight", "blkio.weight"))
    if block.leaf_weight:
        text = str(block.leaf_weight)
        found.append(Setting("blockIO.leafWeight", text, "blkio", "blkio.leaf_weight", text))
    for device in block.weight_device:
        key = _key(device)
        if device.weight:
            line = f"{key} {device.weight}"
            older = _line("blockIO.weightDevice", line, "blkio", "blkio.weight_device", line, key, f"{key} 0")
            found.append(
                _line("blockIO.weightDevice", line, "blkio", "blkio.bfq.weight_device", line, key, f"{key} 0", older)
            )
        if device.leaf_weight:
            line = f"{key} {device.leaf_weight}"
            found.append(
                _line("blockIO.weightDevice leaf", line, "blkio", "blkio.leaf_weight_device", line, key, f"{key} 0")
            )
    for name, attribute, file, _word in _THROTTLES:
        for throttle in getattr(block, attribute):
            key, line = f"{throttle.major}:{throttle.minor}", f"{throttle.major}:{throttle.minor} {throttle.rate}"
            found.append(
                Setting(
                    *(f"blockIO.{name}", line, "blkio", f"blkio.throttle.{file}", line),
                    check=has_line if throttle.rate else _has_no_line,
                    key=key,
                    reset=f"{key} 0",
                )
            )
    return found


def _block_v2(block: BlockIO) -> list[Setting]:
    found = []
    if block.weight:
        even = _even(block.weight)
        older = Setting(
            "blockIO.weight", block.weight, "io", "io.weight", f"default {even}", check=has_line, key="default"
        )
        found.append(
            Setting(
                *("blockIO.weight", block.weight, "io", "io.bfq.weight", str(block.weight)),
                check=_default,
                key="default",
                otherwise=older,
            )
        )
    if block.leaf_weight:
        raise only_on("v2", "blockIO.leafWeight", block.leaf_weight, "give processes and cgroups a weight each")
    for device in block.weight_device:
        key = _key(device)
        if device.leaf_weight:
            raise only_on("v2", "blockIO.weightDevice leafWeight", device.leaf_weight, "give a weight")
        if device.weight:
            asked, reset = f"{key} {device.weight}", f"{key} default"
            line = f"{key} {_even(device.weight)}"
            older = _line("blockIO.weightDevice", asked, "io", "io.weight", line, key, reset)
            found.append(_line("blockIO.weightDevice", asked, "io", "io.bfq.weight", asked, key, reset, older))
    for name, attribute, _file, word in _THROTTLES:
        for throttle in getattr(block, attribute):
            key = f"{throttle.major}:{throttle.minor}"
            line = f"{key} {word}={throttle.rate or 'max'}"
            check = has_words if throttle.rate else None
            asked = f"{key} {throttle.rate}"
            found.append(
                Setting(f"blockIO.{name}", asked, "io", "io.max", line, check=check, key=key, reset=f"{key} {word}=max")
            )
    return found


def _weight(limit: str, value: int, controller: str, newer: str, older: str) -> Setting:
    text = str(value)
    otherwise = Setting(limit, value, controller, older, text)
    return Setting(limit, value, controller, newer, text, check=last_word, otherwise=otherwise)


def _line(
    limit: str,
    asked: str,
    controller: str,
    file: str,
    line: str,
    key: str,
    reset: str,
    otherwise: Setting | None = None,
) -> Setting:
    return Setting(limit, asked, controller, file, line, check=has_line, key=key, reset=reset, otherwise=otherwise)


def _default(expected: str, got: str) -> bool:
    return has_line(f"default {expected}", got) or got == expected


def _has_no_line(expected: str, got: str) -> bool:
    return not any(line.split()[:1] == expected.split()[:1] for line in got.splitlines())


def _key(device: WeightDevice) -> str:
    if device.weight is None and device.leaf_weight is None:
        raise ConfigError(f"blockIO.weightDevice {device.major}:{device.minor}: expected a weight or a leafWeight")
    return f"{device.major}:{device.minor}"


def _even(weight: int) -> int:
    return 1 + (max(weight, 10) - 10) * 9999 // 990


def _hugepages(limit: HugepageLimit, *, v2: bool) -> list[Setting]:
    try:
        size = int(limit.page_size[:-2]) * _UNITS[limit.page_size[-2:]]
    except (KeyError, ValueError):
        raise ConfigError(
            f"hugepageLimits.pageSize is {limit.page_size!r}: expected a size such as 2MB, 64KB or 1GB"
        ) from None
    end = "max" if v2 else "limit_in_bytes"
    unlimited = limit.limit >= UNLIMITED_V1
    value = ("max" if v2 else "-1") if unlimited else str(limit.limit)
    expected = value if unlimited else str(limit.limit // size * size)
    return [
        Setting(
            *(f"hugepageLimits {limit.page_size}", limit.limit, "hugetlb"),
            *(f"hugetlb.{limit.page_size}.{kind}{end}", value),
            expected=expected,
            optional=bool(kind),
            check=None if unlimited and not v2 else str.__eq__,
        )
        for kind in ("rsvd.", "")
    ]


def _network(network: NetworkLimits, on_v2: Where) -> list[Setting]:
    instead = "mark packets by the cgroup's path instead (nftables `socket cgroupv2`)"
    found = []
    if network.class_id is not None:
        if on_v2("net_cls"):
            raise only_on("v2", "network.classID", network.class_id, instead)
        found.append(Setting("network.classID", network.class_id, "net_cls", "net_cls.classid", str(network.class_id)))
    for each in network.priorities:
        if on_v2("net_prio"):
            raise only_on("v2", "network.priorities", each.name, instead)
        line, reset = f"{each.name} {each.priority}", f"{each.name} 0"
        found.append(_line("network.priorities", line, "net_prio", "net_prio.ifpriomap", line, each.name, reset))
    return found


def _rdma(device: str, entry: Rdma) -> Setting:
    pairs = (("hca_handle", entry.hca_handles), ("hca_object", entry.hca_objects))
    words = [f"{word}={value}" for word, value in pairs if value is not None]
    if not words:
        raise ConfigError(f"rdma[{device!r}]: expected hcaHandles or hcaObjects")
    line, reset = " ".join((device, *words)), f"{device} hca_handle=max hca_object=max"
    return Setting("rdma", line, "rdma", "rdma.max", line, check=has_words, key=device, reset=reset)


def _unified(name: str, value: str, on_v2: Where) -> Setting:
    controller, dot, rest = name.partition(".")
    if not controller or not dot or not rest or "/" in name:
        raise ConfigError(f"unified[{name!r}]: expected the name of a file such as memory.high")
    if not on_v2(controller):
        raise Unsupported(
            f"cannot set unified[{name!r}]: cgroup v2 has no {controller} controller here",
            hint="boot with cgroup v2 alone (systemd.unified_cgroup_hierarchy=1), or use the limit's own property",
        )
    return Setting(f"unified[{name!r}]", repr(value), controller, name, value, check=None)
