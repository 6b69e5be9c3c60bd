"""The usher: a tiny program between our Python and the container's, so that the one never execs the other.

A program of the container that is ``/proc/self/exe``, or names that as its interpreter, gets what ran before it, and
with it a file to overwrite (CVE-2019-5736). That must never be the host's Python. The usher is a static program in a
sealed memory file, which nobody can write to. It makes the last system calls before the execve as a table tells it: a
row is a call, its arguments and the result that it must have. It is also all that waits in a created container.

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
from pytest_ocirun.runtime import elf
from pytest_ocirun.runtime.spawn import failure
from pytest_ocirun.runtime.steps import Context, describe, operation

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pytest_ocirun.runtime.spawn import Plan
    from pytest_ocirun.runtime.steps import Step

_MFD_EXEC = 0x10
_F_ADD_SEALS = 1033
_EVERY_SEAL = 0x1 | 0x2 | 0x4 | 0x8  # no more seals, no shrinking, no growing, no writing
_ANY = -1 << 63
_FAILED = 127
_SOCK_CLOEXEC = 0o2000000
_STARTING = b"starting"
_READY = b'{"event": "ready"}'
_KEEP = b"keep"
_TAIL = ("ready", "wait_start", "use_console", "arrange_fds", "default_signals", "load_filter", "execute")
_ROW = struct.Struct("<6Qq")
_HEAD = struct.Struct("<3Q")  # addresses: of the table, of the byte for errno, of the table for failures

_CODES = {
    "x86_64": bytes.fromhex(
        "bb00005000 4c8b23"  # rbx = DATA; r12 = the table
        "498b0424 498b7c2408 498b742410 498b542418 4d8b542420 4d8b442428 0f05"  # next: load a row; syscall
        "498b4c2430 4885c9 7805 4839c8 7506"  # rcx = the result; js step, if any will do; jne fail
        "4983c438 ebcc"  # step: r12 += 56; jmp next
        "f7d8 488b4b08 8801 4c8b6310 ebbe"  # fail: store errno; r12 = the table for failures; jmp next
    ),
    "aarch64": struct.pack(
        "<17I",
        *(0xD2A00A14, 0xF9400293),  # x20 = DATA; x19 = the table
        *(0xA9400268, 0xA9410A61, 0xA9421263, 0xD4000001),  # next: load a row: x8, x0 to x4; svc
        *(0xF9401A69, 0xB7F80069, 0xEB09001F, 0x54000061),  # x9 = the result; tbnz step, if any will do; b.ne fail
        *(0x9100E273, 0x17FFFFF7),  # step: x19 += 56; b next
        *(0x4B0003E0, 0xF940068A, 0x39000140, 0xF9400A93, 0x17FFFFF2),  # fail: store errno; x19 = the other; b next
    ),
}
_CALLS = {
    "read": (0, 63),
    "write": (1, 64),
    "close": (3, 57),
    "execve": (59, 221),
    "fcntl": (72, 25),
    "exit_group": (231, 94),
    "accept4": (288, 242),
    "seccomp": (317, 277),
}
"""The numbers of system calls on each of these machines."""


class _Image:
    """The usher's memory under construction: its head, then what is added."""

    def __init__(self, machine: str) -> None:
        self._machine = machine
        self._column = list(_CODES).index(machine)
        self._data = bytearray(_HEAD.size)

    def add(self, content: bytes) -> int:
        """Lay out bytes; their address."""
        self._data += bytes(-len(self._data) % 8)
        address = elf.DATA + len(self._data)
        self._data += content
        return address

    def add_strings(self, strings: list[bytes]) -> int:
        """Lay out an array of strings as execve(2) takes it; its address."""
        addresses = [self.add(each + b"\0") for each in strings]
        return self.add(struct.pack(f"<{len(addresses) + 1}Q", *addresses, 0))

    def add_rows(self, rows: list[tuple[Any, ...]]) -> int:
        """Lay out a table of (call, arguments..., result); its address."""
        table = b""
        for name, *arguments, result in rows:
            padded = [*arguments, 0, 0, 0, 0, 0][:5]
            table += _ROW.pack(_CALLS[name][self._column], *padded, result)
        return self.add(table)

    def finish(self, table: int, number: int, failure: int) -> bytes:
        """The whole program."""
        _HEAD.pack_into(self._data, 0, table, number, failure)
        return elf.image(self._machine, _CODES, bytes(self._data), len(self._data))


def open_memory() -> int | None:
    """A close-on-exec memory file that can be sealed and executed; None where the kernel or we cannot have one."""
    if os.uname().machine not in _CODES:
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
    image = _Image(os.uname().machine)
    speaker = first + 2 if waits else first
    rows: list[tuple[Any, ...]] = []
    if waits:
        ready, starting = image.add(_READY), image.add(_STARTING)
        rows = [
            ("write", first + 1, ready, len(_READY), len(_READY)),
            ("read", first + 1, image.add(bytes(len(_KEEP))), len(_KEEP), len(_KEEP)),
            ("accept4", first, 0, 0, _SOCK_CLOEXEC, speaker),
            ("write", speaker, starting, len(_STARTING), len(_STARTING)),
            ("close", first, 0),
            ("close", first + 1, 0),
        ]
    else:
        rows.append(("fcntl", first, fcntl.F_SETFD, fcntl.FD_CLOEXEC, 0))
    if filtered and context.filter is not None:
        code = context.filter.program
        descriptor = struct.pack("<H6xQ", len(code) // 8, image.add(code))
        rows.append(("seccomp", 1, context.filter.flags, image.add(descriptor), 0))
    environment = dict(item.split("=", 1) for item in env) | context.environment
    program = [_bytes(context.executable)]
    path = image.add(program[0] + b"\0")
    argv = image.add_strings([_bytes(each) for each in args])
    envp = image.add_strings([_bytes(f"{name}={value}") for name, value in environment.items()])
    rows.append(("execve", path, argv, envp, 0))
    message = _failure(args, env, context.executable)
    text = image.add(message + b"\0")
    refusal = [("write", speaker, text, len(message) + 1, _ANY), ("exit_group", _FAILED, _ANY)]
    content = image.finish(image.add_rows(rows), text + len(message), image.add_rows(refusal))
    memory = context.fds["usher"]
    os.write(memory, content)
    fcntl.fcntl(memory, _F_ADD_SEALS, _EVERY_SEAL)
    os.execve(memory, ["ocirun"], {})


def _failure(args: list[str], env: list[str], path: str) -> bytes:
    """What is said when execve fails, up to the errno, which the usher adds as a byte."""
    message = failure(describe(["execute", args, env]), OSError(0, "", path)) | {"operation": "execute"}
    return json_text.dumps(message).encode()


def _bytes(text: str) -> bytes:
    found = os.fsencode(text)
    if b"\0" in found:
        raise OSError(errno.EINVAL, "a zero byte in an argument or variable")
    return found
