"""Whether a directory's file system can be mounted with mapped ids, found out by doing it.

Responsible for the probe only. It needs a user namespace, and a process that may have threads must not fork,
so it runs in an interpreter of its own: at the top this module imports nothing heavy.
"""

from __future__ import annotations

import os
import sys

_PROBE = """
import sys
sys.path.append(sys.argv[2])
from pytest_ocirun.images import idmap
idmap.main(sys.argv[1])
"""
_SECONDS = 30


def obstacle(path: str) -> str | None:
    """Why ``path`` cannot be idmapped; None when it can. Takes about 50 ms.

    The answer is the kernel's to mount_setattr(2) with MOUNT_ATTR_IDMAP (Linux 5.12), or to what leads there.

    Raises:
        ImageError: the probe itself could not run.
    """
    import subprocess

    import pytest_ocirun
    from pytest_ocirun.errors import ImageError

    parent = os.path.dirname(os.path.dirname(os.path.abspath(pytest_ocirun.__file__)))
    command = [sys.executable, "-I", "-S", "-c", _PROBE, path, parent]
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=True, timeout=_SECONDS)
    except (OSError, subprocess.SubprocessError) as error:
        raise ImageError(f"cannot find out whether {path} can be mounted with mapped ids: {error}") from error
    return done.stdout.strip() or None


def main(path: str) -> None:
    """Try, and print what is in the way; nothing when the mount could be made."""
    from pytest_ocirun.linux import mount

    ready, told = os.pipe()
    watched, held = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(held)
        _hold_namespace(told, watched)
    try:
        problem = os.read(ready, 200).decode()
        if problem == "ready":
            _write_maps(child)
            userns = os.open(f"/proc/{child}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
            mount.mount_setattr(mount.open_tree(mount.AT_FDCWD, path), userns=userns)
        else:
            print(problem)  # noqa: T201 - the answer
    except OSError as error:
        print(error.strerror)  # noqa: T201 - the answer
    finally:
        os.close(held)
        os.waitpid(child, 0)


def _write_maps(pid: int) -> None:
    for name in ("uid_map", "gid_map"):
        with open(f"/proc/{pid}/{name}", "w", encoding="ascii") as file:
            file.write("0 65536 65536")


def _hold_namespace(told: int, watched: int) -> None:
    """Enter a user namespace, say so, and stay until the other end of ``watched`` is closed."""
    from pytest_ocirun.linux import sched

    try:
        sched.unshare(sched.CLONE_NEWUSER)
        os.write(told, b"ready")
        os.read(watched, 1)
    except OSError as error:
        os.write(told, str(error.strerror).encode())
    finally:
        os._exit(0)
