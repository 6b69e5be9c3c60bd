"""System call filters that were written before the calls that the runtime itself likes to use."""

from pathlib import Path

import pytest

from pytest_ocirun.runtime.seccomp_default import default_filter
from tests.boxes import Bare, confined
from tests.requires import requires

pytestmark = [requires("root", "overlay", "seccomp", "busybox"), pytest.mark.lane("v2")]


@pytest.mark.parametrize("no_new_privileges", [True, False])
def test_a_filter_without_newer_calls_lets_the_container_start(
    bare: Bare, busybox_rootfs: Path, no_new_privileges: bool
) -> None:
    """close_range and faccessat2 refused, not missing, since it names newer ones; nothing else is open all the same."""
    config = confined(busybox_rootfs, "ls", "/proc/self/fd", user_namespace=False)
    config.process.no_new_privileges = no_new_privileges
    config.linux.seccomp = default_filter()
    config.linux.seccomp.default_action = "SCMP_ACT_ERRNO"
    config.linux.seccomp.syscalls[0].names.append("landlock_restrict_self")
    for syscall in config.linux.seccomp.syscalls:
        syscall.names = [name for name in syscall.names if name not in ("close_range", "faccessat2", "openat2")]
    ran = bare.run(config)

    assert (ran.err, ran.out.split()) == ("", ["0", "1", "2", "3"])
