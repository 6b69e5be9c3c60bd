"""A container's word that it is ready, passed on to who waits for ours: sd_notify(3), as runc does it.

Where ``NOTIFY_SOCKET`` is set for create or run, the container gets a socket of its own at ``/run/notify/notify.sock``,
and the variable names that. Whoever starts it listens there and passes on ``READY=1`` alone, with the init's pid as
``MAINPID``: nothing else that a container says is believed. Must not know how a container is made or waited for.
"""

from __future__ import annotations

import _socket
import os
import struct

from pytest_ocirun.errors import OcirunError
from pytest_ocirun.linux import fds

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Self

    from pytest_ocirun.oci.runtime import Config

DIRECTORY = "notify"
_NAME = "notify.sock"
_INSIDE = "/run/notify"
_MOST = 4096
_BARRIER_SECONDS = 5.0


def prepare(config: Config, root: str, container_id: str) -> None:
    """Give a container that is about to be created its place to tell; its directory is made with the container's."""
    from pytest_ocirun.oci.runtime import Mount

    source = f"{root}/{container_id}/{DIRECTORY}"
    options = ["bind", "ro", "nosuid", "noexec", "nodev"]
    config.mounts.append(Mount(destination=_INSIDE, type="bind", source=source, options=options))
    config.process.env.append(f"NOTIFY_SOCKET={_INSIDE}/{_NAME}")


class Relay:
    """Listens to one container; use as a context manager.

    Args:
        root: the state root.
        container_id: the container.
        host: our own NOTIFY_SOCKET.

    Raises:
        OcirunError: it cannot be listened to.
    """

    def __init__(self, root: str, container_id: str, host: str) -> None:
        self._host = f"\0{host[1:]}" if host.startswith("@") else host
        self._socket = _socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC)
        path = f"{root}/{container_id}/{DIRECTORY}"
        try:
            place = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                self._socket.bind(f"/proc/self/fd/{place}/{_NAME}")
                os.chmod(f"/proc/self/fd/{place}/{_NAME}", 0o777)  # noqa: S103 - the container's user is anybody
            finally:
                os.close(place)
        except OSError as error:
            self._socket.close()
            raise OcirunError(f"listen for the container at {path}: {error.strerror}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self._socket.close()

    def fileno(self) -> int:
        """Readable when the container has told something."""
        return self._socket.fileno()

    def wait(self, pid: int) -> None:
        """Wait until the container says that it is ready, or has ended."""
        import select

        try:
            pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            return
        try:
            poller = select.poll()
            for fd in (pidfd, self.fileno()):
                poller.register(fd, select.POLLIN)
            while pidfd not in dict(poller.poll()):
                if self.pass_on(pid):
                    return
        finally:
            os.close(pidfd)

    def pass_on(self, pid: int) -> bool:
        """Take one word of the container; whether it was that it is ready, which has been passed on then."""
        if b"READY=1" not in self._socket.recv(_MOST).split(b"\n"):
            return False
        ours = _socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC)
        try:
            ours.connect(self._host)
            ours.send(b"READY=1\nMAINPID=%d\n" % pid)
            _barrier(ours)
        except OSError as error:
            raise OcirunError(f"tell {self._host!r} of NOTIFY_SOCKET: {error.strerror}") from error
        finally:
            ours.close()
        return True


def _barrier(ours: fds.Socket) -> None:
    """Wait until the listener has read what was said before: it closes the fd that it is sent; sd_notify_barrier(3)."""
    read, write = os.pipe2(os.O_CLOEXEC)
    try:
        ours.sendmsg([b"BARRIER=1"], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, struct.pack("i", write))])
    finally:
        os.close(write)
    fds.readable(read, _BARRIER_SECONDS)
    os.close(read)
