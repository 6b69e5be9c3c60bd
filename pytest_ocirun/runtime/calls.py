"""Steps of a plan as a script for the runner: what a spare does to become a program.

Each operation that has a form in system calls alone is written down here; what has none makes a spare unfit for the
process, and an ordinary exec, whose steps Python replays, does it. The same happens when a call fails: the runner says
so, and the ordinary exec meets the error again and can name it. Must not know containers.
"""

from __future__ import annotations

import os
import resource
import struct

from pytest_ocirun.linux.caps import NAMES
from pytest_ocirun.runtime import runner
from pytest_ocirun.runtime.runner import Script, Unfit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_ocirun.runtime.steps import Step

UNFIT = b'{"event": "unfit"}'

_AT_FDCWD = -100
_RESOLVE_NO_MAGICLINKS = 2
_CLOSE_RANGE_CLOEXEC = 4
_AT_EACCESS, _X_OK = 0x200, 1
_MSG_NOSIGNAL = 0x4000
_CAPABILITY_VERSION_3 = 0x20080522
_SIGKILL = 9
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_KEEPCAPS = 1, 4, 8
_PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS, _PR_CAP_AMBIENT = 24, 38, 47
_PR_CAP_AMBIENT_RAISE, _PR_CAP_AMBIENT_CLEAR_ALL = 2, 4


class Calls(Script):
    """A script for a spare, being written.

    Args:
        slots: the fds that are sent with it, in their order.
        code: the instructions of the system call filter, or none.
        flags: its flags, of seccomp(2).
        last_capability: the highest number that the kernel knows.
    """

    def __init__(self, slots: list[str], code: bytes, flags: int, last_capability: int) -> None:
        super().__init__(runner.MOST)
        self.fds = {slot: runner.SOCKET + 1 + index for index, slot in enumerate(slots)}
        self.next_fd = runner.SOCKET + 1 + len(slots)
        self.code = code
        self.flags = flags
        self.last_capability = last_capability
        self.candidates: list[int] = []


def written(steps: list[Step], calls: Calls) -> bytes:
    """The script that does ``steps``.

    Raises:
        Unfit: one of them has no form in system calls alone.
    """
    for operation, *arguments in steps:
        if operation not in _FORMS:
            raise Unfit(operation)
        _FORMS[operation](calls, *arguments)
    return calls.finish([("sendto", runner.SOCKET, calls.data(UNFIT), len(UNFIT), _MSG_NOSIGNAL)])


_FORMS: dict[str, Callable[..., None]] = {}


def _form(function: Callable[..., None]) -> Callable[..., None]:
    _FORMS[function.__name__.lstrip("_")] = function
    return function


@_form
def _rlimit(calls: Calls, name: str, soft: int, hard: int) -> None:
    calls.call("prlimit64", 0, getattr(resource, name), calls.data(struct.pack("<QQ", soft, hard)), 0)


@_form
def _umask(calls: Calls, mask: int) -> None:
    calls.call("umask", mask)


@_form
def _chdir(calls: Calls, path: str, make: bool) -> None:  # noqa: FBT001 - a plan's arguments
    """Through no magic link, which a leaked fd would be the way out by."""
    if make:
        raise Unfit("a directory to be made")
    how = calls.data(struct.pack("<QQQ", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, 0, _RESOLVE_NO_MAGICLINKS))
    calls.call("openat2", _AT_FDCWD, calls.text(path), how, 24)
    calls.call("fchdir", calls.next_fd)
    calls.next_fd += 1


@_form
def _chdir_again(calls: Calls, path: str) -> None:
    """Only where the first time failed, which makes the spare unfit."""


@_form
def _bounding(calls: Calls, keep: int) -> None:
    for number in range(calls.last_capability + 1):
        if not keep >> number & 1:
            calls.call("prctl", _PR_CAPBSET_DROP, number)


@_form
def _user(calls: Calls, uid: int, gid: int, groups: list[int]) -> None:
    ids = [uid, gid, *groups]
    if any(not 0 <= each < 0xFFFFFFFF for each in ids):  # (uid_t) -1 means "leave it as it is" (CVE-2024-40635)
        raise Unfit(f"ids {ids}")
    calls.call("setgroups", len(groups), calls.data(struct.pack(f"<{len(groups)}I", *groups)))
    calls.call("prctl", _PR_SET_KEEPCAPS, 1)
    calls.call("setresgid", gid, gid, gid)
    calls.call("setresuid", uid, uid, uid)
    calls.call("prctl", _PR_SET_KEEPCAPS, 0)
    calls.call("prctl", _PR_SET_DUMPABLE, 0)


@_form
def _no_new_privs(calls: Calls) -> None:
    calls.call("prctl", _PR_SET_NO_NEW_PRIVS, 1)


@_form
def _find_executable(calls: Calls, name: str, search: str) -> None:
    """The first that can be executed; looked for before a filter can get in the way, like the steps' own."""
    paths = [name] if "/" in name else [f"{directory or '.'}/{name}" for directory in search.split(":")]
    calls.candidates = [calls.text(path) for path in paths]
    for left, address in zip(reversed(range(len(paths))), calls.candidates, strict=True):
        calls.call("faccessat2", _AT_FDCWD, address, _X_OK, _AT_EACCESS, may_fail=left > 0, skip=left)


@_form
def _capabilities(calls: Calls, effective: int, permitted: int, inheritable: int, ambient: int) -> None:
    header = calls.data(struct.pack("<Ii", _CAPABILITY_VERSION_3, 0))
    sets = (effective, permitted, inheritable)
    data = struct.pack("<6I", *(each & 0xFFFFFFFF for each in sets), *(each >> 32 for each in sets))
    calls.call("capset", header, calls.data(data))
    calls.call("prctl", _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)
    for number in range(len(NAMES)):
        if ambient >> number & 1:
            calls.call("prctl", _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, number)


@_form
def _die_with_spawner(calls: Calls) -> None:
    calls.call("prctl", _PR_SET_PDEATHSIG, _SIGKILL)


@_form
def _arrange_fds(calls: Calls, targets: dict[str, str]) -> None:
    """The three of stdio alone, as others could be asked for where the runner has its own."""
    if set(targets) != {"0", "1", "2"}:
        raise Unfit(f"fds {', '.join(targets)}")
    for number, slot in targets.items():
        calls.call("dup3", calls.fds[slot], int(number), 0)
    calls.call("close_range", runner.SOCKET, 0xFFFFFFFF, _CLOSE_RANGE_CLOEXEC)


@_form
def _default_signals(calls: Calls) -> None:
    """They have been that since the runner was executed."""


@_form
def _load_filter(calls: Calls) -> None:
    calls.load_filter(calls.code, calls.flags)


@_form
def _execute(calls: Calls, args: list[str], env: list[str]) -> None:
    """Of several variables of one name the last counts, as for the steps' own."""
    environment = dict(item.split("=", 1) for item in env)
    argv, envp = calls.texts(args), calls.texts([f"{name}={value}" for name, value in environment.items()])
    for left, path in zip(reversed(range(len(calls.candidates))), calls.candidates, strict=True):
        calls.call("execve", path, argv, envp, may_fail=left > 0)
