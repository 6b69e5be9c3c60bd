"""Which devices a container may use: the meaning of ``linux.resources.devices``.

Responsible for: turning the rules of a config into ordered ``Rule`` values with the implicit ones at their end.
Must not know: how a kernel is made to obey (``devices_v1``, ``device_program``).

The meaning is the same on every cgroup version. For each of read, write and mknod that a process asks for, the last
rule that matches the device and names the access decides; without such a rule the access is denied, and one denied
access denies all that was asked for together. So the list is a list of what is allowed, as in runc, and a list that
begins without denying all denies all the same. Absent type, numbers and access mean every one (runtime-spec
config-linux.md, "Allowed Device list"; numbers may also be -1).

The devices that every container has (config-linux.md, "Default Devices") and mknod of any node are allowed behind
all rules: a node that may not be opened does no harm, and images are full of them.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from pytest_ocirun.oci.runtime import DeviceRule

MKNOD, READ, WRITE = 1, 2, 4
"""Bits of an access, as in linux/bpf.h (BPF_DEVCG_ACC_*)."""

ALL = MKNOD | READ | WRITE
ANY = -1
EVERYTHING = ""
"""The kind of the rules that match every device in every way."""

_LETTERS = {"m": MKNOD, "r": READ, "w": WRITE}


class Rule:
    """One rule for one kind of device.

    Args:
        allow: whether it allows or denies.
        kind: ``b``, ``c``, or ``EVERYTHING``.
        major: the device's, or ``ANY``.
        minor: the device's, or ``ANY``.
        access: bits of what it allows or denies.
    """

    __slots__ = ("access", "allow", "kind", "major", "minor")

    def __init__(self, *, allow: bool, kind: str, major: int = ANY, minor: int = ANY, access: int = ALL) -> None:
        self.allow = allow
        self.kind = kind
        self.major = major
        self.minor = minor
        self.access = access


def _default(major: int, minor: int) -> Rule:
    return Rule(allow=True, kind="c", major=major, minor=minor)


IMPLICIT = (
    Rule(allow=True, kind="c", access=MKNOD),
    Rule(allow=True, kind="b", access=MKNOD),
    _default(1, 3),  # null
    _default(1, 5),  # zero
    _default(1, 7),  # full
    _default(1, 8),  # random
    _default(1, 9),  # urandom
    _default(5, 0),  # tty
    _default(5, 2),  # ptmx
    _default(136, ANY),  # terminals, /dev/console among them
)


def ordered(rules: Iterable[DeviceRule]) -> list[Rule]:
    """The rules of a config and behind them the implicit ones.

    Args:
        rules: as the config lists them, valid.
    """
    return [*(each for rule in rules for each in _expanded(rule)), *IMPLICIT]


def _expanded(rule: DeviceRule) -> list[Rule]:
    major, minor = (ANY if number is None else number for number in (rule.major, rule.minor))
    access = bits(rule.access) or ALL
    kinds = [rule.type] if rule.type in ("b", "c") else ["b", "c"]
    if len(kinds) == 2 and (major, minor, access) == (ANY, ANY, ALL):
        kinds = [EVERYTHING]
    return [Rule(allow=rule.allow, kind=kind, major=major, minor=minor, access=access) for kind in kinds]


def bits(letters: str) -> int:
    """The bits of an access such as ``rw``."""
    found = 0
    for letter in letters:
        found |= _LETTERS[letter]
    return found


def letters(access: int) -> str:
    """The letters of an access, in the order in which the kernel writes them."""
    return "".join(letter for letter in "rwm" if access & _LETTERS[letter])
