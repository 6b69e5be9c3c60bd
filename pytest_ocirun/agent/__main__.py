"""Where a guest begins: splits itself into the supervisor (pid 1) and the worker. Knows neither messages nor pytest.

The host's socket is descriptor 3. The worker is forked first and waits for its first message, so it never holds
that socket and is dumpable like any other process; the supervisor relays nothing before it is not dumpable itself.
"""

from __future__ import annotations

import os
import signal
import socket
import sys

from pytest_ocirun.agent import supervisor, wire, worker

HOST_SOCKET = 3


def main() -> int:
    """Run the guest; return the exit status of whichever process this is at the end."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    host = socket.socket(fileno=HOST_SOCKET)
    host.set_inheritable(False)
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        host.close()
        ours.close()
        os.setsid()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        return worker.work(wire.Channel(theirs, wire.WORKER))
    theirs.close()
    _seal()
    supervisor.Supervisor(host, ours, pid).run()
    return 0


def _seal() -> None:
    """Refuse to go on while the worker could open our memory or take our socket.

    ctypes is imported here and not above: by now the worker imports pytest, and the two overlap.
    """
    try:
        from pytest_ocirun.agent import kernel

        kernel.set_not_dumpable()
    except (ImportError, OSError) as error:
        sys.stderr.write(f"ocirun: the agent cannot protect itself from the tests: {error}\n")
        raise SystemExit(70) from error


if __name__ == "__main__":
    sys.exit(main())
