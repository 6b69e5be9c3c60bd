"""Turns the system call filter of a configuration into the BPF program that the kernel loads.

Responsible for: libseccomp (through pyseccomp, its only home) and the cache of compiled programs. Must not
know: who loads the program, nor what a good filter is (``runtime.seccomp_default``).

libseccomp never enters a child: it allocates, and it would run under the very filter it loads. It stays in
the parent, exports the program, and the child makes one call to seccomp(2). Importing pyseccomp costs 30 to
50 ms and starts programs (ldconfig) to find its library; ``load_or_compile`` avoids that for every filter
that was compiled before.

What runc does is done here too: names that libseccomp does not know are skipped and reported; several
conditions on one argument are alternatives; the machine's own architecture is always included; and in a
filter that does not allow by default, system calls newer than all it names give ENOSYS, because C libraries
fall back to an older call on ENOSYS only.
"""

from __future__ import annotations

import errno
import os
import struct
import sys

from pytest_ocirun.errors import ConfigError, Unsupported
from pytest_ocirun.oci import json_text
from pytest_ocirun.oci.codec import encode
from pytest_ocirun.runtime.seccomp_terms import (
    ACTIONS,
    FLAGS,
    NEW_LISTENER,
    OPERATORS,
    TSYNC,
    WITH_NUMBER,
    check_filter,
    listens,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType
    from typing import Any

    from pytest_ocirun.oci.runtime import Seccomp, Syscall

INSTRUCTION = 8
INSTRUCTIONS_CAP = 4096
"""BPF_MAXINSNS: the kernel loads no longer program."""

_NEWER = {
    "cachestat": 451,
    "fchmodat2": 452,
    "map_shadow_stack": 453,
    "futex_wake": 454,
    "futex_wait": 455,
    "futex_requeue": 456,
    "statmount": 457,
    "listmount": 458,
    "lsm_get_self_attr": 459,
    "lsm_set_self_attr": 460,
    "lsm_list_modules": 461,
    "mseal": 462,
    "setxattrat": 463,
    "getxattrat": 464,
    "listxattrat": 465,
    "removexattrat": 466,
    "open_tree_attr": 467,
    "file_getattr": 468,
    "file_setattr": 469,
}
"""System calls that Debian 12's libseccomp 2.5.4 does not know; since 424 all architectures share numbers."""

_UNKNOWN = -1
_MISSING = ACTIONS["SCMP_ACT_ERRNO"] | errno.ENOSYS
_LENIENT = ("SCMP_ACT_ALLOW", "SCMP_ACT_LOG", "SCMP_ACT_TRACE")
_MAGIC = b"ocirun filter 2"
_DIGEST = 32
_LIBRARY_FOLDERS = ("/usr/lib/{0}-linux-gnu", "/lib/{0}-linux-gnu", "/usr/lib64", "/lib64", "/usr/lib", "/lib")


class Program:
    """A filter, ready for seccomp(2).

    Attributes:
        code: instructions of 8 bytes each (``struct sock_filter``).
        flags: the second argument of seccomp(2).
        skipped: names that libseccomp did not know; each may deserve a warning.
    """

    __slots__ = ("code", "flags", "skipped")

    def __init__(self, code: bytes, flags: int, skipped: list[str]) -> None:
        self.code = code
        self.flags = flags
        self.skipped = skipped


def compile_filter(seccomp: Seccomp, path: str = "$.linux.seccomp") -> Program:
    """Compile a filter with libseccomp.

    Args:
        seccomp: the filter.
        path: where it lies in its document, for messages.

    Raises:
        ConfigError: a name is unknown, or libseccomp or the kernel could not hold the filter.
        Unsupported: libseccomp is missing, or does not know an architecture of the filter.
    """
    check_filter(seccomp, path)
    compiler = _Compiler(seccomp)
    for index, name in enumerate(seccomp.architectures):
        compiler.add_architecture(name, f"{path}.architectures[{index}]")
    for index, rule in enumerate(seccomp.syscalls):
        compiler.add_rule(rule, f"{path}.syscalls[{index}]")
    code = compiler.export()
    if len(code) > INSTRUCTIONS_CAP * INSTRUCTION:
        raise ConfigError(
            f"{path}: has {len(code) // INSTRUCTION} instructions, the kernel takes {INSTRUCTIONS_CAP}",
            hint="give the filter fewer conditions on arguments, or fewer architectures",
        )
    return Program(code, _flags(seccomp), compiler.skipped)


def _pyseccomp() -> ModuleType:
    try:
        import pyseccomp
    except (ImportError, RuntimeError) as error:
        raise Unsupported(
            f"cannot compile the system call filter: {error}",
            hint="install libseccomp (Debian: apt install libseccomp2) and the Python package pyseccomp",
        ) from error
    return pyseccomp  # type: ignore[no-any-return,unused-ignore]  # it carries no types in some versions


def _action(name: str, number: int | None) -> int:
    if name in WITH_NUMBER:
        return ACTIONS[name] | (errno.EPERM if number is None else number)
    return ACTIONS[name]


def _flags(seccomp: Seccomp) -> int:
    flags = sum({FLAGS[name] for name in seccomp.flags})
    # There is one thread, so the filter is on all of them anyway; seccomp(2) takes TSYNC or a listener.
    return flags & ~TSYNC | NEW_LISTENER if listens(seccomp) else flags


class _Compiler:
    """One filter of libseccomp under construction; architectures must be added before rules."""

    def __init__(self, seccomp: Seccomp) -> None:
        self.skipped: list[str] = []
        self._newest: dict[int, int] = {}
        self._lenient = seccomp.default_action in _LENIENT
        self._default = _action(seccomp.default_action, seccomp.default_errno_ret)
        self._library = _pyseccomp()
        self._architectures = [self._library.system_arch()]
        self._filter = self._library.SyscallFilter(self._default)
        self._filter.set_attr(self._library.Attr.ACT_BADARCH, ACTIONS["SCMP_ACT_KILL_PROCESS"])
        try:
            # A binary tree instead of a list halves the time of loading; libseccomp < 2.5 has none.
            self._filter.set_attr(self._library.Attr.CTL_OPTIMIZE, 2)
        except OSError:
            pass

    def add_architecture(self, name: str, path: str) -> None:
        token = getattr(self._library.Arch, name.removeprefix("SCMP_ARCH_"), None)
        if token is None:
            raise Unsupported(f"{path}: this libseccomp does not know {name}")
        try:
            if token != self._library.system_arch() and not self._filter.exist_arch(token):
                self._filter.add_arch(token)
                self._architectures.append(token)
        except OSError as error:
            raise Unsupported(f"{path}: libseccomp refuses {name}: {error.strerror}") from error

    def add_rule(self, rule: Syscall, path: str) -> None:
        action = _action(rule.action, rule.errno_ret)
        conditions = [
            self._library.Arg(each.index, OPERATORS[each.op], each.value, each.value_two or 0) for each in rule.args
        ]
        for name in rule.names:
            number = self._resolve(name)
            for architecture in self._architectures:
                newest = max(self._newest.get(architecture, 0), self._resolve(name, architecture))
                self._newest[architecture] = newest
            if number == _UNKNOWN:
                self.skipped.append(name)
            elif action != self._default:
                self._add(action, name, number, conditions, path)

    def _resolve(self, name: str, architecture: int | None = None) -> int:
        """Return a system call's number, natively if not told; below -1 if only other architectures have it."""
        native: int = self._library.Arch.NATIVE
        number: int = self._library.resolve_syscall(native if architecture is None else architecture, name)
        return number if number != _UNKNOWN else _NEWER.get(name, _UNKNOWN)

    def _add(self, action: int, name: str, number: int, conditions: list[Any], path: str) -> None:
        for alternative in _alternatives(conditions):
            try:
                self._filter.add_rule(action, number, *alternative)
            except OSError as error:
                if number == _NEWER.get(name):
                    self.skipped.append(name)
                elif error.errno != errno.EEXIST:
                    raise ConfigError(f"{path}: libseccomp refuses {name}: {error.strerror}") from error

    def export(self) -> bytes:
        with open(os.memfd_create("ocirun-filter"), "w+b", buffering=0) as memory:
            self._filter.export_bpf(memory)
            memory.seek(0)
            code = memory.readall()
        if self._lenient or self._default == _MISSING:
            return code
        # The kernel has no token of its own for x32, whose numbers are left to the program.
        newest = {token: number for token, number in self._newest.items() if token != self._library.Arch.X32}
        return b"".join(_newer_are_missing(token, number) for token, number in newest.items() if number) + code


def _alternatives(conditions: list[Any]) -> Iterator[list[Any]]:
    """Yield the conditions of each rule to add: libseccomp takes one condition per argument."""
    if len({each._arg for each in conditions}) == len(conditions):  # noqa: SLF001
        yield conditions
    else:
        yield from ([each] for each in conditions)


def _newer_are_missing(architecture: int, newest: int) -> bytes:
    """Return instructions, to stand before a program, that answer ENOSYS to an architecture's calls above ``newest``.

    Numbers from 0x40000000 up belong to x32 and are left to the program itself.
    """
    load, equal, greater, at_least, answer = 0x20, 0x15, 0x25, 0x35, 0x06
    return b"".join(
        struct.pack("=HBBI", *instruction)
        for instruction in (
            (load, 0, 0, 4),
            (equal, 0, 4, architecture),
            (load, 0, 0, 0),
            (at_least, 2, 0, 0x40000000),
            (greater, 0, 1, newest),
            (answer, 0, 0, _MISSING),
        )
    )


def load_or_compile(seccomp: Seccomp, folder: str, path: str = "$.linux.seccomp") -> Program:
    """Return the compiled filter, from the cache if it has been compiled before.

    Args:
        seccomp: the filter.
        folder: the cache; made if missing. Entries are bound to this machine's architecture and libseccomp,
            published by rename, and compiled again if damaged.
        path: as in ``compile_filter``.

    Raises:
        ConfigError: the folder is not a directory that only its owner, who must be the caller, can write to;
            or as ``compile_filter``.
        Unsupported: as ``compile_filter``.
    """
    check_filter(seccomp, path)
    name = _key(seccomp) + ".bpf"
    directory = _open_folder(folder)
    try:
        found = _read_entry(directory, name)
        if found is not None:
            code, skipped = found
            return Program(code, _flags(seccomp), skipped)
        program = compile_filter(seccomp, path)
        _write_entry(directory, name, program)
        return program
    finally:
        os.close(directory)


def _digest(data: bytes) -> bytes:
    """Hash data; ``hashlib`` would load OpenSSL, which costs ten times more than the rest of a cache hit."""
    try:
        from _blake2 import blake2b
    except ImportError:
        from hashlib import blake2b
    return blake2b(data, digest_size=_DIGEST).digest()


def _key(seccomp: Seccomp) -> str:
    content = [encode(seccomp), os.uname().machine, sys.byteorder, _library_version(), _MAGIC.decode()]
    return _digest(json_text.dumps(content).encode()).hex()


def _library_version() -> str:
    """Return the file name that libseccomp.so.2 stands for (``libseccomp.so.2.5.4``), without loading it."""
    for folder in _LIBRARY_FOLDERS:
        library = os.path.join(folder.format(os.uname().machine), "libseccomp.so.2")
        if os.path.exists(library):
            return os.path.basename(os.path.realpath(library))
    return "libseccomp.so.2"


def _open_folder(folder: str) -> int:
    try:
        os.makedirs(folder, 0o700, exist_ok=True)
        directory = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise ConfigError(f"cannot use {folder} to keep compiled filters: {error.strerror}") from error
    status = os.fstat(directory)
    if status.st_uid != os.geteuid() or status.st_mode & 0o022:
        os.close(directory)
        raise ConfigError(
            f"cannot use {folder} to keep compiled filters: it is owned by {status.st_uid} with mode "
            f"{status.st_mode & 0o7777:o}, so others could plant a filter there",
            hint=f"remove it, or: chown {os.geteuid()} {folder} && chmod 700 {folder}",
        )
    return directory


def _read_entry(directory: int, name: str) -> tuple[bytes, list[str]] | None:
    try:
        entry = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    except OSError:
        return None
    with open(entry, "rb", buffering=0) as file:
        data = file.read(INSTRUCTIONS_CAP * INSTRUCTION + 65536) or b""
    digest, content = data[:_DIGEST], data[_DIGEST:]
    if digest != _digest(content):
        return None
    magic, names, code = content.split(b"\n", 2)
    return (code, names.decode().split()) if magic == _MAGIC and code and len(code) % INSTRUCTION == 0 else None


def _write_entry(directory: int, name: str, program: Program) -> None:
    """Publish an entry; if the disk is full, the next run will have to compile again."""
    content = b"\n".join((_MAGIC, " ".join(program.skipped).encode(), program.code))
    temporary = f"{name}.{os.getpid()}.{os.urandom(4).hex()}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        with open(os.open(temporary, flags, 0o600, dir_fd=directory), "wb") as file:
            file.write(_digest(content) + content)
        os.rename(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
    except OSError:
        try:
            os.unlink(temporary, dir_fd=directory)
        except OSError:
            pass
