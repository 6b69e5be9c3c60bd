"""Labels of security modules: the AppArmor profile and the SELinux labels of a process and of mounts.

Responsible for the steps that set them. Must not know what profiles mean. Loaded only when a config asks for one.
Sources: runtime-spec config.md "Linux Process", config-linux.md "Mount Label", proc_pid_attr(5), apparmor(7).
"""

from __future__ import annotations

import os

from pytest_ocirun.runtime.inside import open_inside
from pytest_ocirun.runtime.steps import Context, operation

_ATTRIBUTES = "/proc/thread-self/attr"
_SELINUX_XATTR = "security.selinux"


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
