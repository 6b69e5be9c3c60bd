"""The zygote's workshop: containers made whole, from a template, while the client does something else.

``order`` is the client's side, which sends a template once and then, for each container,

    {"op": "make", "slots": [...], "id", "bundle", "template": N, "first": host id or null}

comes with the fd ``reply``, ``null`` (/dev/null, the container's stdio) and, with a template's first container,
``config``: {"config", "first", "size", "holder", "without_cgroup"}. The answer on ``reply`` is an error, or

    {"event": "made", "pid", "start_time", "cgroups"} + pidfd + the client's end of the init's own reply socket
"""

from __future__ import annotations

import os

from pytest_ocirun.errors import KernelRefused, OcirunError, ProtocolError, WrongStatus
from pytest_ocirun.linux import fds
from pytest_ocirun.oci import codec, json_text
from pytest_ocirun.oci.runtime import Config
from pytest_ocirun.runtime.child import Child
from pytest_ocirun.runtime.container import Runtime
from pytest_ocirun.runtime.spawn import failure
from pytest_ocirun.runtime.stdio import Stdio
from pytest_ocirun.runtime.template import Template

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from pytest_ocirun.runtime.creation import Creation
    from pytest_ocirun.runtime.spawn import Plan

    Spawn = Callable[[Plan, dict[str, int], dict[str, Any] | None], None]


class Workshop:
    """What is being made.

    Args:
        root: the state root.
        spawn: the zygote's own ``spawn``.
        forget: tells the zygote that a container has been removed.
    """

    def __init__(self, root: str, spawn: Spawn, forget: Callable[[str], None]) -> None:
        self._runtime = Runtime(_Spawner(spawn, forget), root)
        self._templates: dict[int, Template] = {}
        self._at_work: dict[int, tuple[Creation, int]] = {}  # by the fd that tells when it is ready

    def begin(self, request: dict[str, Any], slots: dict[str, int]) -> int | None:
        """Begin a container; a fd that is readable when there is something to ``advance``, or None if it failed."""
        reply, null = slots["reply"], slots["null"]
        try:
            template = self._template(request["template"], slots.get("config"))
            creation = self._runtime.begin(
                request["id"],
                request["bundle"],
                template.made_for(request["first"]),
                Stdio(null, null, null),
                holder=template.holder,
                start=True,
                without_cgroup=template.without_cgroup,
            )
        except (OSError, OcirunError) as error:
            _answer(reply, failure(None, error), [])
            return None
        finally:
            os.close(null)
        fd = creation.news_fd()
        self._at_work[fd] = (creation, reply)
        return fd

    def holds(self, fd: int) -> bool:
        """Whether ``fd`` is one that ``begin`` gave."""
        return fd in self._at_work

    def advance(self, fd: int) -> bool:
        """Go on with a container that has news; whether it is made or has failed, and ``fd`` is not to be watched."""
        creation, reply = self._at_work[fd]
        try:
            if not creation.is_ready():
                return False
            child = creation.finish()
        except (OSError, OcirunError) as error:
            _answer(reply, failure(None, error), [])
        else:
            message, passed = child.handed_over()
            paths = creation.cgroup.paths if creation.cgroup else None
            _answer(reply, message | {"event": "made", "cgroups": paths}, passed)
            child.close()
            self._runtime.hand_over(creation.id)
        del self._at_work[fd]
        return True

    def _template(self, number: int, config: int | None) -> Template:
        if config is not None:
            document = json_text.loads(fds.read_all(config))
            os.close(config)
            decoded = codec.decode(Config, document.pop("config"))
            self._templates[number] = Template(decoded, **document)
        return self._templates[number]


class _Own(Child):
    """A child whose end this very process will be told by the kernel, so that it cannot wait for the telling."""

    def end(self) -> None:
        """See ``Child``; the zygote reaps it later."""
        try:
            self.wait_spawned()
            self.kill()
            self.wait_ended()
        except (KernelRefused, WrongStatus, ProtocolError):
            pass  # it was never made
        finally:
            self.close()


class _Spawner:
    """The zygote as the spawner of its own runtime."""

    die_with_spawner = True

    def __init__(self, spawn: Spawn, forget: Callable[[str], None]) -> None:
        self._spawn = spawn
        self.forget = forget

    def spawn(self, plan: Plan, slots: dict[str, int], owns: dict[str, Any] | None = None) -> Child:
        """See ``runtime.spawner``."""
        ours, theirs = fds.seqpacket_pair()
        passed = {name: os.dup(fd) for name, fd in slots.items()}
        self._spawn(plan, {**passed, "reply": theirs.detach()}, owns)
        return _Own(ours)

    def remove(self, container_id: str) -> None:
        """Nobody asks this one."""
        raise AssertionError(container_id)

    def make(self, container_id: str, bundle: str, template: Template, first: int | None) -> fds.Socket:
        """Nor for this."""
        raise AssertionError(container_id, bundle, template, first)


def _answer(reply: int, message: dict[str, Any], passed: list[int]) -> None:
    sock = fds.socket_of(reply)
    try:
        fds.send(sock, json_text.dumps(message).encode(), passed)
    except OSError:
        pass  # the client is gone; what was made goes with this zygote
    finally:
        sock.close()
