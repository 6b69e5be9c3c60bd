"""Letting a container's init set itself up while its spawner still puts it into its cgroups.

Moving it may take long (``cgroups.grace``). Meanwhile the init can do what costs next to nothing that a limit could
count: mount empty file systems. The rest, above all what runs or is copied, waits for the spawner's word, and so does
the cgroup namespace, whose root is where its maker is counted. Must not know what any step does.
"""

from __future__ import annotations

import os

from pytest_ocirun.runtime.steps import Context, operation

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pytest_ocirun.runtime.spawn import Plan
    from pytest_ocirun.runtime.steps import Step

_BEFORE = {
    *("new_session", "new_keyring", "hostname", "domainname", "loopback_up", "propagation", "attach_root", "attach"),
    *("make_device", "symlink", "make_place", "read_only", "mask"),
}
_EMPTY = ("proc", "tmpfs", "devpts", "mqueue", "sysfs")
_OF_NAMESPACE = "unshare_cgroup"
_FAILED = 127


def overlap(plan: Plan) -> Plan:
    """The same plan, with the init's wait for the spawner's word as late as may be; that word comes as slot ``go``."""
    if not plan["cgroups"]["procs"] or plan["outside"] or plan["join"] or plan["time_offsets"] or not plan["clone"]:
        return plan
    steps: list[Step] = [step for step in plan["enter"] if step[0] != _OF_NAMESPACE]
    cut = next((index for index, step in enumerate(steps) if not _may_come_before(step)), len(steps))
    moved: list[Step] = [["await_place"], *([[_OF_NAMESPACE]] if len(steps) < len(plan["enter"]) else [])]
    return {**plan, "enter": [*steps[:cut], *moved, *steps[cut:]], "waits_itself": True}


def _may_come_before(step: Step) -> bool:
    return step[0] in _BEFORE or (step[0] == "mount_new" and step[2] in _EMPTY)


@operation("wait until the spawner has put this process into its cgroups")
def await_place(context: Context) -> None:
    """Wait for the spawner's word; without it, it has failed or is gone."""
    go = context.fds.pop("go")
    if os.read(go, 1) != b"g":
        os._exit(_FAILED)
    os.close(go)
