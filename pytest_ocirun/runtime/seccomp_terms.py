"""The words of a system call filter (actions, operators, architectures, flags), and their right use.

Responsible for: the specification's names and the kernel's or libseccomp's numbers behind them. Must not
know: libseccomp itself.
"""

from __future__ import annotations

from pytest_ocirun.errors import ConfigError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from pytest_ocirun.oci.runtime import Seccomp, Syscall

ACTIONS = {
    "SCMP_ACT_KILL": 0x00000000,
    "SCMP_ACT_KILL_THREAD": 0x00000000,
    "SCMP_ACT_KILL_PROCESS": 0x80000000,
    "SCMP_ACT_TRAP": 0x00030000,
    "SCMP_ACT_ERRNO": 0x00050000,
    "SCMP_ACT_TRACE": 0x7FF00000,
    "SCMP_ACT_NOTIFY": 0x7FC00000,
    "SCMP_ACT_LOG": 0x7FFC0000,
    "SCMP_ACT_ALLOW": 0x7FFF0000,
}
"""SECCOMP_RET_* of seccomp(2)."""

WITH_NUMBER = ("SCMP_ACT_ERRNO", "SCMP_ACT_TRACE")
"""The actions that carry a number, whose default is EPERM."""

OPERATORS = {
    "SCMP_CMP_NE": 1,
    "SCMP_CMP_LT": 2,
    "SCMP_CMP_LE": 3,
    "SCMP_CMP_EQ": 4,
    "SCMP_CMP_GE": 5,
    "SCMP_CMP_GT": 6,
    "SCMP_CMP_MASKED_EQ": 7,
}
"""Comparisons of libseccomp's ``enum scmp_compare``."""

FLAGS = {
    "SECCOMP_FILTER_FLAG_TSYNC": 1,
    "SECCOMP_FILTER_FLAG_LOG": 2,
    "SECCOMP_FILTER_FLAG_SPEC_ALLOW": 4,
    "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV": 32,
}
"""Flags of seccomp(2) that a filter may ask for."""
TSYNC = 1
NEW_LISTENER = 8
"""The flag that a filter with SCMP_ACT_NOTIFY is loaded with; not together with TSYNC."""

_ARCHITECTURES = """
X86 X86_64 X32 ARM AARCH64 MIPS MIPS64 MIPS64N32 MIPSEL MIPSEL64 MIPSEL64N32 PPC PPC64 PPC64LE S390 S390X
PARISC PARISC64 RISCV64 LOONGARCH64 M68K SH SHEB
"""
ARCHITECTURES = tuple(f"SCMP_ARCH_{name}" for name in _ARCHITECTURES.split())
"""The specification's names; libseccomp may know fewer."""

_NOTIFY = "SCMP_ACT_NOTIFY"
_LISTENER_FLAG = "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"
_ARGUMENTS = 6
_ERRNO_CAP = 4095
"""MAX_ERRNO: the kernel cuts larger numbers down to it."""


def check_filter(seccomp: Seccomp, path: str = "$.linux.seccomp") -> None:
    """Refuse what does not make sense in a filter; runtime-spec, config-linux.md, "Seccomp".

    Args:
        seccomp: the filter.
        path: where it lies in its document, for messages.

    Raises:
        ConfigError: a name is unknown, or a number is where none belongs or out of range.
    """
    _check_action(seccomp.default_action, seccomp.default_errno_ret, f"{path}.defaultAction", f"{path}.defaultErrnoRet")
    for index, name in enumerate(seccomp.architectures):
        _check_word(name, ARCHITECTURES, f"{path}.architectures[{index}]")
    for index, name in enumerate(seccomp.flags):
        _check_word(name, FLAGS, f"{path}.flags[{index}]")
        if name == _LISTENER_FLAG and not listens(seccomp):
            raise ConfigError(f"{path}.flags[{index}]: {name} needs an action {_NOTIFY}")
    if seccomp.listener_metadata and not seccomp.listener_path:
        raise ConfigError(f"{path}.listenerMetadata: needs listenerPath, the socket to send it to")
    if seccomp.listener_path and not seccomp.listener_path.startswith("/"):
        raise ConfigError(f"{path}.listenerPath: must be absolute, got {seccomp.listener_path!r}")
    if listens(seccomp) and not seccomp.listener_path:
        raise ConfigError(f"{path}.listenerPath: needed for {_NOTIFY}, whose calls would wait for nobody")
    for index, rule in enumerate(seccomp.syscalls):
        _check_rule(rule, f"{path}.syscalls[{index}]")


def listens(seccomp: Seccomp) -> bool:
    """Whether some calls wait for a listener to decide about them."""
    return seccomp.default_action == _NOTIFY or any(rule.action == _NOTIFY for rule in seccomp.syscalls)


def _check_rule(rule: Syscall, path: str) -> None:
    if not rule.names:
        raise ConfigError(f"{path}.names: must name a system call")
    _check_action(rule.action, rule.errno_ret, f"{path}.action", f"{path}.errnoRet")
    for index, each in enumerate(rule.args):
        where = f"{path}.args[{index}]"
        _check_word(each.op, OPERATORS, f"{where}.op")
        if not 0 <= each.index < _ARGUMENTS:
            raise ConfigError(f"{where}.index: expected 0 to {_ARGUMENTS - 1}, got {each.index}")
        for name, value in (("value", each.value), ("valueTwo", each.value_two or 0)):
            if not 0 <= value < 1 << 64:
                raise ConfigError(f"{where}.{name}: expected 64 bits without a sign, got {value}")


def _check_action(name: str, number: int | None, path: str, number_path: str) -> None:
    _check_word(name, ACTIONS, path)
    if number is None:
        return
    if name not in WITH_NUMBER:
        raise ConfigError(f"{number_path}: {name} takes no number, got {number}")
    if not 0 <= number <= _ERRNO_CAP:
        raise ConfigError(f"{number_path}: expected an errno from 0 to {_ERRNO_CAP}, got {number}")


def _check_word(word: str, words: Iterable[str], path: str) -> None:
    if word not in words:
        raise ConfigError(f"{path}: {word!r} is none of {', '.join(words)}")
