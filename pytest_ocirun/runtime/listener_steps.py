"""The step that loads a filter with a listener: calls of the action SCMP_ACT_NOTIFY wait for somebody who decides.

The kernel gives the listener to the process that loads the filter, as a close-on-exec fd. From then on any call of that
process may be one that waits for the listener, so it must not make one to hand it over. It writes the fd's number into
a page that it shares with the client and looks at the page until the client has the fd (``listener``): neither is a
system call. Imported by ``steps`` for plans that have such a step only. Source: seccomp_unotify(2).
"""

from __future__ import annotations

import errno
import os
import struct

from pytest_ocirun.linux import fds
from pytest_ocirun.runtime.listener import FETCHED, SIZE
from pytest_ocirun.runtime.steps import Context, operation

_MOST_LOOKS = 400_000_000  # some ten seconds: the client may be killed while we look


def preload() -> None:
    """Import what the step needs; see ``steps.load``."""
    import mmap  # noqa: F401


@operation("load the seccomp filter, and hand its listener over")
def load_listening_filter(context: Context) -> None:
    """Load the program that ``prepare_filter`` laid out, and go on when the client has its listener."""
    import mmap

    if context.filter is None:
        raise OSError(errno.EINVAL, "no seccomp filter was laid out")
    memory = fds.memfd("listener", bytes(SIZE))
    page = mmap.mmap(memory, SIZE)
    reply = fds.socket_of(context.fds["reply"])
    fds.send(reply, b'{"event": "filtering"}', [memory])
    reply.detach()
    os.close(memory)
    struct.pack_into("i", page, 0, context.filter.load())
    for _look in range(_MOST_LOOKS):
        if page[FETCHED]:
            return
    os._exit(127)
