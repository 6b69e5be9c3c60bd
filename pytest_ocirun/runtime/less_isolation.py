"""Plans that isolate less than usual, because the caller said so: ``--no-pivot``, ``--no-new-keyring``.

Responsible for both halves: what becomes of a plan, and the step that only such a plan has. Must not know the command
line. Source: runc's options of those names; switch_root(8) for the move.
"""

from __future__ import annotations

import os

from pytest_ocirun.linux import mount
from pytest_ocirun.runtime.steps import Context, operation

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pytest_ocirun.runtime.spawn import Plan

_REVEALING = ("proc", "sysfs")


def without_pivot(plan: Plan) -> Plan:
    """The plan with the root file system moved over the old one, which stays below it: for hosts on a ramdisk.

    A container with CAP_SYS_ADMIN can uncover the host's root by unmounting its own.
    """
    return plan | {"enter": [["move_root"] if step[0] == "pivot" else step for step in plan["enter"]]}


def without_keyring(plan: Plan) -> Plan:
    """The plan without a session keyring of its own: the container sees and may use the caller's."""
    return plan | {"enter": [step for step in plan["enter"] if step[0] != "new_keyring"]}


@operation("move the root file system over the old one and change into it, without pivot_root")
def move_root(context: Context) -> None:
    """MS_MOVE and chroot(2). Old proc and sysfs go first: the kernel would take them for leave to mount new ones."""
    own = os.readlink(f"/proc/self/fd/{context.root}")
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        lines = [line.partition(" - ") for line in file]
    for left, _, right in reversed(lines):
        point = left.split(" ")[4].replace("\\040", " ")
        if right.split(" ")[0] in _REVEALING and not f"{point}/".startswith(f"{own}/"):
            _take_away(point)
    os.fchdir(context.root)
    mount.mount(".", "/", None, mount.MS_MOVE)
    os.chroot(".")
    os.chdir("/")
    os.close(context.root)


def _take_away(point: str) -> None:
    try:
        mount.umount2(point, mount.MNT_DETACH)
    except OSError:  # locked, as it came from a mount namespace with more rights: cover it
        mount.mount("tmpfs", point, "tmpfs", mount.MS_NOSUID | mount.MS_NODEV | mount.MS_NOEXEC | mount.MS_RDONLY)
