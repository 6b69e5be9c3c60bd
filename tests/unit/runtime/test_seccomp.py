"""Filters become programs that answer as the document says; compiled ones are kept, not trusted blindly."""

import errno
import os
import platform
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import pytest_ocirun
from pytest_ocirun.errors import ConfigError
from pytest_ocirun.oci.runtime import Seccomp, Syscall, SyscallArg
from pytest_ocirun.runtime.seccomp import INSTRUCTIONS_CAP, compile_filter, load_or_compile
from tests import bpf
from tests.requires import requires

pytestmark = [
    requires("seccomp"),
    pytest.mark.skipif(platform.machine() != "x86_64", reason="this kernel lacks x86-64's numbers"),
]

_READ, _WRITE, _LSEEK, _GETPID = 0, 1, 8, 39
_EPERM = bpf.ERRNO | errno.EPERM


def _allowing(*rules: Syscall, **properties: object) -> Seccomp:
    return Seccomp(default_action="SCMP_ACT_ERRNO", syscalls=list(rules), **properties)  # type: ignore[arg-type]


def _rule(names: str, *args: SyscallArg, action: str = "SCMP_ACT_ALLOW", errno_ret: int | None = None) -> Syscall:
    return Syscall(names=names.split(), action=action, errno_ret=errno_ret, args=list(args))


@pytest.mark.parametrize(
    "operator, holds",
    [
        ("SCMP_CMP_NE", lambda value, datum: value != datum),
        ("SCMP_CMP_LT", lambda value, datum: value < datum),
        ("SCMP_CMP_LE", lambda value, datum: value <= datum),
        ("SCMP_CMP_EQ", lambda value, datum: value == datum),
        ("SCMP_CMP_GE", lambda value, datum: value >= datum),
        ("SCMP_CMP_GT", lambda value, datum: value > datum),
    ],
)
def test_operator_compares_64_bits(operator: str, holds: Callable[[int, int], bool]) -> None:
    """Each comparison, around the datum and across the 32nd bit."""
    values = [0, 1, 5, 6, 7, 2**32 - 1, 2**32, 2**32 + 6, 2**63, 2**64 - 1]
    for datum in (0, 6, 2**32, 2**32 + 6, 2**64 - 1):
        condition = SyscallArg(index=1, value=datum, op=operator)
        if operator in ("SCMP_CMP_LT", "SCMP_CMP_GE") and datum == 0:
            continue
        code = compile_filter(_allowing(_rule("lseek", condition))).code
        for value in values:
            expected = bpf.ALLOW if holds(value, datum) else _EPERM

            assert expected == bpf.run(code, _LSEEK, (0, value)), (operator, datum, value)


def test_masked_comparison_takes_mask_then_datum() -> None:
    """``value`` is the mask, ``valueTwo`` what must be left."""
    condition = SyscallArg(index=0, value=0xF0, value_two=0x20, op="SCMP_CMP_MASKED_EQ")
    code = compile_filter(_allowing(_rule("lseek", condition))).code

    assert bpf.run(code, _LSEEK, (0x12F,)) == bpf.ALLOW
    assert bpf.run(code, _LSEEK, (0x13F,)) == _EPERM


def test_conditions_on_different_arguments_must_all_hold() -> None:
    """Conditions of one rule are joined by and."""
    conditions = [SyscallArg(index=index, value=index, op="SCMP_CMP_EQ") for index in range(6)]
    code = compile_filter(_allowing(_rule("lseek", *conditions))).code

    assert bpf.run(code, _LSEEK, (0, 1, 2, 3, 4, 5)) == bpf.ALLOW
    assert bpf.run(code, _LSEEK, (0, 1, 2, 3, 4, 6)) == _EPERM


def test_conditions_on_one_argument_are_alternatives() -> None:
    """As in runc: libseccomp takes one condition per argument."""
    conditions = [SyscallArg(index=0, value=value, op="SCMP_CMP_EQ") for value in (3, 5)]
    code = compile_filter(_allowing(_rule("lseek", *conditions))).code

    assert [bpf.run(code, _LSEEK, (value,)) for value in (3, 4, 5)] == [bpf.ALLOW, _EPERM, bpf.ALLOW]


@pytest.mark.conforms(
    "config: $.linux.seccomp.syscalls[].action SCMP_ACT_LOG", "config: $.linux.seccomp.defaultErrnoRet"
)
@pytest.mark.parametrize(
    "action, number, answer",
    [
        ("SCMP_ACT_KILL", None, 0),
        ("SCMP_ACT_KILL_THREAD", None, 0),
        ("SCMP_ACT_KILL_PROCESS", None, bpf.KILL_PROCESS),
        ("SCMP_ACT_TRAP", None, 0x00030000),
        ("SCMP_ACT_ERRNO", None, _EPERM),
        ("SCMP_ACT_ERRNO", 0, bpf.ERRNO),
        ("SCMP_ACT_ERRNO", 38, bpf.ERRNO | 38),
        ("SCMP_ACT_TRACE", None, 0x7FF00001),
        ("SCMP_ACT_TRACE", 7, 0x7FF00007),
        ("SCMP_ACT_LOG", None, 0x7FFC0000),
    ],
)
def test_action(action: str, number: int | None, answer: int) -> None:
    """Each action as the kernel knows it, for a rule and by default."""
    rule = compile_filter(
        Seccomp(default_action="SCMP_ACT_ALLOW", syscalls=[_rule("read", action=action, errno_ret=number)])
    )
    default = compile_filter(Seccomp(default_action=action, default_errno_ret=number, syscalls=[_rule("read openat2")]))

    assert (answer, bpf.ALLOW) == (bpf.run(rule.code, _READ), bpf.run(rule.code, _WRITE))
    assert (answer, bpf.ALLOW) == (bpf.run(default.code, _GETPID), bpf.run(default.code, _READ))


def test_unknown_names_are_skipped_and_reported() -> None:
    """A profile for newer kernels works here."""
    program = compile_filter(_allowing(_rule("read no_such_call write")))

    assert program.skipped == ["no_such_call"]
    assert bpf.run(program.code, _WRITE) == bpf.ALLOW


def test_newer_than_the_filter_is_missing() -> None:
    """ENOSYS makes C libraries fall back, which EPERM does not."""
    code = compile_filter(_allowing(_rule("read openat2"))).code
    openat2, pidfd_getfd, x32 = 437, 438, 0x40000000

    assert bpf.run(code, openat2) == bpf.ALLOW
    assert bpf.run(code, openat2 - 1) == _EPERM
    assert bpf.run(code, pidfd_getfd) == bpf.ERRNO | errno.ENOSYS
    assert bpf.run(code, x32 | _READ) == bpf.KILL_PROCESS


@pytest.mark.parametrize("action", ["SCMP_ACT_ALLOW", "SCMP_ACT_LOG", "SCMP_ACT_TRACE"])
def test_newer_than_the_filter_is_left_to_lenient_defaults(action: str) -> None:
    """Who allows by default, or has somebody trace, means newer calls too."""
    other = "SCMP_ACT_TRAP"
    code = compile_filter(Seccomp(default_action=action, syscalls=[_rule("read", action=other)])).code

    assert bpf.run(code, 400) == bpf.run(code, _WRITE)


@pytest.mark.parametrize(
    "default",
    [
        {"default_action": "SCMP_ACT_KILL_PROCESS"},
        {"default_action": "SCMP_ACT_TRAP"},
        {"default_action": "SCMP_ACT_NOTIFY", "listener_path": "/l"},
        {"default_action": "SCMP_ACT_ERRNO", "default_errno_ret": 13},
    ],
)
def test_newer_than_the_filter_is_missing_whatever_forbids(default: dict[str, Any]) -> None:
    """As runc has it: a C library that tries a newer call first must not be killed for it."""
    code = compile_filter(Seccomp(syscalls=[_rule("read write")], **default)).code

    assert bpf.run(code, 400) == bpf.ERRNO | errno.ENOSYS
    assert bpf.run(code, _WRITE) == bpf.ALLOW


def test_newer_is_told_for_each_architecture() -> None:
    """By the numbers that the names have there."""
    code = compile_filter(_allowing(_rule("getpid"), architectures=["SCMP_ARCH_X86"])).code
    i386_getpid = 20

    assert bpf.run(code, _GETPID - 1) == _EPERM
    assert bpf.run(code, _GETPID + 1) == bpf.ERRNO | errno.ENOSYS
    assert bpf.run(code, i386_getpid - 1, arch=bpf.I386) == _EPERM
    assert bpf.run(code, i386_getpid + 1, arch=bpf.I386) == bpf.ERRNO | errno.ENOSYS


def test_architectures_are_added_to_the_native_one() -> None:
    """A rule counts under each architecture's own number; calls of others kill."""
    code = compile_filter(_allowing(_rule("getpid mseal"), architectures=["SCMP_ARCH_X86"])).code
    i386_getpid = 20

    assert bpf.run(code, _GETPID) == bpf.ALLOW
    assert bpf.run(code, i386_getpid, arch=bpf.I386) == bpf.ALLOW
    assert bpf.run(code, i386_getpid - 1, arch=bpf.I386) == _EPERM
    assert bpf.run(code, _GETPID, arch=bpf.AARCH64) == bpf.KILL_PROCESS


_FLAGS = {"TSYNC": 1, "LOG": 2, "SPEC_ALLOW": 4}


@pytest.mark.conforms(*(f"config: $.linux.seccomp.flags SECCOMP_FILTER_FLAG_{name}" for name in _FLAGS))
@pytest.mark.parametrize("names", [*((name,) for name in _FLAGS), (*_FLAGS, *_FLAGS), ()])
def test_flags_stand_beside_the_program(names: tuple[str, ...]) -> None:
    """They are no part of the code; given twice is given once."""
    filter_ = _allowing(_rule("read"), flags=[f"SECCOMP_FILTER_FLAG_{name}" for name in names])

    assert compile_filter(filter_).flags == sum(_FLAGS[name] for name in set(names))


@pytest.mark.parametrize(
    "filter_, message",
    [
        (Seccomp(default_action="ALLOW"), "$.linux.seccomp.defaultAction: 'ALLOW' is none of "),
        (Seccomp(default_action="SCMP_ACT_KILL", default_errno_ret=1), "$.linux.seccomp.defaultErrnoRet: "),
        (_allowing(_rule("read", action="X")), "$.linux.seccomp.syscalls[0].action: 'X'"),
        (_allowing(_rule("read", errno_ret=3)), "$.linux.seccomp.syscalls[0].errnoRet: SCMP_ACT_ALLOW takes no"),
        (_allowing(_rule("")), "$.linux.seccomp.syscalls[0].names: must name"),
        (_allowing(architectures=["SCMP_ARCH_Z80"]), "$.linux.seccomp.architectures[0]: 'SCMP_ARCH_Z80'"),
        (_allowing(flags=["LOG"]), "$.linux.seccomp.flags[0]: 'LOG'"),
        (
            _allowing(_rule("read", SyscallArg(index=6, value=0, op="SCMP_CMP_EQ"))),
            "$.linux.seccomp.syscalls[0].args[0].index: expected 0 to 5, got 6",
        ),
        (
            _allowing(_rule("read", SyscallArg(index=0, value=1 << 64, op="SCMP_CMP_EQ"))),
            "$.linux.seccomp.syscalls[0].args[0].value: ",
        ),
        (
            _allowing(_rule("read", SyscallArg(index=0, value=0, op="EQ"))),
            "$.linux.seccomp.syscalls[0].args[0].op: 'EQ'",
        ),
    ],
)
def test_wrong_filter(filter_: Seccomp, message: str) -> None:
    """One message for each mistake, with its path."""
    with pytest.raises(ConfigError) as caught:
        compile_filter(filter_)

    assert str(caught.value).startswith(message)


@pytest.mark.conforms("config: $.linux.seccomp.flags SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV")
def test_a_filter_that_listens() -> None:
    """It is loaded with a new listener, and without TSYNC, which seccomp(2) does not take beside that."""
    flags = ["SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]
    rule = _rule("write", action="SCMP_ACT_NOTIFY")
    program = compile_filter(
        Seccomp(default_action="SCMP_ACT_ALLOW", syscalls=[rule], listener_path="/run/agent", flags=flags)
    )

    assert program.flags == 2 | 8 | 32
    assert bpf.run(program.code, _WRITE) == 0x7FC00000


@pytest.mark.parametrize(
    "filter_, message",
    [
        (Seccomp(default_action="SCMP_ACT_NOTIFY"), "listenerPath: needed for SCMP_ACT_NOTIFY"),
        (_allowing(_rule("read", action="SCMP_ACT_NOTIFY")), "listenerPath: needed for SCMP_ACT_NOTIFY"),
        (_allowing(listener_path="relative"), "listenerPath: must be absolute"),
        (_allowing(listener_metadata="m"), "listenerMetadata: needs listenerPath"),
        (_allowing(flags=["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]), "flags[0]: SECCOMP_FILTER_FLAG_WAIT_KILL"),
    ],
)
def test_listeners_go_with_their_action(filter_: Seccomp, message: str) -> None:
    """A filter that asks somebody who is not there would hang its container."""
    with pytest.raises(ConfigError) as caught:
        compile_filter(filter_)

    assert str(caught.value).startswith(f"$.linux.seccomp.{message}")


def test_too_long_a_program_is_refused() -> None:
    """The kernel would say EINVAL, which tells nobody what to do."""
    conditions = [SyscallArg(index=0, value=value << 33 | value, op="SCMP_CMP_EQ") for value in range(1500)]
    with pytest.raises(ConfigError, match=f"instructions, the kernel takes {INSTRUCTIONS_CAP}"):
        compile_filter(_allowing(*(_rule("lseek", each) for each in conditions)))


_FROM_CACHE = """
import sys
sys.path.append(sys.argv[1])
from pytest_ocirun.oci.runtime import Seccomp, Syscall
from pytest_ocirun.runtime.seccomp import load_or_compile
rule = Syscall(names=sys.argv[3:], action="SCMP_ACT_ALLOW")
filter_ = Seccomp(default_action="SCMP_ACT_ERRNO", syscalls=[rule])
program = load_or_compile(filter_, sys.argv[2])
print(len(program.code), program.skipped, "ctypes" in sys.modules or "pyseccomp" in sys.modules)
"""


def _bare(folder: Path, *names: str, before: str = "") -> "subprocess.CompletedProcess[str]":
    package = Path(pytest_ocirun.__file__).parent.parent
    return subprocess.run(
        [sys.executable, "-I", "-S", "-c", f"{before}\n{_FROM_CACHE}", str(package), str(folder), *names],
        capture_output=True,
        text=True,
        check=False,
    )


def test_cached_filter_needs_no_compiler(tmp_path: Path) -> None:
    """A second process takes the program from the cache, and imports neither pyseccomp nor ctypes."""
    program = load_or_compile(_allowing(_rule("read odd_call")), str(tmp_path / "cache"))
    done = _bare(tmp_path / "cache", "read", "odd_call")

    assert f"{len(program.code)} ['odd_call'] False\n" == done.stdout


def test_another_filter_is_compiled(tmp_path: Path) -> None:
    """And where the compiler is missing, the message says what to install."""
    load_or_compile(_allowing(_rule("read")), str(tmp_path / "cache"))
    done = _bare(tmp_path / "cache", "read", "write", before="import sys; sys.modules['pyseccomp'] = None")

    assert "Unsupported: cannot compile the system call filter" in done.stderr
    assert "apt install libseccomp2" in done.stderr


@pytest.mark.parametrize(
    "damage",
    [
        lambda _data: b"",
        lambda data: data[:20],
        lambda data: data[:-8],
        lambda data: data[:-1],
        lambda data: data + b"\0" * 8,
        lambda data: data[:-9] + bytes([data[-9] ^ 1]) + data[-8:],
        lambda data: bytes(len(data)),
    ],
)
def test_damaged_entry_is_compiled_again(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    """Whatever happened to the file, the program is right, and the file afterwards too."""
    filter_ = _allowing(_rule("read"))
    right = load_or_compile(filter_, str(tmp_path / "cache")).code
    (entry,) = (tmp_path / "cache").iterdir()
    content = entry.read_bytes()
    entry.write_bytes(damage(content))

    assert right == load_or_compile(filter_, str(tmp_path / "cache")).code
    assert [content] == [each.read_bytes() for each in (tmp_path / "cache").iterdir()]


def test_entry_is_no_link(tmp_path: Path) -> None:
    """A symlink in the cache is replaced, and what it names stays."""
    filter_ = _allowing(_rule("read"))
    load_or_compile(filter_, str(tmp_path / "cache"))
    (entry,) = (tmp_path / "cache").iterdir()
    entry.rename(tmp_path / "elsewhere")
    entry.symlink_to(tmp_path / "elsewhere")
    load_or_compile(filter_, str(tmp_path / "cache"))

    assert entry.is_file()
    assert not entry.is_symlink()


def test_folder_and_entries_are_private(tmp_path: Path) -> None:
    """Made 0700 and 0600 under any umask."""
    before = os.umask(0)
    try:
        load_or_compile(_allowing(_rule("read")), str(tmp_path / "cache"))
    finally:
        os.umask(before)
    (entry,) = (tmp_path / "cache").iterdir()

    assert (entry.parent.stat().st_mode & 0o777, entry.stat().st_mode & 0o777) == (0o700, 0o600)


def test_folder_that_others_can_write_is_refused(tmp_path: Path) -> None:
    """Somebody could have left a filter there that allows everything."""
    folder = tmp_path / "cache"
    folder.mkdir()
    folder.chmod(0o777)
    with pytest.raises(ConfigError, match="others could plant a filter") as caught:
        load_or_compile(_allowing(_rule("read")), str(folder))

    assert caught.value.hint is not None
    assert "chmod 700" in caught.value.hint


@requires("root")
def test_folder_of_somebody_else_is_refused(tmp_path: Path) -> None:
    """Its owner could do the same."""
    folder = tmp_path / "cache"
    folder.mkdir(mode=0o700)
    os.chown(folder, 64321, 64321)
    with pytest.raises(ConfigError, match="owned by 64321"):
        load_or_compile(_allowing(_rule("read")), str(folder))


def test_folder_may_be_no_link_or_file(tmp_path: Path) -> None:
    """Nor anything else that is no directory."""
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to(tmp_path)
    for name in ("file", "link"):
        with pytest.raises(ConfigError, match=f"cannot use {tmp_path}/{name} to keep compiled filters"):
            load_or_compile(_allowing(_rule("read")), str(tmp_path / name))
