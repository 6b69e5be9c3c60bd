"""The two spawners, seen from the client: the zygote's socket, or this process itself.

Both offer ``spawn(plan, slots, owns) -> Child``, ``remove(id)`` and ``forget(id)``, which is all that
``runtime.container`` knows of them.
"""

from __future__ import annotations

import os

from pytest_ocirun.errors import OcirunError, ProtocolError, Unsupported
from pytest_ocirun.linux import fds
from pytest_ocirun.oci import json_text
from pytest_ocirun.runtime.child import Child

TYPE_CHECKING = False
if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable
    from typing import Any, Protocol

    from pytest_ocirun.runtime.cgroups.grace import Helper
    from pytest_ocirun.runtime.spawn import Plan
    from pytest_ocirun.runtime.template import Template

    class Spawner(Protocol):
        """Who clones."""

        die_with_spawner: bool

        def spawn(self, plan: Plan, slots: dict[str, int], owns: dict[str, Any] | None = None) -> Child:
            """Have a plan spawned."""

        def remove(self, container_id: str) -> None:
            """Have a container ended and removed."""

        def forget(self, container_id: str) -> None:
            """Be told that a container is gone."""

        def make(self, container_id: str, bundle: str, template: Template, first: int | None) -> fds.Socket:
            """Have a whole container made."""


__tracebackhide__ = True  # in a failed test's traceback the test's own lines are what matters

_DEBUG = "OCIRUN_DEBUG"


class ZygoteClient:
    """The client of a zygote of its own: safe for threads, and for any number of children at once.

    Args:
        root: the state root.
    """

    # A zygote belongs to this process: its children's ends are told to us alone, and it dies with us.
    die_with_spawner = True

    def __init__(self, root: str) -> None:
        import threading

        self._root = root
        self._lock = threading.Lock()
        self._control: fds.Socket | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._closed = False
        self._known: set[int] = set()  # the templates that the zygote has

    def start(self) -> None:
        """Start the zygote without waiting for it: it gets ready while the client goes on."""
        import subprocess

        ours, theirs = fds.seqpacket_pair()
        from pytest_ocirun.runtime import stage

        argv = stage.command("pytest_ocirun.runtime.zygote", str(theirs.fileno()), self._root)
        self._process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=None if _DEBUG in os.environ else subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
            env={},
            cwd="/",
            start_new_session=True,
        )
        theirs.close()
        self._pending = ours

    def is_ready(self) -> bool:
        """Whether it would answer a first request at once."""
        pending: fds.Socket | None = self.__dict__.get("_pending")
        return self._control is not None or (pending is not None and fds.readable(pending.fileno()))

    def spawn(self, plan: Plan, slots: dict[str, int], owns: dict[str, Any] | None = None) -> Child:
        """Have ``plan`` spawned; see ``runtime.spawn``. The fds of ``slots`` stay the caller's.

        Args:
            plan: the plan.
            slots: the fds that it names, without ``reply``.
            owns: what is to be removed if this client dies: ``id`` and what ``remains`` needs.
        """
        ours, theirs = fds.seqpacket_pair()
        plan_fd = fds.memfd("plan", json_text.dumps(plan).encode())
        try:
            names = ["plan", "reply", *slots]
            request = {"op": "spawn", "slots": names, "owns": owns}
            self._send(request, [plan_fd, theirs.fileno(), *slots.values()])
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
            os.close(plan_fd)
        return Child(ours)

    def make(self, container_id: str, bundle: str, template: Template, first: int | None) -> fds.Socket:
        """Have a container made of ``template``; see ``workshop``. The socket given back tells its fate."""
        ours, theirs = fds.seqpacket_pair()
        passed = {"reply": theirs.fileno(), "null": os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)}
        try:
            if template.number not in self._known:
                passed["config"] = fds.memfd("template", _written(template))
            request = {"op": "make", "slots": list(passed), "id": container_id, "bundle": bundle}
            self._send(request | {"template": template.number, "first": first}, list(passed.values()))
            self._known.add(template.number)
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
            for name in passed.keys() - {"reply"}:
                os.close(passed[name])
        return ours

    def remove(self, container_id: str) -> None:
        """Have a container ended and removed; ``Child.wait_removed`` of its init tells when that is done."""
        self._send({"op": "remove", "id": container_id}, [])

    def forget(self, container_id: str) -> None:
        """The container has been deleted; the zygote need not."""
        try:
            self._send({"op": "forget", "id": container_id}, [])
        except ProtocolError:
            pass  # a zygote that has ended remembers nothing

    def close(self) -> None:
        """End the zygote, which ends and removes everything that it made."""
        with self._lock:
            self._closed = True
            control, self._control = self._control or self.__dict__.pop("_pending", None), None
            if control is not None:
                control.close()
            if self._process is not None:
                self._process.wait()
                self._process = None

    def _send(self, request: dict[str, Any], passed: list[int]) -> None:
        with self._lock:
            if self._closed:
                raise ProtocolError("talk to the zygote: it was closed")
            if self._control is None:
                self._connect()
            if self._control is None:
                raise ProtocolError("talk to the zygote: it cannot be reached")
            try:
                fds.send(self._control, json_text.dumps(request).encode(), passed)
            except BrokenPipeError:
                raise ProtocolError("talk to the zygote: it has ended", hint=f"Set {_DEBUG}=1 to see why.") from None

    def _connect(self) -> None:
        """Take the zygote's first message: it is ready, or it says why not."""
        if self._process is None:
            self.start()
        data, _none = fds.receive(self._pending)
        message = json_text.loads(data or b'{"event": "error", "text": "it ended without a word", "hint": null}')
        if message["event"] != "started":
            raise OcirunError(f"start the zygote: {message['text']}", hint=message["hint"])
        self._control = self._pending
        del self._pending


def _written(template: Template) -> bytes:
    from pytest_ocirun.oci import codec

    document = {name: getattr(template, name) for name in ("first", "size", "holder", "without_cgroup")}
    return json_text.dumps({"config": codec.encode(template.config), **document}).encode()


class LocalSpawner:
    """This process clones by itself; for the command line, which is single-threaded and stands on the stage.

    Args:
        before_waiting: as ``Child`` takes it.
        helper: stopped once a process has been moved into its cgroups (``cgroups.grace``).

    Attributes:
        usher: the memory file of an usher for the next process; None on the stage, where none is needed.
    """

    die_with_spawner = False

    def __init__(self, before_waiting: Callable[[int], None] | None = None, helper: Helper | None = None) -> None:
        self._before_waiting = before_waiting
        self._helper = helper
        self.usher: int | None = None

    def spawn(self, plan: Plan, slots: dict[str, int], owns: dict[str, Any] | None = None) -> Child:
        """As ``ZygoteClient.spawn``; nobody but the caller cleans up, so ``owns`` only names what will be."""
        from pytest_ocirun.runtime.overlap import overlap
        from pytest_ocirun.runtime.spawn import spawn

        del owns
        ours, theirs = fds.seqpacket_pair()
        plan = overlap(plan)
        passed = {name: os.dup(fd) for name, fd in slots.items()}
        if any(step[0] == "move_devices" for step in plan["outside"]):
            from pytest_ocirun.runtime import net_devices

            net_devices.hold()
        if self.usher is not None:
            from pytest_ocirun.runtime.usher import adapt

            plan = adapt(plan)
            passed["usher"] = self.usher
        spawn(plan, {**passed, "reply": theirs.fileno()})
        theirs.close()
        if self._helper is not None:
            self._helper.stop()
        return Child(ours, local=True, before_waiting=self._before_waiting)

    def remove(self, container_id: str) -> None:
        """Nothing is remembered here, so nothing can be removed by id alone.

        Raises:
            Unsupported: always.
        """
        raise Unsupported(f"remove container {container_id}: this process made it and removes it itself")

    def forget(self, container_id: str) -> None:
        """Nothing is remembered here."""
        del container_id

    def make(self, container_id: str, bundle: str, template: Template, first: int | None) -> fds.Socket:
        """There is nobody else to make it meanwhile.

        Raises:
            Unsupported: always.
        """
        del bundle, template, first
        raise Unsupported(f"have container {container_id} made meanwhile: this process makes containers itself")
