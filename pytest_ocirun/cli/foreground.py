"""Waiting for a process that runs in front: its end, our signals, its terminal.

Responsible for: one loop over poll(2), without threads, that never blocks on one of its sides. Must not know:
containers.
"""

from __future__ import annotations

import os
import select

from pytest_ocirun.cli.report import Interrupted
from pytest_ocirun.linux import sched, signals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pytest_ocirun.cli.readiness import Relay
    from pytest_ocirun.cli.signals import Caught
    from pytest_ocirun.cli.terminal import Terminal
    from pytest_ocirun.runtime.child import Child

_CHUNK = 4096  # what poll(2) promises to take of a pipe
_LAST_CHUNKS = 64  # more than a pty holds, so only what is printed after the end is left out
_GONE = select.POLLHUP | select.POLLERR | select.POLLNVAL


def exit_code(status: int) -> int:
    """A wait status as a shell's exit status: 128 + N for signal N."""
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def await_execution(child: Child, caught: Caught) -> None:
    """Wait until the program of ``child`` runs. A signal that comes before is for us, one after that is for it.

    Raises:
        Interrupted: a signal asks us to end.
        KernelRefused: the program cannot be run.
    """
    wanted = {child.reply_fd(): select.POLLIN, caught.fileno(): select.POLLIN}
    while child.reply_fd() not in _poll(wanted):
        number = caught.interruption()
        if number is not None:
            raise Interrupted(number)
    child.wait_executed()


def attend(child: Child, caught: Caught, terminal: Terminal | None, relay: Relay | None = None) -> int:
    """Wait for ``child``; pass on signals, its readiness with a ``relay``, and what is typed and printed.

    Args:
        child: the process.
        caught: the signals.
        terminal: one that is prepared, or None.
        relay: what listens to the container, or None.

    Returns:
        The exit status, as ``exit_code`` gives it.
    """
    if terminal is None or child.console is None:
        return _attend(child, caught, None, None, relay)
    with terminal:
        return _attend(child, caught, terminal, Copying(child.console), relay)


def _attend(
    child: Child, caught: Caught, terminal: Terminal | None, copying: Copying | None, relay: Relay | None
) -> int:
    while True:
        wanted = {child.fileno(): select.POLLIN, caught.fileno(): select.POLLIN}
        if copying is not None:
            wanted |= copying.wanted()
        if relay is not None:
            wanted[relay.fileno()] = select.POLLIN
        ready = _poll(wanted)
        if relay is not None and relay.fileno() in ready:
            relay.pass_on(child.pid)
        if caught.fileno() in ready:
            _pass_on(caught, child, terminal)
        if copying is not None:
            copying.copy(ready)
        if child.fileno() in ready:
            if copying is not None:
                copying.finish()
            return exit_code(child.wait())


def _poll(wanted: dict[int, int]) -> dict[int, int]:
    poller = select.poll()
    for fd, events in wanted.items():
        poller.register(fd, events)
    return dict(poller.poll())


def _pass_on(caught: Caught, child: Child, terminal: Terminal | None) -> None:
    for number in caught.take():
        if number == signals.SIGWINCH and terminal is not None:
            terminal.pass_size(child)
        else:
            sched.pidfd_send_signal(child.pidfd, number)


class Copying:
    """Our stdin to a pty's master, and the master to our stdout.

    Args:
        console: the master.
    """

    def __init__(self, console: int) -> None:
        self._console = console
        self._typed = b""
        self._printed = b""
        self._stdin_open = True
        self._stdout_open = True
        self._console_open = True
        os.set_blocking(console, False)

    def wanted(self) -> dict[int, int]:
        """What to poll for: each direction reads only when it has nothing left to write."""
        events: dict[int, int] = {}
        if self._console_open:
            console = (0 if self._printed else select.POLLIN) | (select.POLLOUT if self._typed else 0)
            if console:
                events[self._console] = console
            if self._stdin_open and not self._typed:
                events[0] = select.POLLIN
        if self._printed:
            events[1] = select.POLLOUT
        return events

    def copy(self, ready: dict[int, int]) -> None:
        """Do what can be done without waiting."""
        if ready.get(self._console, 0) & (select.POLLIN | _GONE) and not self._printed:
            self._read_console()
        if ready.get(1, 0):
            self._write_stdout()
        if ready.get(0, 0):
            self._read_stdin()
        if self._typed and self._console_open:
            self._write_console()

    def finish(self) -> None:
        """The process has ended: show what it printed last, without waiting for what may hold its terminal open."""
        for _chunk in range(_LAST_CHUNKS):
            while self._printed:
                self._write_stdout()
            if self._console_open:
                self._read_console()
            if not self._printed:
                return

    def _read_console(self) -> None:
        try:
            self._printed = os.read(self._console, _CHUNK)
        except BlockingIOError:
            return
        except OSError:  # EIO: nobody has the other side open any more
            self._printed = b""
        self._console_open = bool(self._printed)

    def _write_stdout(self) -> None:
        if not self._stdout_open:
            self._printed = b""
            return
        try:
            self._printed = self._printed[os.write(1, self._printed) :]
        except BlockingIOError:
            select.select([], [1], [], 1)
        except OSError:
            self._stdout_open = False  # go on, so that the process does not hang on a full terminal

    def _read_stdin(self) -> None:
        try:
            self._typed = os.read(0, _CHUNK)
        except BlockingIOError:
            return
        except OSError:
            self._typed = b""
        self._stdin_open = bool(self._typed)

    def _write_console(self) -> None:
        try:
            self._typed = self._typed[os.write(self._console, self._typed) :]
        except BlockingIOError:
            pass
        except OSError:
            self._console_open = False
