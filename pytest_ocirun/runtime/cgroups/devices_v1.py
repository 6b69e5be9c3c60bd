"""Device rules on cgroup v1: devices.allow and devices.deny.

Responsible for: turning ordered rules into the one list that the kernel keeps, and changing its list into that one.
Must not know: what the rules are for. Source: the kernel's Documentation/admin-guide/cgroup-v1/devices.rst.

The kernel keeps a mode, "all but these" or "none but these", and the exceptions from it. A line written to a file
changes an exception of exactly its own type and numbers, and is otherwise without effect and without error: of
``c 1:* rwm`` a line ``c 1:3 rwm`` takes nothing away. So the rules are worked through here; what the kernel has no
list for is an error. Only the difference to the list in force is written, what is allowed first, so that an update
takes nothing for a moment from a process that keeps it.
"""

from __future__ import annotations

import errno
import os

from pytest_ocirun.errors import KernelRefused, Unsupported
from pytest_ocirun.runtime.cgroups import knobs
from pytest_ocirun.runtime.cgroups.device_rules import ANY, EVERYTHING, READ, WRITE, bits, letters

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pytest_ocirun.runtime.cgroups.device_rules import Rule

    Key = tuple[str, int, int]


class Devices:
    """What a cgroup keeps of device rules.

    Args:
        allow: whether all devices but the exceptions are allowed, or none but them.
        exceptions: (kind, major, minor) to bits of access.
    """

    __slots__ = ("allow", "exceptions")

    def __init__(self, *, allow: bool, exceptions: dict[Key, int] | None = None) -> None:
        self.allow = allow
        self.exceptions = exceptions or {}

    def lines(self) -> list[str]:
        """The exceptions as the kernel writes them."""
        return [_line(key, access) for key, access in self.exceptions.items()]


def settled(rules: list[Rule]) -> Devices:
    """What the kernel is to keep for some rules.

    Raises:
        Unsupported: the kernel has no list that means the same.
    """
    state = Devices(allow=False)
    for rule in rules:
        if rule.kind == EVERYTHING:
            state = Devices(allow=rule.allow)
        elif rule.allow == state.allow:
            _take_away(state, rule)
        else:
            key = (rule.kind, rule.major, rule.minor)
            state.exceptions[key] = state.exceptions.get(key, 0) | rule.access
    if not state.allow:
        _join_opening(state)
    return state


def _join_opening(state: Devices) -> None:
    """Allow in one line what two lines allow to read and to write: the kernel wants one line for both at once."""
    kept = state.exceptions
    readers = [key for key, access in kept.items() if access & READ and not access & WRITE]
    writers = [key for key, access in kept.items() if access & WRITE and not access & READ]
    for kind, major, minor in readers:
        for other, *numbers in writers:
            if kind == other and _meets(major, numbers[0]) and _meets(minor, numbers[1]):
                common = (kind, max(major, numbers[0]), max(minor, numbers[1]))
                kept[common] = kept.get(common, 0) | READ | WRITE


def _take_away(state: Devices, rule: Rule) -> None:
    for key, access in list(state.exceptions.items()):
        kind, major, minor = key
        common = access & rule.access
        if kind != rule.kind or not common or not (_meets(major, rule.major) and _meets(minor, rule.minor)):
            continue
        if rule.major not in (ANY, major) or rule.minor not in (ANY, minor):
            wanted = _line((rule.kind, rule.major, rule.minor), rule.access)
            verbs = ("deny", "allow") if rule.allow else ("allow", "deny")
            raise Unsupported(
                f"cannot enforce linux.resources.devices: cgroup v1 cannot {verbs[1]} {wanted!r} once "
                f"{_line(key, access)!r} is to {verbs[0]}",
                hint="name the devices one by one, or boot with cgroup v2 alone (systemd.unified_cgroup_hierarchy=1)",
            )
        state.exceptions[key] = access & ~rule.access
        if not state.exceptions[key]:
            del state.exceptions[key]


def _meets(first: int, second: int) -> bool:
    return ANY in (first, second) or first == second


def enforce(directory: str, rules: list[Rule]) -> None:
    """Make a cgroup of the devices hierarchy obey rules, and read them back.

    Args:
        directory: the cgroup.
        rules: in order.

    Raises:
        Unsupported: the kernel has no list that means the same.
        KernelRefused: the kernel refused a line, or keeps another list.
    """
    wanted = settled(rules)
    current = read(directory)
    if wanted.allow:
        # The list does not show which exceptions there are, so they are all forgotten first.
        _write(directory, "allow", ["a"])
        _write(directory, "deny", wanted.lines())
        current = read(directory)
        if not current.allow:
            raise _not_kept(directory, "a *:* rwm", current)
        return
    if current.allow:
        _write(directory, "deny", ["a"])
        current = Devices(allow=False)
    _write(directory, "allow", _beyond(wanted.exceptions, current.exceptions))
    _write(directory, "deny", _beyond(current.exceptions, wanted.exceptions))
    current = read(directory)
    if current.allow or current.exceptions != wanted.exceptions:
        raise _not_kept(directory, ", ".join(wanted.lines()), current)


def read(directory: str) -> Devices:
    """What a cgroup keeps now; in the mode "all but these" the kernel does not tell the exceptions.

    Raises:
        KernelRefused: it cannot be read.
    """
    path = f"{directory}/devices.list"
    try:
        text = knobs.read(path)
    except OSError as error:
        raise knobs.refused(f"cannot read {path}", error) from error
    found: dict[Key, int] = {}
    for line in text.splitlines():
        kind, numbers, access = line.split()
        if kind == "a":
            return Devices(allow=True)
        major, minor = (ANY if number == "*" else int(number) for number in numbers.split(":"))
        found[kind, major, minor] = bits(access)
    return Devices(allow=False, exceptions=found)


def _line(key: Key, access: int) -> str:
    kind, *numbers = key
    major, minor = ("*" if number == ANY else number for number in numbers)
    return f"{kind} {major}:{minor} {letters(access)}"


def _beyond(those: dict[Key, int], these: dict[Key, int]) -> list[str]:
    """Lines for what ``those`` exceptions have and ``these`` have not."""
    return [_line(key, more) for key, access in those.items() if (more := access & ~these.get(key, 0))]


def _write(directory: str, name: str, lines: list[str]) -> None:
    if not lines:
        return
    path, line = f"{directory}/devices.{name}", ""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            for line in lines:
                os.write(fd, line.encode())
        finally:
            os.close(fd)
    except OSError as error:
        raise knobs.refused(f"cannot {name} devices (write {line!r} to {path})", error, _hint(error)) from error


def _hint(error: OSError) -> str | None:
    if error.errno == errno.EPERM:
        return "a cgroup above this one does not allow as much"
    if error.errno == errno.EINVAL:
        return "the kernel changes from one mode to the other only in a cgroup without cgroups below it"
    return None


def _not_kept(directory: str, wanted: str, current: Devices) -> KernelRefused:
    got = "a *:* rwm" if current.allow else ", ".join(current.lines())
    return KernelRefused(
        f"cannot enforce linux.resources.devices in {directory}: asked for {wanted}, and the kernel reads back {got}",
        errno=errno.ERANGE,
    )
