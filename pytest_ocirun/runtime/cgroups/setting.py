"""One value for one file of a cgroup, and writing many of them.

Responsible for: writing, reading back, the order in which values can be written, taking all back when one is
refused. Must not know: which files there are, nor what their values mean.
"""

from __future__ import annotations

import errno

from pytest_ocirun.errors import KernelRefused, Unsupported

from . import knobs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    Check = Callable[[str, str], bool]


class Setting:
    """One value for one file.

    Args:
        limit: the OCI name, ``memory.limit``.
        asked: the OCI value, for messages.
        controller: the controller that owns the file.
        file: the file's name.
        value: what to write.
        expected: what to read back; ``value`` when None.
        optional: whether a kernel without the file is good enough.
        check: compares what is expected with what is read back; None when that cannot be told.
        otherwise: what to write instead on a kernel without the file.
        only_if_other: whether a file that has the value already is left alone.
        at_least: a file with a number that the value must not be below.
        key: of a file with a line per key, the key of our line.
        reset: what to write to take back a line that was not there.
    """

    __slots__ = (
        *("asked", "at_least", "check", "controller", "expected", "file", "key", "limit", "only_if_other", "optional"),
        *("otherwise", "reset", "value"),
    )

    def __init__(
        self,
        limit: str,
        asked: object,
        controller: str,
        file: str,
        value: str,
        *,
        expected: str | None = None,
        optional: bool = False,
        check: Check | None = str.__eq__,
        otherwise: Setting | None = None,
        only_if_other: bool = False,
        at_least: str = "",
        key: str = "",
        reset: str = "",
    ) -> None:
        self.limit = limit
        self.asked = asked
        self.controller = controller
        self.file = file
        self.value = value
        self.expected = value if expected is None else expected
        self.optional = optional
        self.check = check
        self.otherwise = otherwise
        self.only_if_other = only_if_other
        self.at_least = at_least
        self.key = key
        self.reset = reset

    def write(self, directory: str) -> None:
        """Write the value into the cgroup ``directory`` and read it back.

        Raises:
            KernelRefused: the kernel refused the value or reads back another.
            Unsupported: the file is missing.
        """
        path = f"{directory}/{self.file}"
        attempt = f"cannot set {self.limit} to {self.asked} (write {self.value!r} to {path})"
        try:
            self._put(directory, path, attempt)
            got = knobs.read(path) if self.check is not None else ""
        except FileNotFoundError as error:
            if self.otherwise is not None:
                self.otherwise.write(directory)
                return
            if self.optional:
                return
            raise Unsupported(f"{attempt}: there is no such file", hint=_missing_hint(self)) from error
        except OSError as error:
            if isinstance(error, KernelRefused):
                raise
            raise knobs.refused(attempt, error, _refusal_hint(self)) from error
        if self.check is not None and not self.check(self.expected, got):
            message = f"{attempt}: the kernel reads back {got!r}"
            raise KernelRefused(message, errno=errno.ERANGE, hint=_refusal_hint(self))

    def _put(self, directory: str, path: str, attempt: str) -> None:
        if self.only_if_other and self.check is not None and self.check(self.expected, knobs.read(path)):
            return
        if self.at_least:
            used = knobs.number(f"{directory}/{self.at_least}")
            if used is not None and used > int(self.expected):
                raise KernelRefused(f"{attempt}: {used} are in use", errno=errno.EBUSY, hint=_refusal_hint(self))
        for line in self.value.split("\n"):
            knobs.put(path, line)

    def former(self, directory: str) -> str | None:
        """What to write to get back to what is in force now; None if that cannot be told."""
        try:
            text = knobs.read(f"{directory}/{self.file}")
        except OSError:
            return None if self.otherwise is None else self.otherwise.former(directory)
        if not self.key:
            line = text if self.check is None else text.partition("\n")[0]
            return line if self.check in (None, str.__eq__) else line.rpartition(" ")[2]
        return next((line for line in text.splitlines() if line.split()[:1] == [self.key]), self.reset or None)


def apply(places: Iterable[tuple[Setting, str]], *, undo: bool = False) -> None:
    """Write settings into their directories, in an order that the kernel takes.

    Of some pairs the kernel wants one before the other, by their old values: a memory limit never above that of memory
    and swap, a burst never above the quota. Whatever is EINVAL is tried again after the others.

    Args:
        places: settings, each with its cgroup.
        undo: whether what was written is taken back when something is refused: for a cgroup that is in use.

    Raises:
        KernelRefused, Unsupported: as ``Setting.write``, for the first that cannot be written.
    """
    done: list[tuple[Setting, str, str | None]] = []
    pending, errors = list(places), list[KernelRefused]()
    try:
        while pending:
            before, errors, later = len(pending), [], []
            for setting, directory in pending:
                former = setting.former(directory) if undo else None
                try:
                    setting.write(directory)
                except KernelRefused as error:
                    if error.errno != errno.EINVAL:
                        raise
                    errors.append(error)
                    later.append((setting, directory))
                else:
                    done.append((setting, directory, former))
            if len(later) == before:
                raise errors[0]
            pending = later
    except (KernelRefused, Unsupported):
        for setting, directory, former in reversed(done):
            _take_back(setting, directory, former)
        raise


def _take_back(setting: Setting, directory: str, former: str | None) -> None:
    for each in (setting, setting.otherwise):
        if each is not None and former is not None:
            try:
                for line in former.split("\n"):
                    knobs.put(f"{directory}/{each.file}", line or "\n")
            except OSError:
                continue
            return


def last_word(expected: str, got: str) -> bool:
    """Compare with the last word of a file such as ``default 100``."""
    return expected == got.rpartition(" ")[2]


def has_line(expected: str, got: str) -> bool:
    """Look for a line of a file."""
    return expected in got.splitlines()


def has_words(expected: str, got: str) -> bool:
    """Look for a line with the same first word and, among others, the same other words."""
    wanted = expected.split()
    return any(line.split()[:1] == wanted[:1] and set(wanted) <= set(line.split()) for line in got.splitlines())


def _missing_hint(setting: Setting) -> str:
    if setting.limit == "memory.swap":
        return "the kernel does not account for swap: boot it with swapaccount=1, or leave memory.swap out"
    return f"the {setting.controller} controller is not enabled here, or this kernel's has no {setting.file}"


def _refusal_hint(setting: Setting) -> str | None:
    return {
        "cpu": "quota at least 1000, period 1000 to 1000000, and no more than the parent cgroups allow",
        "cpuset": "name processors and memory nodes that are online and allowed in the parent cgroup",
        "memory": "the memory in use may be above the limit already",
        "blkio": "name block devices that are there, by the numbers of the whole disk, and rates within 64 bits",
        "io": "name block devices that are there, by the numbers of the whole disk, and rates within 64 bits",
    }.get(setting.controller)
