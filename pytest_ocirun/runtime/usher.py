"""The usher: a tiny program between our Python and the container's, so that the one never execs the other.

A program of the container that is ``/proc/self/exe``, or names that as its interpreter, gets what ran before it, and
with it a file to overwrite (CVE-2019-5736). That must never be the host's Python. The usher is a static program in a
sealed memory file, which nobody can write to: the ``runner``, with a script that makes the last system calls before the
execve. It is also all that waits in a created container.

So no stage (``runtime.stage``) is needed where nothing of the container can look at our Python before the usher runs;
``suits`` says where that is. Must not know what is done before.

Sources: elf(5), syscall(2), memfd_create(2), fcntl(2) "File Sealing".
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct

from pytest_ocirun.oci import json_text
from pytest_ocirun.runtime import runner
from pytest_ocirun.runtime.runner import Script, Unfit
from pytest_ocirun.runtime.spawn import failure
from pytest_ocirun.runtime.steps import Context, describe, operation

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pytest_ocirun.runtime.spawn import Plan
    from pytest_ocirun.runtime.steps import Step

_MACHINE = os.uname().machine  # at the import: a personality may have uname(2) show another one later
_MFD_EXEC = 0x10
_F_ADD_SEALS = 1033
_EVERY_SEAL = 0x1 | 0x2 | 0x4 | 0x8  # no more seals, no shrinking, no growing, no writing
_SOCK_CLOEXEC = 0o2000000
_STARTING = b"starting"
_READY = b'{"event": "ready"}'
_KEEP = b"keep"
_TAIL = ("ready", "wait_start", "use_console", "arrange_fds", "default_signals", "load_filter", "execute")


def open_memory() -> int | None:
    """A close-on-exec memory file that can be sealed and executed; None where the kernel or we cannot have one."""
    if _MACHINE not in runner.MACHINES:
        return None
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    try:
        return os.memfd_create("ocirun", flags | _MFD_EXEC)
    except OSError as error:
        if error.errno != errno.EINVAL:
            return None  # vm.memfd_noexec
    return os.memfd_create("ocirun", flags)  # before Linux 6.3 every memory file could be executed


def adapt(plan: Plan) -> Plan:
    """The same plan, with its last steps left to the usher in slot ``usher``.

    Raises:
        AssertionError: it has a step there that the usher cannot do, so its config does not suit.
    """
    enter: list[Step] = plan["enter"]
    cut = next(index for index, step in enumerate(enter) if step[0] in ("ready", "use_console", "arrange_fds"))
    tail = {step[0]: step[1:] for step in enter[cut:]}
    waits = "wait_start" in tail
    if not set(tail) <= set(_TAIL) or "execute" not in tail or waits != ("ready" in tail):
        raise AssertionError(f"the usher cannot do {', '.join(tail)}")
    targets = dict(tail["arrange_fds"][0])
    first = len(targets)
    targets |= {str(first + index): slot for index, slot in enumerate(["listen", "reply"] if waits else ["reply"])}
    console = [["use_console"]] if "use_console" in tail else []
    last: Step = ["usher", *tail["execute"], first, waits, "load_filter" in tail]
    return {**plan, "enter": [*enter[:cut], *console, ["arrange_fds", targets], ["default_signals"], last]}


@operation("hand over to the usher, which executes {0}")
def usher(context: Context, args: list[str], env: list[str], first: int, waits: bool, filtered: bool) -> None:  # noqa: FBT001
    """Write the usher and replace this process by it.

    Args:
        context: has the memory file in slot ``usher``, and the filter if there is one to load.
        args: the program's.
        env: the program's.
        first: the lowest fd above those of the program. With ``waits`` it is the start socket's, and the reply
            socket's is the next; else it is the reply socket's.
        waits: whether the program waits for the start.
        filtered: whether the usher loads the filter.
    """
    script = Script()
    speaker = first + 2 if waits else first
    if waits:
        listen, reply = first, first + 1
        script.call("write", reply, script.data(_READY), len(_READY), expect=len(_READY))
        script.call("read", reply, script.data(bytes(len(_KEEP))), len(_KEEP), expect=len(_KEEP))
        script.call("accept4", listen, 0, 0, _SOCK_CLOEXEC, expect=speaker)
        script.call("write", speaker, script.data(_STARTING), len(_STARTING), expect=len(_STARTING))
        script.call("close", listen)
        script.call("close", reply)
    else:
        script.call("fcntl", first, fcntl.F_SETFD, fcntl.FD_CLOEXEC)
    if filtered and context.filter is not None:
        script.load_filter(context.filter.program, context.filter.flags)
    environment = dict(item.split("=", 1) for item in env) | context.environment
    message = _failure(args, env, context.executable)
    try:
        program = script.text(context.executable)
        argv, envp = script.texts(args), script.texts([f"{name}={value}" for name, value in environment.items()])
        script.call("execve", program, argv, envp)
        told = script.data(struct.pack("<4Q", script.data(message), len(message), runner.ERRNO, 1))
        content = runner.program(_MACHINE, script.finish([("writev", speaker, told, 2, 0)]))
    except Unfit as error:
        raise OSError(errno.EINVAL, str(error)) from error
    memory = context.fds["usher"]
    os.write(memory, content)
    fcntl.fcntl(memory, _F_ADD_SEALS, _EVERY_SEAL)
    os.execve(memory, ["ocirun"], {})


def _failure(args: list[str], env: list[str], path: str) -> bytes:
    """What is said when execve fails, up to the errno, which the usher adds as a byte."""
    message = failure(describe(["execute", args, env]), OSError(0, "", path)) | {"operation": "execute"}
    return json_text.dumps(message).encode()
