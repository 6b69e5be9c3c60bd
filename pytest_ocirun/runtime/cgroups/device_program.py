"""Device rules on cgroup v2: a BPF program, assembled here, attached to the cgroup.

Responsible for: the instructions, and replacing the program when the rules change. Must not know: what the rules are
for. Sources: linux/bpf.h (struct bpf_cgroup_dev_ctx), the kernel's Documentation/bpf/standardization/instruction-set.

The program walks the rules from the last to the first with the access that is still undecided in a register: a rule
that matches the device takes away what it allows, and ends with "denied" if it denies any of the rest.
"""

from __future__ import annotations

import errno
import os
import struct

from pytest_ocirun.errors import Unsupported
from pytest_ocirun.runtime.cgroups import knobs
from pytest_ocirun.runtime.cgroups.device_rules import ANY, EVERYTHING

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pytest_ocirun.runtime.cgroups.device_rules import Rule

NAME = "ocirun_devices"
"""By it a later ``enforce`` knows the program of an earlier one."""

_KINDS = {"b": 1, "c": 2}  # BPF_DEVCG_DEV_*

_ANSWER, _CONTEXT, _KIND, _ACCESS, _MAJOR, _MINOR = range(6)  # registers: r0 returns, r1 comes with the context

_LOAD = 0x61  # dst = *(u32 *)(src + offset)
_MOVE, _MOVE_REGISTER = 0xB7, 0xBF
_AND, _SHIFT_RIGHT = 0x54, 0x74  # of 32 bits
_JUMP, _JUMP_UNLESS_EQUAL, _JUMP_IF_ANY_BIT = 0x05, 0x55, 0x45
_EXIT = 0x95


def assemble(rules: list[Rule]) -> bytes:
    """The program for some rules: answers 1 to let a process have a device, 0 to deny it.

    Args:
        rules: in order; the last that matches decides.
    """
    program = [
        _instruction(_LOAD, _KIND, _CONTEXT, 0),
        _instruction(_MOVE_REGISTER, _ACCESS, _KIND),
        _instruction(_AND, _KIND, value=0xFFFF),
        _instruction(_SHIFT_RIGHT, _ACCESS, value=16),
        _instruction(_LOAD, _MAJOR, _CONTEXT, 4),
        _instruction(_LOAD, _MINOR, _CONTEXT, 8),
    ]
    for rule in reversed(rules):
        if rule.kind == EVERYTHING:
            return b"".join([*program, *_answer(allow=rule.allow)])
        program += _decide(rule)
    return b"".join([*program, *_answer(allow=False)])


def _decide(rule: Rule) -> list[bytes]:
    if rule.allow:
        steps = [
            _instruction(_AND, _ACCESS, value=~rule.access & 0xFFFF),
            _instruction(_JUMP_UNLESS_EQUAL, _ACCESS, offset=2, value=0),
            *_answer(allow=True),
        ]
    else:
        steps = [
            _instruction(_JUMP_IF_ANY_BIT, _ACCESS, offset=1, value=rule.access),
            _instruction(_JUMP, offset=2),
            *_answer(allow=False),
        ]
    wanted = ((_MINOR, rule.minor), (_MAJOR, rule.major), (_KIND, _KINDS[rule.kind]))
    for register, number in wanted:
        if number != ANY:
            steps.insert(0, _instruction(_JUMP_UNLESS_EQUAL, register, offset=len(steps), value=number))
    return steps


def _answer(*, allow: bool) -> list[bytes]:
    return [_instruction(_MOVE, _ANSWER, value=int(allow)), _instruction(_EXIT)]


def _instruction(code: int, target: int = 0, source: int = 0, offset: int = 0, value: int = 0) -> bytes:
    return struct.pack("=BBhi", code, target | source << 4, offset, value)


def enforce(directory: str, rules: list[Rule]) -> None:
    """Make a cgroup v2 directory obey rules; a program of an earlier call is replaced in the same instant.

    Args:
        directory: the cgroup.
        rules: in order.

    Raises:
        Unsupported: this kernel, or this user, can have no such programs.
        KernelRefused: the kernel refused this one.
    """
    from pytest_ocirun.linux import bpf

    attempt = f"cannot enforce linux.resources.devices (attach a BPF program to {directory})"
    opened: list[int] = []
    try:
        cgroup = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        opened.append(cgroup)
        program = bpf.load(assemble(rules), NAME)
        opened.append(program)
        earlier = [bpf.open_program(number) for number in bpf.attached(cgroup)]
        opened.extend(earlier)
        ours = next((fd for fd in earlier if bpf.name(fd) == NAME), None)
        bpf.attach(cgroup, program, instead_of=ours)
    except OSError as error:
        if error.errno in _HINTS:
            raise Unsupported(f"{attempt}: {error.strerror}", hint=_HINTS[error.errno]) from error
        raise knobs.refused(attempt, error) from error
    finally:
        for fd in opened:
            os.close(fd)


_HINTS = {
    errno.EPERM: "it takes root of the host, with CAP_BPF and CAP_NET_ADMIN or CAP_SYS_ADMIN",
    errno.ENOSYS: "boot a kernel with CONFIG_CGROUP_BPF",
}
