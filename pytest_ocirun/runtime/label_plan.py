"""What a plan makes of a config that asks for labels of a security module, and whether the kernel has the module.

The steps stand in ``labels``. Must not know what profiles mean. Sources: runtime-spec config.md "Linux Process",
config-linux.md "Mount Label".
"""

from __future__ import annotations

from pytest_ocirun.errors import Unsupported

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pytest_ocirun.oci.process import Process
    from pytest_ocirun.runtime.steps import Step

_APPARMOR_SWITCH = "/sys/module/apparmor/parameters/enabled"
_FILE_SYSTEMS = "/proc/filesystems"
_TAKES_CONTEXT = ("tmpfs", "devpts", "ramfs")


def check_process(process: Process, path: str) -> None:
    """Raise for a label that no module of this kernel would look at.

    Raises:
        Unsupported: the message begins with the property's path and names what is missing.
    """
    if process.apparmor_profile and not _has_apparmor():
        raise Unsupported(
            f"{path}.apparmorProfile: AppArmor is not enabled in this kernel",
            hint="Leave the profile out, or boot with AppArmor.",
        )
    if process.selinux_label:
        _check_selinux(f"{path}.selinuxLabel")


def check_mounts(label: str) -> None:
    """The same for ``linux.mountLabel``."""
    if label:
        _check_selinux("$.linux.mountLabel")


def _check_selinux(path: str) -> None:
    with open(_FILE_SYSTEMS, encoding="ascii") as file:
        if "selinuxfs" not in file.read().split():
            raise Unsupported(
                f"{path}: SELinux is not enabled in this kernel", hint="Leave the label out, or boot with SELinux."
            )


def _has_apparmor() -> bool:
    try:
        with open(_APPARMOR_SWITCH, encoding="ascii") as file:
            return file.read(1) == "Y"
    except OSError:
        return False


def labels_of(process: Process, own: Process) -> list[tuple[str, str]]:
    """(module, label) of a process; one that joins a container and has none gets that of the container's own."""
    wanted = (
        ("apparmor", process.apparmor_profile or own.apparmor_profile),
        ("selinux", process.selinux_label or own.selinux_label),
    )
    return [(module, label) for module, label in wanted if label]


def opening(labels: list[tuple[str, str]]) -> list[Step]:
    """What must be done while the process still sees the host's /proc, which no image can have forged."""
    return [["open_label", module] for module, _label in labels]


def setting(labels: list[tuple[str, str]]) -> list[Step]:
    """What asks the modules for the labels that the next execve gives."""
    return [["set_label", module, label] for module, label in labels]


def label_mounts(steps: list[Step], label: str) -> list[Step]:
    """The steps with every file system of its own mounted under a label; a message queue's gets it afterwards."""
    labelled: list[Step] = []
    for step in steps:
        labelled.append(step)
        if step[0] not in {"mount_new", "mount_copied"}:
            continue
        _name, path, kind, _source, options, *_rest = step
        if kind in _TAKES_CONTEXT and not any("context" in option for option in options):
            options["context"] = label
        elif kind == "mqueue":
            labelled.append(["label_file", path, label])
    return labelled
