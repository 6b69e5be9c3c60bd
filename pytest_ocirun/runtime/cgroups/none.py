"""Where no cgroup can be made: a manager that says so, and a cgroup that does nothing.

Responsible for refusing every limit with the reason and the fix. Must not know: how the reason was found.
"""

from __future__ import annotations

from pytest_ocirun.errors import Unsupported

from . import Cgroup, Counters, Manager, limits, tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pytest_ocirun.oci.runtime import Resources

    from . import Refusal

CONTROLLERS = ("memory", "pids", "cpu", "cpuset")


class NoManager(Manager):
    """Makes nothing.

    Args:
        refusal: why.
    """

    def __init__(self, refusal: Refusal) -> None:
        self._refusal = refusal

    def availability(self) -> dict[str, Refusal | None]:
        """Refuse every limit."""
        return dict.fromkeys(CONTROLLERS, self._refusal)

    def device_refusal(self) -> Refusal | None:
        """See ``Manager``."""
        return self._refusal

    def create(
        self,
        path: str | None,
        container_id: str,
        resources: Resources | None,
        *,
        allow_none: bool = False,
        everywhere: bool = False,  # noqa: ARG002 - nothing is made
    ) -> Cgroup:
        """Give a ``NullCgroup`` if that was allowed and nothing was asked for; see ``Manager.create``."""
        tree.resolve(path, container_id)
        asked = [setting.limit for setting in limits.settings_v2(resources) if not setting.optional]
        if resources and resources.devices:
            asked.append("devices")
        if allow_none and not asked:
            return NullCgroup()
        names = " and ".join(dict.fromkeys(asked))
        attempt = f"cannot set {names}" if names else "cannot make a cgroup"
        raise self._refusal.error(f"{attempt} for container {container_id}")

    def prune(self) -> None:
        """Leave all as it is: nothing was made."""


class NullCgroup(Cgroup):
    """No cgroup: the processes stay in the caller's."""

    @property
    def paths(self) -> dict[str, Any]:
        """See ``Cgroup``."""
        return {"version": "none", "dirs": {}, "made": []}

    @property
    def v2_dir(self) -> str | None:
        """None."""
        return None

    def join_files(self) -> list[str]:
        """Nothing to join."""
        return []

    def join(self, pid: int) -> None:
        """Leave ``pid`` where it is."""

    def holds(self, pid: int) -> bool:  # noqa: ARG002 - the answer is the same for all
        """No process is counted."""
        return False

    def child(self, name: str) -> Cgroup:
        """Give another one that does nothing."""
        tree.component(name, "a cgroup")
        return NullCgroup()

    def limit(self, resources: Resources | None, *, undo: bool = False) -> None:  # noqa: ARG002 - nothing is written
        """Refuse any limit."""
        for setting in limits.settings_v2(resources):
            raise self._nothing(f"set {setting.limit} to {setting.asked}")
        if resources and resources.devices:
            raise self._nothing("enforce linux.resources.devices")

    def limits(self) -> dict[str, int | str]:
        """No limit is in force."""
        return {}

    def oom_kills(self) -> int:
        """See ``Cgroup``."""
        return 0

    def counters(self) -> Counters:
        """Nothing is counted."""
        return Counters()

    def processes(self) -> list[int]:
        """Refuse: nobody lists them."""
        raise self._nothing("list processes")

    def kill(self) -> None:
        """Refuse: nothing holds the processes together."""
        raise self._nothing("kill a process tree")

    def wait_empty(self, timeout: float) -> bool:
        """Refuse: nothing tells when the last process is gone."""
        raise self._nothing(f"wait {timeout} s for a process tree")

    def freeze(self) -> None:
        """Refuse."""
        raise self._nothing("pause a container")

    def thaw(self) -> None:
        """Refuse."""
        raise self._nothing("resume a container")

    def remove(self, timeout: float = 5.0) -> None:
        """Remove nothing, at once."""

    @staticmethod
    def _nothing(attempt: str) -> Unsupported:
        return Unsupported(
            f"cannot {attempt}: this container was made without a cgroup",
            hint="make it where cgroups can be had; `ocirun doctor` says what is missing here",
        )
