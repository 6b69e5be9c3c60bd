"""System call filters on the real kernel: what each action, operator and flag does to a program."""

import errno
import os
import signal
import struct
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from pytest_ocirun.errors import OcirunError
from pytest_ocirun.oci.runtime import Config, Seccomp, Syscall, SyscallArg
from tests.boxes import Bare, confined
from tests.requires import requires
from tests.seccomp_agent import Agent

pytestmark = [requires("userns", "overlay", "seccomp", "busybox"), pytest.mark.lane("v2")]

_MKDIR = ["mkdir", "mkdirat"]
_CONDITION = ("index", "op", "value", "valueTwo")


def _filtered(rootfs: Path, script: str, seccomp: Seccomp) -> Config:
    config = confined(rootfs, "sh", "-c", script)
    config.linux.seccomp = seccomp
    return config


def _allow_but(action: str, *names: str, errno_ret: int | None = None, **more: Any) -> Seccomp:
    rule = Syscall(names=list(names or _MKDIR), action=action, errno_ret=errno_ret)
    return Seccomp(default_action="SCMP_ACT_ALLOW", syscalls=[rule], **more)


@pytest.mark.conforms(
    *(f"config: $.linux.seccomp.syscalls[].action SCMP_ACT_{name}" for name in ("ALLOW", "ERRNO", "TRAP", "TRACE")),
    *(f"config: $.linux.seccomp.syscalls[].action SCMP_ACT_KILL{name}" for name in ("", "_PROCESS", "_THREAD")),
)
@pytest.mark.conforms("config: $.linux.seccomp.syscalls[].action", "config: $.linux.seccomp.syscalls[].errnoRet")
@pytest.mark.parametrize(
    "action, number, expected",
    [
        ("SCMP_ACT_ALLOW", None, (0, "made\n", "")),
        ("SCMP_ACT_LOG", None, (0, "made\n", "")),
        ("SCMP_ACT_ERRNO", None, (1, "", "Operation not permitted")),
        ("SCMP_ACT_ERRNO", errno.ENOSPC, (1, "", "No space left on device")),
        ("SCMP_ACT_TRACE", None, (1, "", "Function not implemented")),  # nobody traces
        ("SCMP_ACT_KILL", None, (128 + signal.SIGSYS, "", "")),
        ("SCMP_ACT_KILL_THREAD", None, (128 + signal.SIGSYS, "", "")),
        ("SCMP_ACT_KILL_PROCESS", None, (128 + signal.SIGSYS, "", "")),
        ("SCMP_ACT_TRAP", None, (128 + signal.SIGSYS, "", "")),
    ],
)
def test_action(
    bare: Bare, busybox_rootfs: Path, action: str, number: int | None, expected: tuple[int, str, str]
) -> None:
    """What a program meets that makes a call of the rule."""
    seccomp = _allow_but(action, errno_ret=number)
    ran = bare.run(_filtered(busybox_rootfs, "busybox mkdir /tmp/d && echo made; exit $?", seccomp))

    assert (ran.end.code, ran.out) == expected[:2]
    assert expected[2] in ran.err


@pytest.mark.conforms("config: $.linux.seccomp.defaultAction", "config: $.linux.seccomp.defaultErrnoRet")
def test_default_action_with_its_number(bare: Bare, busybox_rootfs: Path) -> None:
    """For every call that no rule names; newer ones than the rules name are missing."""
    names = [name for name in _usual_calls(busybox_rootfs) if name not in _MKDIR]
    seccomp = Seccomp(
        default_action="SCMP_ACT_ERRNO",
        default_errno_ret=errno.EDQUOT,
        syscalls=[Syscall(names=names, action="SCMP_ACT_ALLOW")],
    )
    ran = bare.run(_filtered(busybox_rootfs, "busybox mkdir /tmp/d", seccomp))

    assert (ran.end.code, "Disk quota exceeded" in ran.err) == (1, True)


def _usual_calls(rootfs: Path) -> list[str]:
    """All that the default profile allows."""
    config = confined(rootfs, "true")
    assert config.linux.seccomp is not None
    return [name for rule in config.linux.seccomp.syscalls if rule.action == "SCMP_ACT_ALLOW" for name in rule.names]


@pytest.mark.conforms(
    *(
        f"config: $.linux.seccomp.syscalls[].args[].op SCMP_CMP_{name}"
        for name in ("EQ", "NE", "LT", "LE", "GT", "GE", "MASKED_EQ")
    )
)
@pytest.mark.conforms(*(f"config: $.linux.seccomp.syscalls[].args[].{key}" for key in _CONDITION))
@pytest.mark.parametrize(
    "operator, value, second, refused",
    [
        ("SCMP_CMP_EQ", 23, None, {23}),
        ("SCMP_CMP_NE", 23, None, {0, 18, 28}),
        ("SCMP_CMP_LT", 23, None, {0, 18}),
        ("SCMP_CMP_LE", 23, None, {0, 18, 23}),
        ("SCMP_CMP_GT", 23, None, {28}),
        ("SCMP_CMP_GE", 23, None, {23, 28}),
        ("SCMP_CMP_MASKED_EQ", 0b111, 0b111, {23}),
    ],
)
def test_operator(
    bare: Bare, busybox_rootfs: Path, operator: str, value: int, second: int | None, refused: set[int]
) -> None:
    """Which of four harmless signals kill(2) refuses, by its second argument."""
    condition = SyscallArg(index=1, value=value, value_two=second, op=operator)
    rule = Syscall(names=["kill"], action="SCMP_ACT_ERRNO", args=[condition])
    seccomp = Seccomp(default_action="SCMP_ACT_ALLOW", syscalls=[rule])
    script = "for n in 0 18 23 28; do kill -$n $$ 2>/dev/null || echo $n; done"
    ran = bare.run(_filtered(busybox_rootfs, script, seccomp))

    assert {int(word) for word in ran.out.split()} == refused


@pytest.mark.parametrize("flag", ["TSYNC", "LOG", "SPEC_ALLOW"])
def test_flag(bare: Bare, busybox_rootfs: Path, flag: str) -> None:
    """The kernel takes each."""
    seccomp = _allow_but("SCMP_ACT_ERRNO", flags=[f"SECCOMP_FILTER_FLAG_{flag}"])
    ran = bare.run(_filtered(busybox_rootfs, "cat /proc/self/status; busybox mkdir /tmp/d", seccomp))

    assert (ran.end.code, "Seccomp:\t2" in ran.out) == (1, True)
    assert "Seccomp_filters:\t1" in ran.out


@pytest.mark.conforms("config: $.linux.seccomp.syscalls[].names")
def test_unknown_names_are_passed_over(bare: Bare, busybox_rootfs: Path) -> None:
    """A profile may be newer than libseccomp."""
    ran = bare.run(_filtered(busybox_rootfs, "busybox mkdir /d", _allow_but("SCMP_ACT_ERRNO", "no_such_call", *_MKDIR)))

    assert (ran.end.code, "Operation not permitted" in ran.err) == (1, True)


@pytest.mark.conforms(
    "config: $.linux.seccomp.architectures SCMP_ARCH_X86_64", "config: $.linux.seccomp.architectures SCMP_ARCH_X86"
)
@pytest.mark.conforms("config: $.linux.seccomp.architectures")
def test_calls_of_an_architecture_that_is_not_named_kill(bare: Bare, rootfs: Path) -> None:
    """A program of 32 bits, which makes one exit(2) by int 0x80, under both kinds of filter."""
    program = rootfs / "i386"
    program.write_bytes(_elf32(bytes.fromhex("b801000000bb2a000000cd80")))  # mov eax,1; mov ebx,42; int 0x80
    program.chmod(0o755)
    try:
        assert subprocess.run([program], check=False).returncode == 42
    except OSError:
        pytest.skip("this kernel lacks programs of 32 bits")
    ends = []
    for architectures in ([], ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"]):
        config = confined(rootfs, "/i386")
        config.linux.seccomp = _allow_but("SCMP_ACT_ERRNO", architectures=architectures)
        ends.append(bare.run(config).end)

    assert [ends[0].signal, ends[1].code] == [signal.SIGSYS, 42]


def _elf32(code: bytes) -> bytes:
    base, headers = 0x8048000, 52 + 32
    size = headers + len(code)
    ident = b"\x7fELF" + bytes([1, 1, 1]) + bytes(9)
    header = struct.pack("<16sHHIIIIIHHHHHH", ident, 2, 3, 1, base + headers, 52, 0, 0, 52, 32, 1, 0, 0, 0)
    return header + struct.pack("<8I", 1, 0, base, base, size, size, 5, 0x1000) + code


@requires("root")
@pytest.mark.parametrize("no_new_privileges", [True, False])
def test_a_filter_is_loaded_in_time(bare: Bare, busybox_rootfs: Path, *, no_new_privileges: bool) -> None:
    """Last with no_new_privs; without it while there still is the capability for it, which the program lacks."""
    config = _filtered(busybox_rootfs, "cat /proc/self/status", _allow_but("SCMP_ACT_ERRNO"))
    config.process.no_new_privileges = no_new_privileges
    ran = bare.run(config)

    assert f"NoNewPrivs:\t{int(no_new_privileges)}" in ran.out
    assert "Seccomp:\t2" in ran.out
    assert "CapEff:\t0000000000000000" in ran.out


@pytest.fixture
def socket_path(tmp_path: Path) -> Path:
    """Where an agent may listen."""
    return tmp_path / "agent.sock"


def _listening(path: Path, *names: str, **more: Any) -> Seccomp:
    return _allow_but("SCMP_ACT_NOTIFY", *names, listener_path=str(path), **more)


@pytest.mark.conforms("config: $.linux.seccomp.syscalls[].action SCMP_ACT_NOTIFY")
@requires("root")
@pytest.mark.conforms(
    "config: $.linux.seccomp.syscalls[].action",
    "config: $.linux.seccomp.listenerPath",
    "config: $.linux.seccomp.listenerMetadata",
)
@pytest.mark.parametrize("no_new_privileges", [True, False])
def test_an_agent_gets_the_listener_and_decides(
    bare: Bare, busybox_rootfs: Path, socket_path: Path, *, no_new_privileges: bool
) -> None:
    """One connection with the container process state and the fd; then its word is the kernel's answer."""
    seccomp = _listening(socket_path, listener_metadata="of mine")
    config = _filtered(busybox_rootfs, "busybox mkdir /tmp/d", seccomp)
    config.process.no_new_privileges = no_new_privileges
    config.annotations["org.example"] = "x"
    with Agent(socket_path) as agent:
        name = bare.new_id()
        child = bare.create(config, name=name)
        pid = child.pid
        bare.runtime.start(name)
        status = child.wait()
        bare.end(name, child)
    (state,) = agent.states

    assert os.waitstatus_to_exitcode(status) == 1
    assert agent.seen
    assert state | {"state": 0} == {
        "ociVersion": config.oci_version,
        "fds": ["seccompFd"],
        "pid": pid,
        "metadata": "of mine",
        "state": 0,
    }
    assert state["state"] | {"annotations": 0} == {
        "ociVersion": config.oci_version,
        "id": name,
        "status": "creating",
        "pid": pid,
        "bundle": str(bare.root),
        "annotations": 0,
    }
    assert state["state"]["annotations"]["org.example"] == "x"


@requires("root")
def test_an_exec_brings_a_listener_of_its_own(bare: Bare, busybox_rootfs: Path, socket_path: Path) -> None:
    """With its pid, and the state of the running container."""
    config = confined(busybox_rootfs)
    config.process.args = ["sleep", "60"]
    config.linux.seccomp = _listening(socket_path)
    with Agent(socket_path) as agent:
        name = bare.new_id()
        init = bare.create(config, name=name, start=True)
        ran = bare.exec(name, "busybox", "mkdir", "/tmp/d")
        pid = init.pid
        bare.end(name, init)

    assert (ran.end.code, "No space left on device" in ran.err) == (1, True)
    assert [state["state"]["status"] for state in agent.states] == ["creating", "running"]
    assert [state["state"]["pid"] for state in agent.states] == [pid, pid]
    assert agent.states[1]["pid"] != pid


@requires("root")
@pytest.mark.parametrize("no_new_privileges", [True, False])
def test_every_call_of_ours_may_be_listened_to(
    bare: Bare, busybox_rootfs: Path, socket_path: Path, *, no_new_privileges: bool
) -> None:
    """The runtime makes no call between loading the filter and the hand-over, so none can wait for nobody."""
    config = _filtered(
        busybox_rootfs, "echo fine", Seccomp(default_action="SCMP_ACT_NOTIFY", listener_path=str(socket_path))
    )
    config.process.no_new_privileges = no_new_privileges
    with Agent(socket_path, 0) as agent:
        ran = bare.run(config)

    assert (ran.end.code, ran.out) == (0, "fine\n")
    assert len(agent.seen) > 20


@requires("root")
def test_without_an_agent_nothing_is_made(bare: Bare, busybox_rootfs: Path, socket_path: Path) -> None:
    """The error names the path; nothing waits for ever."""
    name = bare.new_id()
    with pytest.raises(OcirunError, match=r"listenerPath .*agent\.sock: No such file or directory"):
        bare.create(_filtered(busybox_rootfs, "true", _listening(socket_path)), name=name)

    assert not (bare.root / name).exists()


@requires("root")
def test_an_exec_without_an_agent_is_ended(bare: Bare, busybox_rootfs: Path, socket_path: Path) -> None:
    """It must not wait for an answer that nobody gives; the container goes on."""
    config = confined(busybox_rootfs, "sleep", "60")
    config.linux.seccomp = _listening(socket_path)
    name = bare.new_id()
    with Agent(socket_path):
        init = bare.create(config, name=name, start=True)
        socket_path.unlink()
        with pytest.raises(OcirunError, match="listenerPath"):
            bare.exec(name, "true")
        deadline = time.monotonic() + 5
        record = bare.runtime.record(name)
        while len(record.cgroup.processes()) > 1 and time.monotonic() < deadline:
            time.sleep(0.01)
        left, alive = record.cgroup.processes(), init.poll() is None
        bare.end(name, init)

    assert (left, alive) == ([init.pid], True)


@requires("root")
def test_a_listener_whose_calls_only_death_ends(bare: Bare, busybox_rootfs: Path, socket_path: Path) -> None:
    """WAIT_KILLABLE_RECV is taken by the kernel, beside a flag that a listener cannot have."""
    flags = ["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV", "SECCOMP_FILTER_FLAG_TSYNC"]
    with Agent(socket_path):
        ran = bare.run(_filtered(busybox_rootfs, "busybox mkdir /tmp/d", _listening(socket_path, flags=flags)))

    assert (ran.end.code, "No space left on device" in ran.err) == (1, True)
