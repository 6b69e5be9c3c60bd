"""What a new process gets from whoever started ocirun, and what is told about it.

Responsible for: the options that create, run and exec share: fds, the terminal's socket, the pid file. Must
not know: containers' life.
"""

from __future__ import annotations

import errno
import os

from pytest_ocirun.cli.options import Option, Usage
from pytest_ocirun.errors import ConfigError, OcirunError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pytest_ocirun.cli.options import Given
    from pytest_ocirun.cli.settings import Settings
    from pytest_ocirun.linux.fds import Socket
    from pytest_ocirun.oci.process import Process
    from pytest_ocirun.runtime.child import Child
    from pytest_ocirun.runtime.stdio import Stdio

OPTIONS = (
    Option("console-socket", "send the terminal's master to this unix socket", value="PATH"),
    Option("pid-file", "write the process's pid to this file", value="PATH"),
    Option("pidfd-socket", "send a pidfd of the process to this unix socket", value="PATH"),
    Option("preserve-fds", "pass N more fds, from 3 (or the end of LISTEN_FDS) on", value="N"),
)
DETACH = Option("detach", "do not wait for the process", short="d")

_MOST_FDS = 200  # what one message over a unix socket takes, and some for ourselves
_PATH_MOST = 107  # sun_path of unix(7)


class Surface:
    """The side of a process that its starter sees.

    Args:
        given: the verb's options.
        settings: the global ones.
        process: what will run; activation variables are added to its environment.
        detached: whether nobody waits for it.

    Raises:
        ConfigError: the options do not go together.
        OcirunError: the console socket cannot be reached.
    """

    def __init__(self, given: Given, settings: Settings, process: Process, *, detached: bool) -> None:
        path = given.text("console-socket")
        _check_terminal(process, path, detached=detached)
        self._pid_file = given.text("pid-file") and os.path.abspath(given.text("pid-file"))
        self.stdio = _stdio(given, settings, process)
        self._console_socket = _connect(path, "console") if path else None
        path = given.text("pidfd-socket")
        self._pidfd_socket = _connect(path, "pidfd") if path else None

    def present(self, child: Child) -> None:
        """Write the pid file, and send the terminal's master and a pidfd to who asked for them."""
        if self._console_socket is not None and child.console is not None:
            from pytest_ocirun.linux import fds

            fds.send(self._console_socket, b"/dev/ptmx", [child.console])
            self._console_socket.close()
        if self._pidfd_socket is not None:
            from pytest_ocirun.linux import fds

            fds.send(self._pidfd_socket, b"pidfd", [child.pidfd])
            self._pidfd_socket.close()
        if self._pid_file:
            _write_pid(self._pid_file, child.pid)


def _check_terminal(process: Process, console_socket: str, *, detached: bool) -> None:
    if detached and process.terminal and not console_socket:
        raise ConfigError(
            "give a detached process a terminal: nobody would hold its other end",
            hint="Name a unix socket by --console-socket, or set process.terminal to false.",
        )
    if console_socket and not (detached and process.terminal):
        raise ConfigError(
            "use --console-socket: it is for a detached process with a terminal only",
            hint="Leave it out, or set process.terminal to true and detach.",
        )


def _stdio(given: Given, settings: Settings, process: Process) -> Stdio:
    from pytest_ocirun.runtime.stdio import Stdio

    listening = settings.listen_fds
    count = listening + given.number("preserve-fds", _MOST_FDS)
    if count > _MOST_FDS:
        raise Usage(f"pass {count} fds: at most {_MOST_FDS} can be passed")
    for number in range(3, 3 + count):
        if not _was_given(number):
            raise Usage(f"pass fd {number}: {os.strerror(errno.EBADF)}", hint="It must be open when ocirun is started.")
    if listening:
        process.env.append(f"LISTEN_FDS={listening}")
    return Stdio(0, 1, 2, {number: number for number in range(3, 3 + count)}, drop_in=True)


def _was_given(number: int) -> bool:
    """Whether a fd is open that has come through our own execve; those that we opened close at one."""
    try:
        return os.get_inheritable(number)
    except OSError:
        return False


def _connect(path: str, what: str) -> Socket:
    import _socket

    name = os.path.abspath(path)
    parent = -1
    connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
    try:
        if len(os.fsencode(name)) > _PATH_MOST:
            parent = os.open(os.path.dirname(name), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            name = f"/proc/self/fd/{parent}/{os.path.basename(name)}"
        connection.connect(name)
    except OSError as error:
        connection.close()
        raise OcirunError(f"connect to the {what} socket {path}: {error.strerror}") from error
    finally:
        if parent >= 0:
            os.close(parent)
    return connection


def _write_pid(path: str, pid: int) -> None:
    """As one act, since whoever waits for the file reads it at once."""
    parent, name = os.path.split(path)
    temporary = f"{parent}/.{name}.{os.getpid()}"
    try:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        try:
            os.write(fd, str(pid).encode())
        finally:
            os.close(fd)
        os.rename(temporary, path)
    except OSError as error:
        raise OcirunError(f"write the pid file {path}: {error.strerror}") from error
