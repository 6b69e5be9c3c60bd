"""When an usher is enough, and when the stage is needed: each reason alone."""

import struct
from collections.abc import Callable

import pytest

from pytest_ocirun.oci.process import Capabilities, Process
from pytest_ocirun.oci.runtime import Config, Hook, Namespace
from pytest_ocirun.runtime import defaults
from pytest_ocirun.runtime.record import Filter
from pytest_ocirun.runtime.usher_fit import suits
from tests.requires import requires

pytestmark = requires("usher")

ALLOW, DENY = 0x7FFF0000, 0x00050001
_X86_64 = 0xC000003E


def _config(*, user: bool = False) -> Config:
    config = defaults.spec()
    config.process.no_new_privileges = False
    if user:
        config.linux.namespaces.append(Namespace(type="user"))
    return config


def _granting(*names: str) -> Capabilities:
    return Capabilities(bounding=list(names))


def _program(*instructions: tuple[int, int, int, int]) -> Filter:
    return Filter(b"".join(struct.pack("=HBBI", *each) for each in instructions), 0)


def test_the_ordinary_container_suits() -> None:
    """New or joined, with a user namespace or without."""
    for user in (False, True):
        config = _config(user=user)

        assert suits(config, config.process, None, joins=False, traced=False)
        assert suits(config, config.process, None, joins=True, traced=False)


def _shared_pids(config: Config) -> None:
    config.linux.namespaces = [each for each in config.linux.namespaces if each.type != "pid"]


def _joined_pids(config: Config) -> None:
    for each in config.linux.namespaces:
        if each.type == "pid":
            each.path = "/proc/1/ns/pid"


def _hook(config: Config) -> None:
    config.hooks.start_container = [Hook(path="/bin/true")]


def _label(config: Config) -> None:
    config.process.selinux_label = "label"


def _profile(config: Config) -> None:
    config.process.apparmor_profile = "profile"


def _lost_capabilities(config: Config) -> None:
    config.process.no_new_privileges = True
    config.process.user.uid = 1000
    config.process.capabilities = Capabilities(permitted=["CAP_KILL"], bounding=["CAP_KILL"])


@pytest.mark.parametrize(
    "change", [_shared_pids, _joined_pids, _hook, _label, _profile, _lost_capabilities], ids=lambda each: each.__name__
)
def test_a_new_container_needs_the_stage(change: Callable[[Config], None]) -> None:
    """Somebody may look, or an execve more would make a difference."""
    config = _config()
    change(config)

    assert not suits(config, config.process, None, joins=False, traced=False)


@pytest.mark.parametrize("user", [False, True])
@pytest.mark.parametrize("who", ["container", "process", "earlier"])
def test_who_joins_one_that_may_trace_needs_the_stage(who: str, user: bool) -> None:
    """CAP_SYS_PTRACE opens /proc/PID/exe of what joins, unless it is one over the container's own user namespace."""
    config = _config(user=user)
    process: Process = config.process.copy()
    if who == "container":
        config.process.capabilities = _granting("CAP_SYS_PTRACE")
    if who == "process":
        process.capabilities = _granting("CAP_SYS_PTRACE")

    assert suits(config, process, None, joins=True, traced=who == "earlier") is user


@pytest.mark.parametrize(
    "program, expected",
    [
        ([(6, 0, 0, ALLOW)], True),
        ([(6, 0, 0, DENY)], False),
        ([(0x20, 0, 0, 4), (0x15, 0, 1, _X86_64), (6, 0, 0, ALLOW), (6, 0, 0, DENY)], True),
        ([(0x20, 0, 0, 0), (0x15, 1, 0, 322), (6, 0, 0, ALLOW), (6, 0, 0, DENY)], False),
        ([(0x20, 0, 0, 0), (0x25, 0, 1, 300), (5, 0, 0, 1), (6, 0, 0, DENY), (6, 0, 0, ALLOW)], True),
        ([(0x20, 0, 0, 16), (0x15, 0, 1, 0), (6, 0, 0, ALLOW), (6, 0, 0, ALLOW)], False),
        ([(0x20, 0, 0, 0)], False),
    ],
    ids=["allows", "denies", "by architecture", "denies execveat", "jumps", "asks for an argument", "ends nowhere"],
)
def test_a_filter_that_is_loaded_before_must_let_execveat_in(
    program: list[tuple[int, int, int, int]], expected: bool
) -> None:
    """Without no_new_privs the filter is loaded while there are capabilities to do it, so before the usher."""
    config = _config()
    found = suits(config, config.process, _program(*program), joins=False, traced=False)
    config.process.no_new_privileges = True
    with_no_new_privs = suits(config, config.process, _program(*program), joins=False, traced=False)

    assert (found, with_no_new_privs) == (expected, True)


def test_a_listener_needs_the_stage() -> None:
    """The usher cannot send its fd."""
    config = _config()
    program = _program((6, 0, 0, ALLOW))
    program.flags = 8

    assert not suits(config, config.process, program, joins=False, traced=False)
