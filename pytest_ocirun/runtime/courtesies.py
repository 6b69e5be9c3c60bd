"""Steps for what a drop-in runtime does unasked: HOME and LISTEN_PID are filled in where the config has none.

In the child, inside the container's root and still with all of its rights. Imported by ``steps`` for plans that have
such steps only. What is read of the image may be anything: a FIFO, a link, endless (CVE-2024-9676).
Sources: what runc does; passwd(5), sd_listen_fds(3).
"""

from __future__ import annotations

import os
import stat

from pytest_ocirun.runtime.steps import Context, operation

_USERS = "/etc/passwd"
_MOST = 1 << 20
_HOME = 5
_NO_HOME = b"/"


@operation("find the home directory of uid {0}")
def find_home(context: Context, uid: int) -> None:
    """Take HOME from the image's /etc/passwd, ``/`` if that does not say."""
    wanted = str(uid).encode()
    for line in _read(_USERS).split(b"\n"):
        fields = line.split(b":")
        if len(fields) > _HOME and fields[2] == wanted:
            context.environment["HOME"] = os.fsdecode(fields[_HOME] or _NO_HOME)
            return
    context.environment["HOME"] = os.fsdecode(_NO_HOME)


@operation("tell the process that the fds passed are meant for it")
def tell_pid(context: Context) -> None:
    """Set LISTEN_PID to the pid that the program will have, as it sees it."""
    context.environment["LISTEN_PID"] = str(os.getpid())


def _read(path: str) -> bytes:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        return os.read(fd, _MOST) if stat.S_ISREG(os.fstat(fd).st_mode) else b""
    except OSError:
        return b""
    finally:
        os.close(fd)
