"""The life cycle of a container: create, start, exec, kill, delete, state. Source: runtime-spec runtime.md.

Each operation is a few lines over ``state`` (the directory), ``plan`` (what to do) and a spawner (who does it). Must
not know images, networks, or what the process is for.
"""

from __future__ import annotations

import os

from pytest_ocirun.errors import HookFailed, WrongStatus
from pytest_ocirun.linux import proc
from pytest_ocirun.runtime import init, state

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from pytest_ocirun.oci.process import Process
    from pytest_ocirun.oci.runtime import Config, Seccomp
    from pytest_ocirun.runtime.cgroups import Cgroup, Manager
    from pytest_ocirun.runtime.child import Child
    from pytest_ocirun.runtime.creation import Creation
    from pytest_ocirun.runtime.hook_points import Points
    from pytest_ocirun.runtime.joining import Joining
    from pytest_ocirun.runtime.order import Order
    from pytest_ocirun.runtime.plan import Surroundings
    from pytest_ocirun.runtime.record import Record
    from pytest_ocirun.runtime.seccomp import Program
    from pytest_ocirun.runtime.spawn import Plan
    from pytest_ocirun.runtime.spawner import Spawner
    from pytest_ocirun.runtime.state import Directory
    from pytest_ocirun.runtime.stdio import Stdio
    from pytest_ocirun.runtime.template import Template

__tracebackhide__ = True  # in a failed test's traceback the test's own lines are what matters


class Runtime:
    """The operations, for one state root and one spawner.

    Args:
        spawner: who clones.
        root: the state root.
        joiner: who clones what joins a container, if not ``spawner`` too.
        manager: makes cgroups; found out when first needed if not given.
        cache: directory of compiled seccomp filters.
        debug: told each sentence of a plan before it is done.
        run_hooks: runs hooks in the runtime's namespaces, as ``hooks.run`` does in this process's.
        warn: told what is odd but no error.
        change: changes the plan of a container, as ``less_isolation`` does.
    """

    def __init__(
        self,
        spawner: Spawner,
        root: str,
        *,
        joiner: Spawner | None = None,
        manager: Manager | None = None,
        cache: str = "",
        debug: Any = None,
        run_hooks: Callable[..., None] | None = None,
        warn: Callable[[str], None] | None = None,
        change: Callable[[Plan], Plan] | None = None,
    ) -> None:
        self.root = root
        self._spawner = spawner
        self._manager = manager
        self._cache = cache or f"{root}/@seccomp"
        self._debug = debug
        self._joiner = joiner or spawner
        self._joins: Joining | None = None
        self._run_hooks = run_hooks
        self._warn = warn
        self._change = change
        self._records: dict[str, Record] = {}
        self._makers: dict[str, Spawner] = {}  # of what was ordered
        self._programs: dict[int, tuple[Seccomp, Program]] = {}

    def create(
        self,
        container_id: str,
        bundle: str,
        config: Config,
        stdio: Stdio,
        *,
        holder: bool = False,
        start: bool = False,
        without_cgroup: bool = False,
    ) -> Child:
        """Create a container: its init waits for ``start``, unless it is to start by itself.

        Args:
            container_id: a new id.
            bundle: absolute path of the bundle.
            config: its validated config.
            stdio: what the process gets.
            holder: run the holder instead of ``process.args``.
            start: let it start at once; then this returns when its program runs.
            without_cgroup: go on without cgroups where none can be had and no limit is asked for.

        Returns:
            The init; ``console`` is the pty master if the process has a terminal.

        Raises:
            ContainerExists: the id is taken.
            ConfigError, Unsupported, KernelRefused: it cannot be made; nothing is left behind.
        """
        return self.begin(
            container_id, bundle, config, stdio, holder=holder, start=start, without_cgroup=without_cgroup
        ).finish()

    def begin(
        self,
        container_id: str,
        bundle: str,
        config: Config,
        stdio: Stdio,
        *,
        holder: bool = False,
        start: bool = False,
        without_cgroup: bool = False,
    ) -> Creation:
        """Begin to create a container and do not wait: the spawner works on while the caller does something else.

        Args and errors are those of ``create``; what the spawner meets is raised by ``Creation.finish``.
        """
        from pytest_ocirun.runtime import allotment
        from pytest_ocirun.runtime.creation import Creation
        from pytest_ocirun.runtime.plan import surroundings
        from pytest_ocirun.runtime.record import describe

        creation = Creation(self, state.make(self.root, container_id), config, bundle)
        try:
            known = {**describe(container_id, bundle, config), "pid": 0, "start_time": 0, "maker": proc.own()}
            creation.directory.write(known)
            creation.cgroup = allotment.make(self._cgroups(), container_id, config, allow_none=without_cgroup)
            if stdio.directory:
                os.mkdir(stdio.directory, 0o755, dir_fd=creation.directory.fd)
            if config.linux.cgroups_path:
                known["cgroups"] = creation.cgroup.paths
                creation.directory.write(known)
            creation.program = self.program(config.linux.seccomp)
            around = surroundings(container_id, creation.cgroup, self._spawner, stdio, bundle=bundle)
            around.holder, around.autostart = holder, start
            around.directory = creation.directory.path
            around.cgroups = creation.shown_cgroups()
            self._spawn_init(creation, stdio, around)
        except BaseException as error:
            creation.undo(error)
            raise
        return creation

    def order(
        self, container_id: str, bundle: str, template: Template, first: int | None, *, maker: Spawner | None = None
    ) -> Order:
        """Have the zygote make a started container by itself; ``Order.finish`` has it.

        Args:
            container_id: a new id.
            bundle: absolute path of the bundle.
            template: what it is like.
            first: the first host id of its range; None for the template's.
            maker: the zygote, if not ``spawner``.
        """
        program = self.program(template.config.linux.seccomp)
        maker = self._makers[container_id] = maker or self._spawner
        reply = maker.make(container_id, bundle, template, first)
        from pytest_ocirun.runtime.order import Order

        return Order(self, container_id, template.made_for(first), program, reply)

    def start(self, container_id: str) -> None:
        """Start a created container; returns when its program runs.

        Raises:
            WrongStatus: it is not created.
            KernelRefused: the program cannot be executed; the container is stopped then.
            HookFailed: a startContainer or poststart hook failed; the container is deleted then.
        """
        with state.open_existing(self.root, container_id) as directory:
            document = directory.read()
            status = directory.status(document)
            if status != state.CREATED:
                raise WrongStatus(f"start container {container_id}: it is {status}, not created")
            connection = init.start(directory)
        # Without the lock: the init may be stopped, hooks may run for long, or ask about the container.
        error = init.await_start(connection, container_id)
        try:
            if error is not None:
                raise error
            if document["config"].get("hooks"):
                self.hook_points(document).start(document["pid"])
        except HookFailed as failed:
            from pytest_ocirun.runtime import deletion

            deletion.destroy(self, container_id, failed)
            raise

    def exec(
        self,
        container_id: str,
        process: Process,
        stdio: Stdio,
        *,
        tree: str | None = None,
        below: dict[str, str] | None = None,
        record: Record | None = None,
    ) -> tuple[Child, Cgroup | None]:
        """Run one more process in a created or running container.

        Args:
            container_id: the container.
            process: what to run.
            stdio: what it gets.
            tree: the name of a cgroup of its own below the container's, to end the whole process tree by.
            below: cgroups below the container's that are there already, as ``cgroups.below`` takes them.
            record: what ``record`` gave, if the caller has asked for it just now.

        Returns:
            The process, and its cgroup if ``tree`` was given and there are cgroups.

        Raises:
            WrongStatus: the container does not run.
        """
        record = self._running(container_id, record)
        record.note_exec(self.root, process)
        return self._joining().run(record, process, stdio, tree=tree, below=below)

    def prepare_exec(self, container_id: str) -> None:
        """Have a process join a container already and wait for the next ``exec``; does not wait for it.

        Raises:
            WrongStatus: the container does not run.
        """
        self._joining().prepare(self._running(container_id))

    def kill(self, container_id: str, number: int) -> None:
        """Send a signal to a container's init.

        Raises:
            WrongStatus: it has stopped.
        """
        init.signal(self.root, container_id, number)

    def delete(self, container_id: str, *, force: bool = False) -> None:
        """Delete a stopped or created container, with ``force`` a running one too.

        Raises:
            WrongStatus: it runs and ``force`` is false; nothing was done.
        """
        record = self._records.get(container_id)
        known = None if record is None else record.cgroup
        from pytest_ocirun.runtime import deletion

        document = deletion.delete(self.root, container_id, force=force, known=known, manager=self._cgroups)
        self.forget(container_id)
        if document.get("config", {}).get("hooks"):
            self.hook_points(document).stop()

    def remove(self, container_id: str) -> None:
        """Have the zygote end and remove a container that it made; its init's ``wait_removed`` tells when it has."""
        self._records.pop(container_id, None)
        if self._joins is not None:
            self._joins.drop(container_id)
        self._makers.pop(container_id, self._spawner).remove(container_id)

    def state(self, container_id: str) -> dict[str, Any]:
        """The state of a container as the runtime-spec defines it, with rootfs, created and owner as runc adds."""
        from pytest_ocirun.runtime import survey

        return survey.one(self.root, container_id)

    def is_orphan(self, container_id: str) -> bool:
        """Whether a container was to end with its maker, and the maker is dead. Does not wait for its lock."""
        try:
            with state.open_existing(self.root, container_id, wait=False) as directory:
                document = directory.read()
        except BlockingIOError:
            return False  # somebody alive is at work on it, perhaps for long: a container begun ahead stays locked
        if "maker" not in document:
            return True  # nobody held the lock, so its maker died before it wrote anything; a living one begins again
        return not document.get("stays", False) and not proc.is_alive(*document["maker"])

    def record(self, container_id: str) -> Record:
        """What is known of a container.

        Raises:
            WrongStatus: it is still being created.
        """
        if container_id in self._records:
            return self._records[container_id]
        with state.open_existing(self.root, container_id) as directory:
            document = directory.read()
            if directory.status(document) == state.CREATING:
                raise WrongStatus(f"use container {container_id}: it is still being created")
            from pytest_ocirun.runtime.record import Record

            return Record.load(directory, document)

    def _joining(self) -> Joining:
        if self._joins is None:
            from pytest_ocirun.runtime.joining import Joining

            self._joins = Joining(self._joiner, self._print, self.state)
        return self._joins

    def _running(self, container_id: str, record: Record | None = None) -> Record:
        record = record or self.record(container_id)
        if not proc.is_alive(*record.init):
            raise WrongStatus(
                f"exec in container {container_id}: it is stopped; exec needs a container that is created or running"
            )
        return record

    def _spawn_init(self, creation: Creation, stdio: Stdio, around: Surroundings) -> None:
        from pytest_ocirun.runtime import plan
        from pytest_ocirun.runtime.record import add_filter
        from pytest_ocirun.runtime.stdio import slots_for

        config, directory = creation.config, creation.directory
        slots = slots_for(config.process, config, stdio)
        own: list[int] = []  # of the slots, those that are ours to close
        try:
            if not around.autostart:
                slots["listen"] = init.listen(directory).detach()
                creation.waits = True
                own.append(slots["listen"])
            elif not around.holder:
                creation.started, slots["started"] = os.pipe2(os.O_CLOEXEC)
                own.append(slots["started"])
            # The holder makes one system call; what joins it later is filtered.
            own += add_filter(None if around.holder else creation.program, around, slots)
            made = plan.container_plan(config, around)
            made = self._change(made) if self._change else made
            self._print(made)
            paths = creation.cgroup.paths if creation.cgroup else None
            pids = config.linux.namespace("pid")
            shares_pids = pids is None or bool(pids.path)
            owns = {"id": directory.id, "cgroups": paths, "shares_pids": shares_pids, "state": directory.path}
            creation.child = self._spawner.spawn(made, slots, owns)
        finally:
            for fd in own:
                os.close(fd)

    def created(self, record: Record, directory: Directory, bundle: str) -> None:
        """Remember a container whose init is ready; for ``Creation``."""
        record.save(directory, bundle, maker=proc.own(), stays=not self._spawner.die_with_spawner)
        self.remember(record)

    def remember(self, record: Record) -> None:
        """Keep what is known of a container that others made and saved; for ``Order``."""
        self._records[record.id] = record

    def hook_points(self, document: dict[str, Any]) -> Points:
        """The hooks that ``document`` has, as ``record`` describes a container."""
        from pytest_ocirun.runtime.hook_points import Points

        return Points(document, self._run_hooks, self._warn)

    def hand_over(self, container_id: str) -> None:
        """Forget a container that from here on is another process's; for ``Workshop``."""
        del self._records[container_id]

    def forget(self, container_id: str) -> None:
        """Forget a container that is gone."""
        self._records.pop(container_id, None)
        if self._joins is not None:
            self._joins.drop(container_id)
        self._makers.pop(container_id, self._spawner).forget(container_id)

    def program(self, seccomp: Seccomp | None) -> Program | None:
        """The compiled filter; one document is compiled once, since a client uses it for every container."""
        if seccomp is None:
            return None
        if id(seccomp) not in self._programs:
            from pytest_ocirun.runtime.seccomp import load_or_compile

            self._programs[id(seccomp)] = (seccomp, load_or_compile(seccomp, self._cache))
        return self._programs[id(seccomp)][1]

    def _cgroups(self) -> Manager:
        if self._manager is None:
            from pytest_ocirun.runtime.cgroups import detect

            self._manager = detect.manager()
        return self._manager

    def _print(self, made: Plan) -> None:
        if self._debug is not None:
            from pytest_ocirun.runtime import plan, spawn  # noqa: F401 - it registers the operations and their sentences

            for sentence in plan.describe_plan(made):
                self._debug(sentence)
