"""A container between the moment its spawner was told and the moment its init is ready.

It holds the lock of the container's directory, so nobody else starts or deletes what is not whole yet; and it knows
how to undo everything that there is so far.
"""

from __future__ import annotations

import os

from pytest_ocirun.errors import OcirunError
from pytest_ocirun.runtime import remains
from pytest_ocirun.runtime.record import Filter, Record, describe

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pytest_ocirun.oci.runtime import Config
    from pytest_ocirun.runtime.cgroups import Cgroup
    from pytest_ocirun.runtime.child import Child
    from pytest_ocirun.runtime.container import Runtime
    from pytest_ocirun.runtime.hook_points import Points
    from pytest_ocirun.runtime.seccomp import Program
    from pytest_ocirun.runtime.state import Directory

__tracebackhide__ = True  # in a failed test's traceback the test's own lines are what matters


class Creation:
    """See the module. Made by ``Runtime.begin``, which fills in what it has made.

    Args:
        runtime: whose it is.
        directory: the container's directory, new and locked.
        config: the container's config.
        bundle: absolute path of its bundle.
    """

    __slots__ = ("_bundle", "_runtime", "cgroup", "child", "config", "directory", "program", "started", "waits")

    def __init__(self, runtime: Runtime, directory: Directory, config: Config, bundle: str) -> None:
        self._runtime = runtime
        self._bundle = bundle
        self.directory = directory
        self.config = config
        self.cgroup: Cgroup | None = None
        self.program: Program | None = None
        self.child: Child | None = None
        self.started: int | None = None
        self.waits = False

    def shown_cgroups(self) -> list[list[str]]:
        """What the container's cgroup mount shows, if it has one."""
        if self.cgroup is None or not any(mount.type in ("cgroup", "cgroup2") for mount in self.config.mounts):
            return []
        from pytest_ocirun.runtime.cgroup_view import hierarchies

        return hierarchies(self.config, self.cgroup)

    @property
    def id(self) -> str:
        """The container's id."""
        return self.directory.id

    def news_fd(self) -> int:
        """A fd that is readable when ``is_ready`` may have another answer."""
        return -1 if self.child is None else self.child.reply_fd()

    def finish(self) -> Child:
        """Wait until the container is created (and runs, if it starts by itself), and remember it.

        Raises:
            KernelRefused, ProtocolError: it could not be made; nothing is left behind.
        """
        try:
            if self.child is None or self.cgroup is None:
                raise OcirunError(f"finish container {self.directory.id}: its spawner was never told")  # noqa: TRY301
            hooks = self.config.hooks
            if hooks.prestart or hooks.create_runtime:
                self.child.on_mounted = self._run_hooks
            kept = Filter.of(self.program, self.config.linux.seccomp)
            if kept is not None and kept.listener is not None:
                from pytest_ocirun.runtime import listener

                listener.attach(self.child, kept.listener, describe(self.directory.id, self._bundle, self.config))
            self.child.wait_ready()
            if self.started is not None:
                self.child.wait_started(self.started)
            init = (self.child.pid, self.child.start_time)
            record = Record(self.directory.id, self.config, init, self.cgroup, kept)
            self._runtime.created(record, self.directory, self._bundle)
            if self.config.linux.net_devices:
                self._settle_devices(made=True)
            if self.waits:
                self.child.keep()
            if self.started is not None and hooks.poststart:
                self._points().start(self.child.pid)
        except BaseException as error:
            self.undo(error)
            raise
        self._close()
        return self.child

    def _settle_devices(self, *, made: bool) -> None:
        """Leave the network devices to the container, or take them back; only where they were moved by us."""
        from pytest_ocirun.runtime import net_devices

        if self.child is not None:
            (net_devices.settle if made else net_devices.give_back)(self.child.pid)

    def is_ready(self) -> bool:
        """Whether ``finish`` has nothing to wait for."""
        return self.child is not None and self.child.is_ready()

    def undo(self, error: BaseException | None = None) -> None:
        """End and remove all that there is; what cannot be removed becomes a note of ``error``."""
        try:
            if self.child is not None:
                self.child.end()
            if self.config.linux.net_devices:
                self._settle_devices(made=False)
            if self.cgroup is not None:
                self.cgroup.remove()
            remains.remove_tree(self.directory.path)
            self._runtime.forget(self.directory.id)
            if self.child is not None and self.config.hooks.poststop:
                self._points().stop()
        except (OSError, OcirunError) as left:
            if error is None:
                raise
            error.add_note(f"undoing it failed too: {left}")
        finally:
            self._close()

    def _run_hooks(self) -> None:
        if self.child is not None:
            self._points().create(self.child.pid)

    def _points(self) -> Points:
        return self._runtime.hook_points(describe(self.directory.id, self._bundle, self.config))

    def _close(self) -> None:
        self.directory.close()
        if self.started is not None:
            os.close(self.started)
            self.started = None
