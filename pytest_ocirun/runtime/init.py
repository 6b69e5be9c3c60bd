"""Talking to a container's init from outside: the start conversation, signals, the end.

An init that waits accepts one connection on ``start.sock``, says ``starting`` and goes on to execve. The connection is
close-on-exec, so its end means that the program runs; anything else that comes is the error that kept it from
running. A second starter finds nobody who listens, or an end without ``starting``.
"""

from __future__ import annotations

import _socket
import os

from pytest_ocirun.errors import WrongStatus
from pytest_ocirun.linux import fds, pidfd, proc
from pytest_ocirun.runtime import state
from pytest_ocirun.runtime.child import read_message, refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pytest_ocirun.errors import OcirunError
    from pytest_ocirun.runtime.state import Directory

_STARTING = "starting.sock"


def listen(directory: Directory) -> fds.Socket:
    """The listening end of a new container's start socket. The path by fd keeps it below the limit of unix(7)."""
    listener = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET | _socket.SOCK_CLOEXEC)
    try:
        listener.bind(f"/proc/self/fd/{directory.fd}/{state.START_SOCKET}")
        listener.listen(1)
    except BaseException:
        listener.close()
        raise
    return listener


def start(directory: Directory) -> fds.Socket:
    """Ask the init that listens to start; does not wait for it, since it may have been stopped.

    Returns:
        The connection on which ``await_start`` hears how that went.

    Raises:
        WrongStatus: it ended before.
    """
    # Out of the way first: if we are killed, what may run must not pass for created, and be deleted like that.
    os.rename(state.START_SOCKET, _STARTING, src_dir_fd=directory.fd, dst_dir_fd=directory.fd)
    connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET | _socket.SOCK_CLOEXEC)
    try:
        connection.connect(f"/proc/self/fd/{directory.fd}/{_STARTING}")
        os.unlink(_STARTING, dir_fd=directory.fd)
    except BaseException as error:
        connection.close()
        if isinstance(error, ConnectionRefusedError):
            raise _ended(directory.id) from None
        raise
    return connection


def await_start(connection: fds.Socket, container_id: str) -> OcirunError | None:
    """Wait until the program runs, or for what kept it; closes the connection.

    Raises:
        WrongStatus: the init ended before it could be started.
    """
    try:
        if fds.receive(connection)[0] != b"starting":
            raise _ended(container_id)
        data, _none = fds.receive(connection)
        return refused(read_message(data)) if data else None
    except ConnectionResetError:
        raise _ended(container_id) from None
    finally:
        connection.close()


def _ended(container_id: str) -> WrongStatus:
    return WrongStatus(f"start container {container_id}: its init ended before it could be started")


def signal(root: str, container_id: str, number: int) -> None:
    """Send a signal to the init of a container; see ``Runtime.kill``.

    SIGKILL ends the whole container also where that has no pid namespace of its own to end with its init.
    """
    with state.open_existing(root, container_id) as directory:
        document = directory.read()
        status = directory.status(document)
        if status not in state.ALIVE:
            raise WrongStatus(f"kill container {container_id}: container not running")
        send_signal((document["pid"], document["start_time"]), number)
        if status == state.PAUSED:
            from pytest_ocirun.runtime import pausing

            pausing.signalled(document["cgroups"], number)
        if number == pidfd.SIGKILL:
            _end_rest(document)


def _end_rest(document: dict[str, Any]) -> None:
    from pytest_ocirun.runtime import remains

    if remains.shares_pids(document):
        from pytest_ocirun.runtime import stopping

        stopping.end_rest(document)


def send_signal(init: tuple[int, int], number: int) -> bool:
    """Signal the process with that pid and start time; False when it has ended."""
    fd = open_pidfd(init)
    if fd is None:
        return False
    try:
        return pidfd.pidfd_send_signal(fd, number)
    finally:
        os.close(fd)


def end(init: tuple[int, int]) -> None:
    """SIGKILL the init and wait until it has ended; its pid namespace ends with it."""
    fd = open_pidfd(init)
    if fd is None:
        return
    try:
        pidfd.pidfd_send_signal(fd, pidfd.SIGKILL)
        fds.readable(fd, None)
    finally:
        os.close(fd)


def open_pidfd(init: tuple[int, int]) -> int | None:
    """A pidfd of the process, None when it has ended; opened first and checked after, so it cannot mean another one."""
    try:
        fd = pidfd.pidfd_open(init[0])
    except ProcessLookupError:
        return None
    if proc.is_alive(*init):
        return fd
    os.close(fd)
    return None
