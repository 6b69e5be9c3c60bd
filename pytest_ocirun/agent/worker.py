"""The worker: one pytest session that collects what it is told and then runs what the host names, item by item.

Suspect code runs in this process. It is told everything by the host and decides nothing: which item runs next, when
its container ends and what the verdict is are the host's business.
"""

from __future__ import annotations

import io
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pytest_ocirun.agent import wire

_AGENT_ROOT = "/.ocirun"
_STDERR_TAIL = 256 * 1024


def work(channel: wire.Channel) -> int:
    """Serve the host until it says finish; return the exit status of pytest.

    Args:
        channel: the wire to the host, by way of the supervisor.
    """
    _settle_descriptors()
    try:
        import pytest

        from pytest_ocirun.agent import session
    except ImportError as error:
        channel.send({"type": "broken", "reason": "import", "text": str(error)})
        return 70
    _leave_no_trace()
    channel.send({"type": "ready", "python": list(sys.version_info[:3]), "pytest": pytest.__version__})
    order = channel.receive()
    if order is None or order.get("type") != "collect":
        return 0
    return _serve(channel, order, session.Guest(channel, order))


def _serve(channel: wire.Channel, order: dict[str, Any], guest: Any) -> int:
    import pytest

    _extend_path(order["paths"])
    stderr = sys.stderr
    tee = Tee(stderr)
    sys.stderr = tee
    guest.on_configured = lambda: setattr(sys, "stderr", stderr)
    try:
        status = int(pytest.main(order["argv"], plugins=[guest]))
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else 1
    if not guest.answered:
        reason = "usage" if status == 4 else "crash"
        channel.send({"type": "broken", "reason": reason, "text": guest.internal_error or tee.text()})
    return status


def _settle_descriptors() -> None:
    """Standard input and output are /dev/null; standard error stays the host's bounded log."""
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    if null > 2:
        os.close(null)


def _leave_no_trace() -> None:
    """Let the tests import a pytest_ocirun of their own: ours is loaded, and no longer found by name."""
    sys.path[:] = [entry for entry in sys.path if entry != _AGENT_ROOT]
    for name in [name for name in sys.modules if name.partition(".")[0] == "pytest_ocirun"]:
        del sys.modules[name]


def _extend_path(paths: list[str]) -> None:
    """Put the tree's own entries of the host's sys.path where the host had them: in front."""
    sys.path[:0] = [path for path in paths if path not in sys.path]


class Tee(io.TextIOBase):
    """Standard error while pytest configures itself, kept so that the host can show why it could not."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._kept = ""

    def write(self, text: str) -> int:
        """Pass the text on and keep the end of it."""
        self._kept = (self._kept + text)[-_STDERR_TAIL:]
        self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush the stream behind."""
        self._stream.flush()

    def fileno(self) -> int:
        """The descriptor of the stream behind."""
        return int(self._stream.fileno())

    @property
    def encoding(self) -> str | None:  # type: ignore[override]
        """What the stream behind encodes to."""
        return getattr(self._stream, "encoding", None)

    def text(self) -> str:
        """Return the last part of what was written."""
        return self._kept
