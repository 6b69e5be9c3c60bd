"""Containers ahead: what was launched twice alike will be launched a third time, so its containers are begun already.

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
    from pytest_ocirun.runtime.child import Child
    from pytest_ocirun.runtime.creation import Creation
    from pytest_ocirun.runtime.order import Order

_KINDS = 2
# One is being built while the other is being used: a build takes longer than a short exec.
_DEPTH = 2


class Begun:
    """A container that was begun.

    Args:
        creation: what the runtime has of it.
        config: its config.
        claimed: the range of host ids claimed for it, if one was.
        prepare_exec: has a process join the container of that id and wait for its first exec.
    """

    __slots__ = ("_child", "_prepare_exec", "claimed", "config", "creation")

    def __init__(
        self, creation: Creation | Order, config: Config, claimed: int | None, prepare_exec: Callable[[str], None]
    ) -> None:
        self._prepare_exec = prepare_exec
        self.creation = creation
        self.config = config
        self.claimed = claimed
        self._child: Child | None = None

    @property
    def is_finished(self) -> bool:
        """Whether it runs and is remembered."""
        return self._child is not None

    def finish(self) -> Child:
        """Its init, as ``Creation.finish`` gives it; a second time the same."""
        if self._child is None:
            self._child = self.creation.finish()
        return self._child

    def finish_if_ready(self) -> bool:
        """Finish it if that takes no waiting; whether there was anything to do."""
        if self._child is not None or not self.creation.is_ready():
            return False
        self.finish()
        self._prepare_exec(self.creation.id)
        return True


class Ahead:
    """The containers begun ahead, a few for each of a few kinds of request.

    The work is done in small pieces by ``work``, which the engine calls while it waits for a process anyway.

    Args:
        begin: begins a container.
        drop: undoes one that was begun.
        failed: told of one that did not come to life and has undone itself.
    """

    def __init__(
        self, begin: Callable[[Request], Begun], drop: Callable[[Begun], None], failed: Callable[[Begun], None]
    ) -> None:
        self._begin = begin
        self._drop = drop
        self._failed = failed
        self._lock = threading.Lock()
        self._waiting: list[tuple[Request, Begun]] = []
        self._last: list[Request] = []
        self._wanted: Request | None = None

    def take(self, request: Request) -> Begun | None:
        """A container begun ahead for a request like this one, if there is one."""
        with self._lock:
            for index, (kind, begun) in enumerate(self._waiting):
                if kind == request:
                    del self._waiting[index]
                    return begun
        return None

    def launched(self, request: Request) -> None:
        """Told of each launch; what was launched before is wanted ahead from now on."""
        # What lies at a path may be replaced between two launches, and a mount made ahead would show the old.
        if request.args or request.fds or request.binds or request.overlays:
            return
        with self._lock:
            if request in self._last:
                self._wanted = request
                if not self._count():
                    self._begin_one()
            else:
                self._last = [*self._last[-_KINDS + 1 :], request]

    def work(self) -> None:
        """Finish one that is ready, and begin one that is wanted: two milliseconds at the most."""
        if self._wanted is None:
            return
        with self._lock:
            for index, (_kind, begun) in enumerate(self._waiting):
                try:
                    if begun.finish_if_ready():
                        break
                except OcirunError:  # it undid itself; the launch that needs one will meet the same and say so
                    del self._waiting[index]
                    self._failed(begun)
                    break
            if self._count() < _DEPTH:
                self._begin_one()

    def close(self) -> None:
        """Undo what nobody took."""
        self._wanted = None
        while self._waiting:
            self._drop(self._waiting.pop()[1])

    def _count(self) -> int:
        return sum(kind == self._wanted for kind, _begun in self._waiting)

    def _begin_one(self) -> None:
        if self._wanted is None:
            return
        try:
            self._waiting.append((self._wanted, self._begin(self._wanted)))
        except (OcirunError, OSError):
            return  # the launch that needs it will meet the same and say so
        if len(self._waiting) > _KINDS * _DEPTH:
            self._drop(self._waiting.pop(0)[1])
