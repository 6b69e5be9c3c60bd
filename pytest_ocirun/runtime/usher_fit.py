"""Whether an usher (``runtime.usher``) keeps a container away from the host's interpreter, or a stage is needed.

Between clone and usher our Python is in the container's namespaces, non-dumpable. There it can be looked at only
by who holds CAP_SYS_PTRACE over the initial user namespace, in which it was exec'ed, and sees its pid namespace. Must
not know how either keeps the container away.

Sources: ptrace(2) "Ptrace access mode checking", capabilities(7) on execve, seccomp(2), linux/bpf_common.h.
"""

from __future__ import annotations

import os
import struct
import sys

from pytest_ocirun.runtime.record import can_trace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pytest_ocirun.oci.process import Process
    from pytest_ocirun.oci.runtime import Config
    from pytest_ocirun.runtime.record import Filter
    from pytest_ocirun.runtime.seccomp import Program

_EXECVEAT = {"x86_64": (0xC000003E, 322), "aarch64": (0xC00000B7, 281)}
_ALLOW, _LOG = 0x7FFF0000, 0x7FFC0000
_NEW_LISTENER = 8
_LOAD, _JUMP, _RETURN = 0x20, 0x05, 0x06
_COMPARE = {0x15: int.__eq__, 0x25: int.__gt__, 0x35: int.__ge__, 0x45: int.__and__}


def suits(config: Config, process: Process, program: Program | Filter | None, *, joins: bool, traced: bool) -> bool:
    """Whether an usher is enough for a process that a privileged caller makes.

    Args:
        config: the container's.
        process: what will run.
        program: its compiled filter.
        joins: whether the container exists already, and may be hostile.
        traced: whether something in the container has been given CAP_SYS_PTRACE later.
    """
    return (
        sys.getfilesystemencoding() == "utf-8"
        and _is_alone(config, process, joins=joins, traced=traced)
        and not _changes_by_execve(process)
        and (program is None or process.no_new_privileges or _lets_in(program.code))
        and (program is None or not program.flags & _NEW_LISTENER)
    )


def _is_alone(config: Config, process: Process, *, joins: bool, traced: bool) -> bool:
    """Whether nobody in the pid namespace can look at our Python on its way to the usher."""
    pids = config.linux.namespace("pid")
    if pids is None or pids.path:
        return False
    if not joins:  # the pid namespace is new, so only what is run in it meanwhile could
        return not any(vars(config.hooks).values())
    if config.linux.namespace("user"):
        return True
    return not (traced or can_trace(config.process) or can_trace(process))


def _changes_by_execve(process: Process) -> bool:
    """Whether one execve more makes a difference.

    A security label is for the next execve, and no_new_privs lets file capabilities grant only what is held before the
    execve, which a user other than root loses at each one but for the ambient set.
    """
    sets = process.capabilities
    keeps = process.no_new_privileges and process.user.uid != 0 and sets is not None and bool(sets.permitted)
    return bool(process.apparmor_profile or process.selinux_label) or keeps


def _lets_in(code: bytes) -> bool:
    """Whether a filter that is loaded before the usher lets execveat(2) be called, whatever its arguments.

    This follows the program as libseccomp writes them; what else there is counts as no.
    """
    machine = os.uname().machine
    if machine not in _EXECVEAT:
        return False
    words = {0: _EXECVEAT[machine][1], 4: _EXECVEAT[machine][0]}
    value = at = 0
    while at < len(code) // 8:
        operation, yes, no, number = struct.unpack_from("=HBBI", code, at * 8)
        at += 1
        if operation == _LOAD and number in words:
            value = words[number]
        elif operation in _COMPARE:
            at += yes if _COMPARE[operation](value, number) else no
        elif operation == _JUMP:
            at += number
        else:
            return operation == _RETURN and number in (_ALLOW, _LOG)
    return False
