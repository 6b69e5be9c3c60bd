"""Containers ahead: what was launched twice alike will be launched a third time, so its sandboxes are begun already.

Only containers that hold for execs are begun ahead: they have run nothing when they are handed out, so a container
begun ahead is as fresh as one begun late. A zygote of its own builds them, beside the one that runs execs.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from pytest_ocirun.errors import OcirunError

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_ocirun.engine.request import Request
    from pytest_ocirun.oci.runtime import Config
    from pytest_ocirun.runtime.creation import Creation

_KINDS = 2
# One is being built while the other is being used: a build takes longer than a short exec.
_DEPTH = 2


class Begun:
    """A container that was begun.

    Args:
        creation: what the runtime has of it.
        config: its config.
        claimed: the range of host ids claimed for it, if one was.
    """

    __slots__ = ("claimed", "config", "creation")

    def __init__(self, creation: Creation, config: Config, claimed: int | None) -> None:
        self.creation = creation
        self.config = config
        self.claimed = claimed


class Ahead:
    """The containers begun ahead, a few for each of a few kinds of request.

    Args:
        begin: begins a container.
        drop: undoes one that was begun.
    """

    def __init__(self, begin: Callable[[Request], Begun], drop: Callable[[Begun], None]) -> None:
        self._begin = begin
        self._drop = drop
        self._lock = threading.Lock()
        self._waiting: list[tuple[Request, Begun]] = []
        self._last: list[Request] = []

    def take(self, request: Request) -> Begun | None:
        """A container begun ahead for a request like this one, if there is one."""
        with self._lock:
            for index, (kind, begun) in enumerate(self._waiting):
                if kind == request:
                    del self._waiting[index]
                    return begun
        return None

    def launched(self, request: Request) -> None:
        """Told after each launch; begins the next one if the same was launched before."""
        if request.args or request.fds:
            return
        with self._lock:
            if request in self._last:
                self._fill(request)
            else:
                self._last = [*self._last[-_KINDS + 1 :], request]

    def _fill(self, request: Request) -> None:
        try:
            while sum(kind == request for kind, _begun in self._waiting) < _DEPTH:
                self._waiting.append((request, self._begin(request)))
        except (OcirunError, OSError):
            return  # the launch that needs it will meet the same and say so
        while len(self._waiting) > _KINDS * _DEPTH:
            self._drop(self._waiting.pop(0)[1])

    def close(self) -> None:
        """Undo what nobody took."""
        while self._waiting:
            self._drop(self._waiting.pop()[1])
