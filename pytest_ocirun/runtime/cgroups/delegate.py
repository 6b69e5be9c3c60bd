"""Where in the v2 hierarchy cgroups may be made by whom.

Responsible for: finding the place, saying what can be had there and why not, and moving the caller into a
leaf when its own cgroup is the place. Must not know: containers, limits.

Whoever may write at the real root (root on the host) works there. Everybody else needs a cgroup that is
writable: its directory, its ``cgroup.procs`` (a process moves only if the mover may write the common
ancestor's, cgroup-v2.rst "Delegation Containment") and its ``cgroup.subtree_control``. Of the caller's own
cgroup and those above it the nearest that offers most of memory, pids and cpu is taken:

- one that hands down controllers already offers these (systemd's ``user@UID.service`` and what is below it);
- one without processes offers all that it has itself;
- the caller's own, if nobody else lives in it, offers the same: the caller moves into ``ocirun-self`` below
  it, at the first container, and stays there;
- any other offers none, but a process tree can still be killed and waited for there.
"""

from __future__ import annotations

import os

from . import Refusal, knobs, tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

LEAF = "ocirun-self"
_SCORED = ("memory", "pids", "cpu")
_SCOPE = "systemd-run --user --scope -p Delegate=yes -- COMMAND"


class Place:
    """A cgroup below which containers' cgroups may be made.

    Args:
        base: its directory.
        offered: the controllers that cgroups below can have.
        present: the controllers that it has itself.
        movers: the processes that must go to a leaf first.
        privileged: whether it is the real root of the hierarchy.
    """

    __slots__ = ("base", "movers", "offered", "present", "privileged")

    def __init__(self, base: str, offered: set[str], present: set[str], movers: list[int], *, privileged: bool) -> None:
        self.base = base
        self.offered = offered
        self.present = present
        self.movers = movers
        self.privileged = privileged

    def refusal(self, controller: str) -> Refusal | None:
        """Say why ``controller`` cannot be had here, or None if it can."""
        if controller in self.offered:
            return None
        if self.privileged:
            return Refusal(
                f"cgroup v2 at {self.base} has no {controller} controller",
                "boot a kernel with it, without cgroup_disable= or cgroup v1 taking it",
            )
        if controller in self.present:
            return Refusal(
                f"the cgroup {self.base} holds other processes, so it can hand no controllers down",
                f"start the command in a cgroup of its own: {_SCOPE}",
            )
        return Refusal(
            f"the {controller} controller is not delegated to {self.base}",
            f"delegate it: as root, `systemctl edit user@{os.geteuid()}.service` with the lines "
            "[Service] and Delegate=cpu cpuset io memory pids; then log in again",
        )

    def settle(self) -> None:
        """Move the movers into a leaf, once, so that the place can hand controllers down.

        Raises:
            KernelRefused: the leaf cannot be made or joined.
        """
        if not self.movers:
            return
        leaf = f"{self.base}/{LEAF}"
        tree.Made().mkdir(leaf)
        for pid in self.movers:
            tree.join(f"{leaf}/cgroup.procs", pid)
        self.movers = []


def find_place(mount: str, own: str | None, family: tuple[int, ...]) -> Place | Refusal:
    """Find the place for new cgroups, without changing anything.

    Args:
        mount: where the v2 hierarchy is mounted.
        own: the directory of the caller's own cgroup, if it is visible.
        family: other pids that may be moved along with the caller, if its own cgroup is the place.
    """
    if not os.path.exists(f"{mount}/cgroup.type") and _writable(mount):
        present = _words(f"{mount}/cgroup.controllers")
        return Place(mount, present, present, [], privileged=True)
    best: Place | None = None
    for directory in _upwards(own or mount, mount):
        place = _examine(directory, family)
        if place is not None and (best is None or _score(place) > _score(best)):
            best = place
    return best or _nowhere(mount, own)


def _score(place: Place) -> int:
    return len(place.offered.intersection(_SCORED))


def _examine(directory: str, family: tuple[int, ...]) -> Place | None:
    if not _writable(directory) or "thread" in (knobs.read_or_none(f"{directory}/cgroup.type") or ""):
        return None
    present = _words(f"{directory}/cgroup.controllers")
    enabled = _words(f"{directory}/cgroup.subtree_control")
    inhabitants = [int(pid) for pid in _words(f"{directory}/cgroup.procs")]
    if not inhabitants:
        return Place(directory, present, present, [], privileged=False)
    if enabled.intersection(_SCORED) >= present.intersection(_SCORED):
        return Place(directory, enabled, present, [], privileged=False)
    if {os.getpid(), *family}.issuperset(inhabitants):
        return Place(directory, present, present, inhabitants, privileged=False)
    return Place(directory, enabled, present, [], privileged=False)


def _writable(directory: str) -> bool:
    names = ("", "/cgroup.procs", "/cgroup.subtree_control")
    return all(os.access(directory + name, os.W_OK, effective_ids=True) for name in names)


def _upwards(directory: str, mount: str) -> Iterator[str]:
    """Go from a cgroup up to the top, but past the leaf that an earlier caller made to live in."""
    while directory.startswith(mount):
        if os.path.basename(directory) != LEAF:
            yield directory
        if directory == mount:
            return
        directory = os.path.dirname(directory)


def _words(path: str) -> set[str]:
    return set((knobs.read_or_none(path) or "").split())


def _nowhere(mount: str, own: str | None) -> Refusal:
    if os.access(mount, os.R_OK) and os.statvfs(mount).f_flag & os.ST_RDONLY:
        return Refusal(
            f"cgroup v2 is mounted read-only at {mount}",
            "inside another container, start that one with a writable cgroup namespace of its own "
            "(docker run --privileged --cgroupns=private, podman run --security-opt unmask=/sys/fs/cgroup)",
        )
    if os.geteuid() == 0:
        return Refusal(
            f"no cgroup from {own or 'the unseen own one'} up to {mount} can be written",
            "run as root of the host, or have the cgroup delegated (chown of it, its cgroup.procs and "
            "cgroup.subtree_control)",
        )
    return Refusal(
        f"no cgroup from {own or 'the unseen own one'} up to {mount} is delegated to uid {os.geteuid()}",
        f"start the command in a cgroup of its own: {_SCOPE}",
    )
