"""The C library's handle, system call prototypes and the one place that reads errno.

``PyDLL`` on purpose: it keeps the GIL during the call, so a raw clone3 returns in the child with the GIL
held, and errno cannot change between the call and its reading. Calls that may block for long (wait,
poll, read) belong to ``os`` and ``select`` instead.
"""

from __future__ import annotations

import ctypes
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

libc = ctypes.PyDLL(None, use_errno=True)

_MACHINES = {"x86_64": 0, "aarch64": 1}
MACHINE = os.uname().machine

# Numbers from 424 on are the same on every architecture.
NUMBERS: dict[str, tuple[int, int]] = {
    "accept4": (288, 242),
    "close": (3, 57),
    "dup3": (292, 24),
    "execve": (59, 221),
    "exit_group": (231, 94),
    "fchdir": (81, 50),
    "fcntl": (72, 25),
    "prctl": (157, 167),
    "prlimit64": (302, 261),
    "read": (0, 63),
    "sendto": (44, 206),
    "setgroups": (116, 159),
    "setresgid": (119, 149),
    "setresuid": (117, 147),
    "umask": (95, 166),
    "write": (1, 64),
    "writev": (20, 66),
    "pivot_root": (155, 41),
    "keyctl": (250, 219),
    "capget": (125, 90),
    "capset": (126, 91),
    "set_mempolicy": (238, 237),
    "ioprio_set": (251, 30),
    "sched_setattr": (314, 274),
    "seccomp": (317, 277),
    "bpf": (321, 280),
    "execveat": (322, 281),
    "pidfd_send_signal": (424, 424),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "pidfd_open": (434, 434),
    "clone3": (435, 435),
    "close_range": (436, 436),
    "openat2": (437, 437),
    "pidfd_getfd": (438, 438),
    "faccessat2": (439, 439),
    "mount_setattr": (442, 442),
}


def number(name: str) -> int:
    """This machine's number of the system call ``name``, a key of ``NUMBERS``."""
    return NUMBERS[name][_MACHINES.get(MACHINE, 0)]


class SystemCall:
    """One system call by number, with its argument types set once.

    Args:
        name: the kernel's name, a key of ``NUMBERS``.
        argtypes: the ctypes of the arguments after the number.
    """

    __slots__ = ("_function", "_number", "name")

    def __init__(self, name: str, *argtypes: type) -> None:
        self.name = name
        self._number = number(name)
        self._function = libc["syscall"]
        self._function.restype = ctypes.c_long
        self._function.argtypes = (ctypes.c_long, *argtypes)

    def __call__(self, *args: object, path: str | None = None) -> int:
        """Make the call.

        Raises:
            OSError: the kernel's errno, with ``path`` as its filename.
        """
        if MACHINE not in _MACHINES:
            raise OSError(38, f"{self.name}: no system call numbers known for {MACHINE}")
        return check(self._function(self._number, *args), self.name, path)


def function(name: str, *argtypes: type) -> Callable[..., int]:
    """The C library's function ``name``, returning int, with its argument types set once."""
    found = libc[name]
    found.restype = ctypes.c_int
    found.argtypes = argtypes
    return found


def check(result: int, call: str, path: str | None = None) -> int:
    """Return ``result``, or raise the errno that a result of -1 stands for.

    Raises:
        OSError: the subclass that errno asks for, its text prefixed by the name of the call.
    """
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, f"{call}: {os.strerror(number)}", path)
    return result
