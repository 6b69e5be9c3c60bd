"""Whether a process makes sense, in ``config.json`` or alone as ``exec --process`` gives it.

Responsible for: ``validate_process``, and the kinds of check that ``runtime.validate`` needs too. Must not
know: the container around the process.
"""

from __future__ import annotations

from pytest_ocirun.errors import ConfigError
from pytest_ocirun.linux.caps import NUMBERS as CAPABILITIES
from pytest_ocirun.oci.codec import Document, walk
from pytest_ocirun.runtime.unsupported import select

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pytest_ocirun.oci.process import Capabilities, Process

ID = (0, 2**32 - 2)  # 2**32 - 1 is (uid_t) -1: "leave it unchanged"
U32 = (0, 2**32 - 1)
U64 = (0, 2**64 - 1)

RANGES = (
    ("user.uid", ID),
    ("user.gid", ID),
    ("user.additional_gids[]", ID),
    ("user.umask", (0, 0o777)),
    ("console_size.height", (0, 65535)),
    ("console_size.width", (0, 65535)),
    ("rlimits[].soft", U64),
    ("rlimits[].hard", U64),
    ("oom_score_adj", (-1000, 1000)),
)
"""The smallest and largest value of numbers, by attribute of a process."""

_RLIMITS = """
AS CORE CPU DATA FSIZE LOCKS MEMLOCK MSGQUEUE NICE NOFILE NPROC RSS RTPRIO RTTIME SIGPENDING STACK
"""
RLIMITS = tuple(f"RLIMIT_{name}" for name in _RLIMITS.split())


def validate_process(process: Process, path: str = "$") -> list[str]:
    """Check a process that is to join a container; otherwise as ``validate``.

    Args:
        process: as ``exec --process`` gives it.
        path: where it lies in its document, for messages.
    """
    check_strings(process, path)
    check_process(process, path)
    return process_warnings(process, path)


def check_process(process: Process, path: str) -> None:
    """Raise ConfigError for the first property that makes no sense."""
    check_ranges(process, RANGES, path)
    if not process.args or not process.args[0]:
        raise ConfigError(f"{path}.args: must name a program")
    if not process.cwd.startswith("/"):
        raise ConfigError(f"{path}.cwd: must be an absolute path, got {process.cwd!r}")
    for index, variable in enumerate(process.env):
        if variable.find("=") < 1:
            raise ConfigError(f"{path}.env[{index}]: expected NAME=VALUE, got {variable!r}")
    seen = set()
    for index, limit in enumerate(process.rlimits):
        where = f"{path}.rlimits[{index}]"
        one_of(limit.type, RLIMITS, f"{where}.type")
        if limit.type in seen:
            raise ConfigError(f"{where}.type: {limit.type} is there twice")
        if limit.soft > limit.hard:
            raise ConfigError(f"{where}.soft: {limit.soft} is more than the hard limit {limit.hard}")
        seen.add(limit.type)
    if process.capabilities is not None:
        _check_capabilities(process.capabilities, f"{path}.capabilities")
    _check_rarities(process, path)


def _check_capabilities(sets: Capabilities, path: str) -> None:
    """Refuse what capset(2) would: effective beyond permitted, inheritable beyond bounding."""
    for name, limit in (("effective", "permitted"), ("inheritable", "bounding")):
        allowed = set(getattr(sets, limit))
        for index, capability in enumerate(getattr(sets, name)):
            if capability not in allowed and capability in CAPABILITIES:
                raise ConfigError(f"{path}.{name}[{index}]: {capability} is not in {path}.{limit} too")


def _check_rarities(process: Process, path: str) -> None:
    """What few processes ask for; the modules that know more are loaded only then."""
    if process.scheduler or process.io_priority or process.exec_cpu_affinity:
        from pytest_ocirun.runtime import tuning_terms

        if process.scheduler:
            tuning_terms.check_scheduler(process.scheduler, f"{path}.scheduler")
        if process.io_priority:
            tuning_terms.check_io_priority(process.io_priority, f"{path}.ioPriority")
        if process.exec_cpu_affinity:
            tuning_terms.check_affinity(process.exec_cpu_affinity, f"{path}.execCPUAffinity")
    if process.apparmor_profile or process.selinux_label:
        from pytest_ocirun.runtime.label_plan import check_process as check_labels

        check_labels(process, path)


def check_strings(document: Document, path: str) -> None:
    """Refuse NUL, at which the kernel would end a string: what is checked would not be what is done."""
    if not _has_nul(document):
        return
    for place, value in walk(document, path):
        if isinstance(value, str) and "\0" in value:
            raise ConfigError(f"{place}: contains a NUL character")


def _has_nul(value: object) -> bool:
    """Look without keeping track of the path, which would take most of the time of ``validate``."""
    if isinstance(value, str):
        return "\0" in value
    if isinstance(value, list):
        return any(map(_has_nul, value))
    if isinstance(value, dict):
        return any(map(_has_nul, value)) or any(map(_has_nul, value.values()))
    return isinstance(value, Document) and any(map(_has_nul, vars(value).values()))


def check_ranges(document: Document, ranges: tuple[tuple[str, tuple[int, int]], ...], path: str) -> None:
    """Refuse numbers beyond their smallest and largest value."""
    for attribute, (low, high) in ranges:
        for place, value in select(document, attribute, path):
            if isinstance(value, int) and not low <= value <= high:
                raise ConfigError(f"{place}: expected {low} to {high}, got {value}")


def process_warnings(process: Process, path: str, *, granted: int = -1) -> list[str]:
    """Name capabilities that are left out: that is no error since 1.0.3, as a newer kernel may know or grant them.

    Args:
        process: the process.
        path: where it lies in its document.
        granted: a mask of the capabilities that a container without a user namespace can have at all.
    """
    if process.capabilities is None:
        return []
    sets = process.capabilities
    unreachable = set(sets.ambient) - (set(sets.permitted) & set(sets.inheritable))
    ungranted = {name for name in {*sets.permitted, *sets.inheritable} if ~granted >> CAPABILITIES.get(name, 0) & 1}
    warnings = [
        f"{path}.capabilities.{name}[{index}]: unknown capability {capability!r} is left out"
        for name in ("bounding", "effective", "inheritable", "permitted", "ambient")
        for index, capability in enumerate(getattr(sets, name))
        if capability not in CAPABILITIES
    ]
    for place, names, why in (
        (".ambient", unreachable, "ambient ones must be permitted and inheritable too"),
        ("", ungranted, "ocirun itself does not have them"),
    ):
        known = ", ".join(sorted(names & CAPABILITIES.keys()))
        if known:
            warnings.append(f"{path}.capabilities{place}: left out: {known}: {why}")
    return warnings


def one_of(word: str, words: tuple[str, ...] | dict[str, int], path: str) -> None:
    """Refuse a word that is not in a list."""
    if word not in words:
        raise ConfigError(f"{path}: {word!r} is none of {', '.join(word for word in words if word)}")
