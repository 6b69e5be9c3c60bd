"""Handing the listener of a system call filter to the agent that decides about calls, seen from the client.

A process that loads such a filter shares a page with us: first an int, the number of its fd of the listener once there
is one, then a byte that we set when we have taken it (``listener_steps``). The agent gets it over the socket of
``linux.seccomp.listenerPath``, one connection for each, with the container process state. Must not know: filters.
Source: runtime-spec config-linux.md, "Seccomp" and "The Container Process State"; pidfd_getfd(2).
"""

from __future__ import annotations

import os
import time

from pytest_ocirun.errors import KernelRefused, OcirunError
from pytest_ocirun.linux import fds, sched
from pytest_ocirun.oci import json_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pytest_ocirun.runtime.child import Child

SIZE = 8
FETCHED = 4
_SECONDS = 10.0
_PAUSE = 0.0002


def attach(child: Child, listener: list[str], known: dict[str, Any]) -> None:
    """Have the listener of a process that loads a filter handed over when it has one.

    Args:
        child: the process.
        listener: ``listenerPath`` and ``listenerMetadata``.
        known: the container's state; without a pid while it is created, and the process becomes its init.
    """
    path, metadata = listener

    def hand_over(memory: int) -> None:
        state = {name: known[name] for name in ("ociVersion", "id", "bundle")}
        state["annotations"] = known.get("annotations") or {}
        state |= {"status": known.get("status", "creating"), "pid": known.get("pid") or child.pid}
        message = {"ociVersion": known["ociVersion"], "fds": ["seccompFd"], "pid": child.pid, "state": state}
        if metadata:
            message["metadata"] = metadata
        fetched = _fetch(child, memory)
        try:
            _send(path, json_text.dumps(message).encode(), fetched)
        finally:
            os.close(fetched)
        os.pwrite(memory, b"\1", FETCHED)

    child.on_filtering = hand_over


def _fetch(child: Child, memory: int) -> int:
    deadline = time.monotonic() + _SECONDS
    while not (number := int.from_bytes(os.pread(memory, FETCHED, 0), "little")):
        if fds.readable(child.pidfd) or time.monotonic() > deadline:
            raise OcirunError("load the seccomp filter: the process did not say which listener it got")
        time.sleep(_PAUSE)
    try:
        return sched.pidfd_getfd(child.pidfd, number)
    except OSError as error:
        raise KernelRefused(
            f"fetch the listener of the seccomp filter: {error.strerror}",
            errno=error.errno or 0,
            hint="It takes the right to trace the container's processes: root, or ocirun's own command line.",
        ) from error


def _send(path: str, message: bytes, listener: int) -> None:
    import _socket
    import struct

    with_fd = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, struct.pack("i", listener))]
    connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
    try:
        connection.connect(path)
        sent = connection.sendmsg([message], with_fd, _socket.MSG_NOSIGNAL)
        connection.sendall(message[sent:], _socket.MSG_NOSIGNAL)
    except OSError as error:
        raise OcirunError(
            f"send the listener of the seccomp filter to $.linux.seccomp.listenerPath {path}: {error.strerror}",
            hint="An agent must listen there, on a unix stream socket.",
        ) from error
    finally:
        connection.close()
