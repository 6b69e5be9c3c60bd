"""Device rules mean the same as a list of cgroup v1 and as a program of cgroup v2."""

import itertools
import random

import pytest

from pytest_ocirun.errors import Unsupported
from pytest_ocirun.oci.runtime import DeviceRule
from pytest_ocirun.runtime.cgroups import device_program, devices_v1
from pytest_ocirun.runtime.cgroups.device_rules import ANY, bits, ordered
from tests import devices, ebpf

REQUESTS = [
    *itertools.product("bc", (240, 241), (7, 8), ("r", "w", "rw", "m")),
    *itertools.product("c", (1,), (3, 5, 11), ("r", "w", "rw", "m")),
    ("c", 136, 12, "rw"),
    ("c", 5, 2, "rw"),
    ("c", 5, 1, "rw"),
    ("b", 1, 3, "r"),
]
DENY_ALL = DeviceRule(allow=False, access="rwm")
KINDS = {"b": 1, "c": 2}
SEEDS = range(200)


def rule(allow: bool, text: str) -> DeviceRule:
    """A rule as ``c 1:3 rwm``."""
    kind, numbers, access = text.split()
    major, minor = (-1 if number == "*" else int(number) for number in numbers.split(":"))
    return DeviceRule(allow=allow, type=kind, major=major, minor=minor, access=access)


def program_allows(rules: list[DeviceRule], kind: str, major: int, minor: int, access: str) -> bool:
    """What the program answers."""
    code = device_program.assemble(ordered(rules))
    return bool(ebpf.run(code, KINDS[kind], bits(access), major, minor))


def list_allows(kept: devices_v1.Devices, kind: str, major: int, minor: int, access: str) -> bool:
    """What the kernel does with its list: one line must allow all at once; any line denies (devices.rst)."""
    meeting = [
        held
        for (other, *numbers), held in kept.exceptions.items()
        if other == kind and numbers[0] in (ANY, major) and numbers[1] in (ANY, minor)
    ]
    if kept.allow:
        return not any(held & bits(access) for held in meeting)
    return any(not bits(access) & ~held for held in meeting)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_program_answers_as_the_rules_say(seed: int) -> None:
    """For every request on few devices, with rules drawn at random."""
    rules = devices.draw(random.Random(seed))
    wrong = [request for request in REQUESTS if program_allows(rules, *request) != devices.allowed(rules, *request)]

    assert wrong == [], rules


@pytest.mark.parametrize("seed", SEEDS)
def test_the_list_answers_as_the_rules_say(seed: int) -> None:
    """The same for cgroup v1, or an error where it has no list that means the same."""
    rules = devices.draw(random.Random(seed))
    try:
        kept = devices_v1.settled(ordered(rules))
    except Unsupported:
        return
    wrong = [request for request in REQUESTS if list_allows(kept, *request) != devices.allowed(rules, *request)]

    assert wrong == [], (rules, kept.lines())


def test_most_lists_can_be_kept_by_cgroup_v1() -> None:
    """The test above would prove nothing if they could not."""
    refused = 0
    for seed in SEEDS:
        try:
            devices_v1.settled(ordered(devices.draw(random.Random(seed))))
        except Unsupported:
            refused += 1

    assert refused < len(SEEDS) / 3


def test_cgroup_v1_gets_the_lines_that_were_asked_for() -> None:
    """As clients and other runtimes read them back from devices.list."""
    kept = devices_v1.settled(ordered([DENY_ALL, rule(True, "c 10:229 rw"), rule(True, "b 8:* r")]))

    assert not kept.allow
    assert kept.lines() == [
        *("c 10:229 rw", "b 8:* r", "c *:* m", "b *:* m", "c 1:3 rwm", "c 1:5 rwm", "c 1:7 rwm", "c 1:8 rwm"),
        *("c 1:9 rwm", "c 5:0 rwm", "c 5:2 rwm", "c 136:* rwm"),
    ]


def test_a_hole_in_a_wildcard_is_refused_by_name_on_cgroup_v1() -> None:
    """The kernel would take the line and do nothing."""
    rules = [DENY_ALL, rule(True, "b 8:* rwm"), rule(False, "b 8:1 w")]

    with pytest.raises(Unsupported, match=r"cannot deny 'b 8:1 w' once 'b 8:\* rwm' is to allow"):
        devices_v1.settled(ordered(rules))
    assert program_allows(rules, "b", 8, 1, "r")
    assert not program_allows(rules, "b", 8, 1, "rw")
    assert program_allows(rules, "b", 8, 2, "rw")


def test_a_list_without_denying_all_denies_all_the_same() -> None:
    """It is a list of what is allowed, as in runc."""
    rules = [rule(True, "c 10:229 rwm")]
    kept = devices_v1.settled(ordered(rules))

    assert not kept.allow
    assert not program_allows(rules, "c", 10, 200, "r")
