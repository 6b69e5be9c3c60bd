"""The zygotes that build containers: one from the start; with cores for it, one more for containers ahead.

A container takes a zygote longer to build and to remove than a short test takes to use it.
"""

from __future__ import annotations

import os

from pytest_ocirun.runtime.spawner import ZygoteClient

_CORES = 4


class Builders:
    """See the module.

    Args:
        root: the state root.
    """

    def __init__(self, root: str) -> None:
        self._root = root
        self.first = ZygoteClient(root)
        self.first.start()
        self._second: ZygoteClient | None = None
        self._turn = 0

    def choose(self) -> ZygoteClient:
        """The one whose turn it is to build ahead; the second is started at the first call, and used once it is up."""
        if self._second is None:
            if len(os.sched_getaffinity(0)) < _CORES:
                return self.first
            self._second = ZygoteClient(self._root)
            self._second.start()
        self._turn += 1
        return self._second if self._turn % 2 and self._second.is_ready() else self.first

    def all(self) -> list[ZygoteClient]:
        """Those that have been started."""
        return [self.first] if self._second is None else [self.first, self._second]
