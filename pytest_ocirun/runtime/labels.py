"""Labels of security modules: the AppArmor profile and the SELinux labels of a process and of mounts.

Responsible for: saying at create when the kernel has no such module, and writing what it takes before execve. Must
not know what profiles mean. Loaded only when a config asks for one. Sources: runtime-spec config.md "Linux Process",
config-linux.md "Mount Label", proc_pid_attr(5), apparmor(7).
"""

from __future__ import annotations

import os

from pytest_ocirun.errors import Unsupported
from pytest_ocirun.runtime.inside import open_inside
from pytest_ocirun.runtime.steps import Context, operation

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pytest_ocirun.oci.process import Process
    from pytest_ocirun.runtime.steps import Step

_APPARMOR_SWITCH = "/sys/module/apparmor/parameters/enabled"
_FILE_SYSTEMS = "/proc/filesystems"
_ATTRIBUTES = "/proc/thread-self/attr"
_TAKES_CONTEXT = ("tmpfs", "devpts", "ramfs")
_SELINUX_XATTR = "security.selinux"


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


def opening(process: Process) -> list[Step]:
    """What must be done while the process still sees the host's /proc, which no image can have forged."""
    modules = (("apparmor", process.apparmor_profile), ("selinux", process.selinux_label))
    return [["open_label", module] for module, label in modules if label]


def setting(process: Process) -> list[Step]:
    """What asks the modules for the labels that the next execve gives."""
    modules = (("apparmor", process.apparmor_profile), ("selinux", process.selinux_label))
    return [["set_label", module, label] for module, label in modules if label]


def label_mounts(steps: list[Step], label: str) -> list[Step]:
    """The steps with every file system of its own mounted under a label; a message queue's gets it afterwards."""
    labelled: list[Step] = []
    for step in steps:
        labelled.append(step)
        if step[0] != "mount_new":
            continue
        _name, path, kind, options, *_rest = step
        if kind in _TAKES_CONTEXT and not any("context" in option for option in options):
            options["context"] = label
        elif kind == "mqueue":
            labelled.append(["label_file", path, label])
    return labelled


@operation("open the place for the {0} label")
def open_label(context: Context, module: str) -> None:
    """Open this process's own attribute file; a kernel with several modules has a folder for AppArmor."""
    names = ("apparmor/exec", "exec") if module == "apparmor" else ("exec",)
    for name in names:
        try:
            context.fds[f"label-{module}"] = os.open(f"{_ATTRIBUTES}/{name}", os.O_WRONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            if name == names[-1]:
                raise
        else:
            return


@operation("take the {0} label {1} at the execve")
def set_label(context: Context, module: str, label: str) -> None:
    """Ask for a label; the module answers at once if it does not know it."""
    fd = context.fds.pop(f"label-{module}")
    try:
        os.write(fd, f"exec {label}".encode() if module == "apparmor" else label.encode())
    finally:
        os.close(fd)


@operation("label {0} as {1}")
def label_file(context: Context, path: str, label: str) -> None:
    """Set the SELinux label of a place inside the root."""
    fd = open_inside(context.root, path)
    try:
        os.setxattr(f"/proc/self/fd/{fd}", _SELINUX_XATTR, label.encode())
    finally:
        os.close(fd)
