"""A container that the zygote makes whole by itself, seen from the client; ``workshop`` is the other side.

The counterpart of ``creation``, with the same methods: there the client makes the state directory and the cgroup, works
out the plan and waits; here all of that is the zygote's, and the client has a message to send and one to take.
"""

from __future__ import annotations

from pytest_ocirun.errors import OcirunError
from pytest_ocirun.linux import fds
from pytest_ocirun.oci import json_text
from pytest_ocirun.runtime.child import Child, refused
from pytest_ocirun.runtime.record import Filter, Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pytest_ocirun.oci.runtime import Config
    from pytest_ocirun.runtime.container import Runtime
    from pytest_ocirun.runtime.seccomp import Program

__tracebackhide__ = True  # in a failed test's traceback the test's own lines are what matters


class Order:
    """See the module. Made by ``Runtime.order``.

    Args:
        runtime: whose it is.
        container_id: the container's id.
        config: the container's config.
        program: its compiled system call filter.
        reply: where the zygote tells what has become of it.
    """

    __slots__ = ("_program", "_reply", "_runtime", "config", "id")

    def __init__(
        self, runtime: Runtime, container_id: str, config: Config, program: Program | None, reply: fds.Socket
    ) -> None:
        self._runtime = runtime
        self._program = program
        self._reply = reply
        self.id = container_id
        self.config = config

    def finish(self) -> Child:
        """Wait until the container runs, and remember it.

        Raises:
            KernelRefused: it could not be made; nothing is left behind.
            ProtocolError: the zygote has ended.
        """
        from pytest_ocirun.runtime.cgroups import Cgroup

        try:
            data, received = fds.receive(self._reply)
        finally:
            self._reply.close()
        message = json_text.loads(data or b'{"event": "error", "step": null, "text": "it has ended", "errno": 0}')
        if message["event"] == "error":
            raise refused(
                {"step": f"make container {self.id} in the zygote", "path": None, "operation": None} | message
            )
        child = Child.adopt(message, received)
        cgroup = Cgroup.from_paths(message["cgroups"])
        init = (child.pid, child.start_time)
        loaded = Filter.of(self._program, self.config.linux.seccomp)
        self._runtime.remember(Record(self.id, self.config, init, cgroup, loaded))
        return child

    def is_ready(self) -> bool:
        """Whether ``finish`` has nothing to wait for."""
        return fds.readable(self._reply.fileno())

    def undo(self) -> None:
        """Have it ended and removed, as soon as it is made."""
        try:
            child = self.finish()
        except OcirunError:
            return  # it was never made
        self._runtime.remove(self.id)
        child.wait_removed()
        child.close()
