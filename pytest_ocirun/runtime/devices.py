"""Device steps: the nodes of /dev, its links, and the terminal.

Must not know which devices a container gets (``root_plan``), nor how the spawner makes nodes for a user namespace
(``device_nodes``).
"""

from __future__ import annotations

import os
import stat

from pytest_ocirun.linux import mount
from pytest_ocirun.runtime.inside import make_directory, make_file, make_symlink, open_inside
from pytest_ocirun.runtime.rootfs import place
from pytest_ocirun.runtime.steps import Context, operation


@operation("bind the host's device {1} to {0}")
def bind_device(context: Context, path: str, host: str) -> None:
    """Bind a device node of the host: inside a user namespace mknod is EPERM."""
    source = mount.open_tree(mount.AT_FDCWD, host)
    place(context.root, source, path, directory=False)
    os.close(source)


@operation("make the device {0} ({1} {2}:{3})")
def make_device(context: Context, path: str, kind: str, major: int, minor: int, mode: int, uid: int, gid: int) -> None:
    """Make a device node; one that is there already and equal is kept."""
    wanted = {"c": stat.S_IFCHR, "u": stat.S_IFCHR, "b": stat.S_IFBLK, "p": stat.S_IFIFO}[kind]
    number = 0 if kind == "p" else os.makedev(major, minor)
    parent, _, name = path.rpartition("/")
    above = make_directory(context.root, parent or "/")
    try:
        os.mknod(name, wanted | mode, number, dir_fd=above)
    except FileExistsError:
        found = os.stat(name, dir_fd=above, follow_symlinks=False)
        if stat.S_IFMT(found.st_mode) != wanted or found.st_rdev != number:
            raise
    else:
        os.chown(name, uid, gid, dir_fd=above, follow_symlinks=False)
        fd = open_inside(above, name)
        os.chmod(f"/proc/self/fd/{fd}", mode)
        os.close(fd)
    finally:
        os.close(above)


@operation("link {0} to {1}")
def symlink(context: Context, path: str, target: str, replace: bool) -> None:  # noqa: FBT001
    """Make a symlink inside the root unless something is there; with ``replace`` a node or another link goes."""
    make_symlink(context.root, path, target, replace=replace)


@operation("bind the terminal to {0}")
def bind_console(context: Context, path: str) -> None:
    """Bind the pty's slave, by its fd, to /dev/console."""
    source = mount.open_tree(context.console, "")
    target = make_file(context.root, path, symlinks=False)
    mount.move_mount(source, target)
    os.close(target)
    os.close(source)
