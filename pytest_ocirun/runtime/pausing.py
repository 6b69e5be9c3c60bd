"""Making a container's processes stand still, and letting them go on.

Responsible for who may be paused and resumed. Must not know: which freezer does it (``cgroups``), who asks.
"""

from __future__ import annotations

from pytest_ocirun.errors import Unsupported, WrongStatus
from pytest_ocirun.linux import pidfd
from pytest_ocirun.runtime import state
from pytest_ocirun.runtime.cgroups import Cgroup
from pytest_ocirun.runtime.freezer import holds_killed, is_frozen

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pytest_ocirun.runtime.freezer import Paths


def pause(root: str, container_id: str) -> None:
    """Freeze every process of a created or running container; returns when all stand still.

    Raises:
        ContainerNotFound: there is no such container.
        WrongStatus: it is neither created nor running.
        Unsupported: it has no freezer of its own.
        KernelRefused: not all stood still in time; they run again.
    """
    with state.open_existing(root, container_id) as directory:
        document = directory.read()
        status = directory.status(document)
        if status not in (state.CREATED, state.RUNNING):
            raise WrongStatus(f"pause container {container_id}: container not running: it is {status}")
        paths = document["cgroups"]
        if not set(paths["dirs"].values()).issubset(paths["made"]):
            raise Unsupported(
                f"pause container {container_id}: its cgroup was there before it, and may hold other processes",
                hint="Give the container a cgroupsPath of its own.",
            )
        Cgroup.from_paths(paths).freeze()


def resume(root: str, container_id: str) -> None:
    """Let a paused container go on.

    Raises:
        ContainerNotFound: there is no such container.
        WrongStatus: it is not paused.
    """
    with state.open_existing(root, container_id) as directory:
        document = directory.read()
        status = directory.status(document)
        if status != state.PAUSED:
            raise WrongStatus(f"resume container {container_id}: container not paused: it is {status}")
        Cgroup.from_paths(document["cgroups"]).thaw()


def signalled(paths: Paths, number: int) -> None:
    """A frozen container's init was sent a signal: after SIGKILL it must not be kept from dying of that."""
    if number == pidfd.SIGKILL:
        let_die(paths)


def let_die(paths: Paths) -> None:
    """Thaw what was sent SIGKILL while it was frozen, where the freezer keeps it from dying of that."""
    if holds_killed(paths) and is_frozen(paths):
        Cgroup.from_paths(paths).thaw()
