"""Device rules for tests: an oracle that reads them as the documentation does, and lists drawn at random."""

import random

from pytest_ocirun.oci.runtime import DeviceRule

DEFAULTS = {("c", 1, 3), ("c", 1, 5), ("c", 1, 7), ("c", 1, 8), ("c", 1, 9), ("c", 5, 0), ("c", 5, 2)}


def allowed(rules: list[DeviceRule], kind: str, major: int, minor: int, access: str) -> bool:
    """Whether a process may do all of ``access`` at once: of each letter the last rule that names it decides."""
    return all(_letter(rules, kind, major, minor, letter) for letter in access)


def _letter(rules: list[DeviceRule], kind: str, major: int, minor: int, letter: str) -> bool:
    if letter == "m" or (kind, major, minor) in DEFAULTS or (kind, major) == ("c", 136):
        return True
    for rule in reversed(rules):
        right_kind = rule.type in ("", "a", kind)
        right_device = rule.major in (None, -1, major) and rule.minor in (None, -1, minor)
        if right_kind and right_device and letter in (rule.access or "rwm"):
            return rule.allow
    return False


def draw(source: random.Random) -> list[DeviceRule]:
    """A list of rules over few devices, so that they meet."""
    rules = [
        DeviceRule(
            allow=source.random() < 0.6,
            type=source.choice(["b", "c", "c", "c", "a", ""]),
            major=source.choice([240, 241, 240, 241, -1, None]),
            minor=source.choice([7, 8, 7, 8, -1, None]),
            access=source.choice(["r", "w", "m", "rw", "rwm", "rm", ""]),
        )
        for _ in range(source.randrange(6))
    ]
    if source.random() < 0.7:
        rules.insert(0, DeviceRule(allow=source.random() < 0.3, access="rwm"))
    return rules
