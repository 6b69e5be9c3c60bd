"""The life cycle of a container: create, start, exec, kill, delete, state. Source: runtime-spec runtime.md.

Each operation is a few lines over ``state`` (the directory), ``plan`` (what to do) and a spawner (who does it). Must not know
images, networks, or what the process is for.
"""

from __future__ import annotations

import _socket
import os
import time

from pytest_ocirun.errors import KernelRefused, OcirunError, WrongStatus
from pytest_ocirun.linux import fds, proc, sched
from pytest_ocirun.oci import codec
from pytest_ocirun.oci.runtime import Config
from pytest_ocirun.runtime import remains, state
from pytest_ocirun.runtime.cgroups import Cgroup
from pytest_ocirun.runtime.plan import Surroundings, container_plan, describe_plan, exec_plan

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Protocol

    from pytest_ocirun.oci.process import Process
    from pytest_ocirun.runtime.cgroups import Manager
    from pytest_ocirun.runtime.child import Child
    from pytest_ocirun.runtime.spawn import Plan
    from pytest_ocirun.runtime.state import Directory

    class Spawner(Protocol):
        """Who clones; see ``runtime.spawner``."""

        die_with_spawner: bool

        def spawn(self, plan: Plan, slots: dict[str, int], owns: dict[str, Any] | None = None) -> Child: ...
        def forget(self, container_id: str) -> None: ...


class Stdio:
    """The fds that a process gets: three for stdio, or none with a terminal, and others by number.

    Args:
        stdin: becomes fd 0.
        stdout: becomes fd 1.
        stderr: becomes fd 2.
        extra: target number (from 3 on) to one of our fds.
    """

    __slots__ = ("extra", "stderr", "stdin", "stdout")

    def __init__(self, stdin: int, stdout: int, stderr: int, extra: dict[int, int] | None = None) -> None:
        self.stdin = stdin
        self.stdout = stdout
        self.stderr = stderr
        self.extra = extra or {}

    def slots(self) -> dict[str, int]:
        """The fds by the slot names of ``runtime.plan``."""
        named = {"stdio0": self.stdin, "stdio1": self.stdout, "stdio2": self.stderr}
        return named | {f"fd{number}": fd for number, fd in self.extra.items()}


class Runtime:
    """The operations, for one state root and one spawner.

    Args:
        spawner: who clones.
        root: the state root.
        manager: makes cgroups; found out when first needed if not given.
        cache: directory of compiled seccomp filters.
        debug: told each sentence of a plan before it is done.
    """

    def __init__(
        self,
        spawner: Spawner,
        root: str,
        *,
        manager: Manager | None = None,
        cache: str = "",
        debug: Any = None,  # noqa: ANN401 - a callable; typing is not imported here
    ) -> None:
        self.root = root
        self._spawner = spawner
        self._manager = manager
        self._cache = cache or f"{root}/@seccomp"
        self._debug = debug

    def create(  # noqa: PLR0913 - what a create is made of
        self,
        container_id: str,
        bundle: str,
        config: Config,
        stdio: Stdio,
        *,
        holder: bool = False,
        without_cgroup: bool = False,
    ) -> Child:
        """Create a container: its init waits for ``start``.

        Args:
            container_id: a new id.
            bundle: absolute path of the bundle.
            config: its validated config.
            stdio: what the process gets.
            holder: run the holder instead of ``process.args``.
            without_cgroup: go on without cgroups where none can be had and no limit is asked for.

        Returns:
            The init; ``console`` is the pty master if the process has a terminal.

        Raises:
            ContainerExists: the id is taken.
            ConfigError, Unsupported, KernelRefused: it cannot be made; nothing is left behind.
        """
        with state.make(self.root, container_id) as directory:
            cgroup: Cgroup | None = None
            child: Child | None = None
            try:
                directory.write({"id": container_id, "pid": 0, "start_time": 0, "maker": self._maker()})
                cgroup = self._cgroups().create(
                    config.linux.cgroups_path or None,
                    container_id,
                    config.linux.resources,
                    allow_none=without_cgroup,
                )
                owns = {"id": container_id, "cgroups": cgroup.paths, "state": directory.path}
                child = self._spawn_init(directory, bundle, config, stdio, cgroup, owns, holder=holder)
                self._verify(child, cgroup)
                document = _document(container_id, bundle, config, child.pid, cgroup)
                directory.write(
                    document | {"maker": self._maker(), "stays": not self._spawner.die_with_spawner}
                )
            except BaseException as error:
                self._undo(directory, cgroup, child, error)
                raise
            return child

    def start(self, container_id: str) -> None:
        """Start a created container; returns when its program runs.

        Raises:
            WrongStatus: it is not created.
            KernelRefused: the program cannot be executed; the container is stopped then.
        """
        with state.open_existing(self.root, container_id) as directory:
            status = directory.status(directory.read())
            if status != state.CREATED:
                raise WrongStatus(f"start container {container_id}: it is {status}, not created")
            error = _connect_and_wait(directory)
            os.unlink(state.START_SOCKET, dir_fd=directory.fd)
            if error is not None:
                raise error

    def exec(
        self, container_id: str, process: Process, stdio: Stdio, *, tree: str | None = None
    ) -> tuple[Child, Cgroup | None]:
        """Run one more process in a created or running container.

        Args:
            container_id: the container.
            process: what to run.
            stdio: what it gets.
            tree: the name of a cgroup of its own below the container's, to end the whole process tree by.

        Returns:
            The process, and its cgroup if ``tree`` was given and there are cgroups.

        Raises:
            WrongStatus: the container does not run.
        """
        with state.open_existing(self.root, container_id) as directory:
            document = directory.read()
            status = directory.status(document)
        if status not in (state.CREATED, state.RUNNING):
            raise WrongStatus(
                f"exec in container {container_id}: it is {status}; exec needs a running container"
            )
        config = codec.decode(Config, document["config"])
        cgroup = Cgroup.from_paths(document["cgroups"])
        own = cgroup.child(tree) if tree and cgroup.join_files() else None
        place = own or cgroup
        around = Surroundings(
            id=container_id,
            procs=[] if place.v2_dir else place.join_files(),
            cgroup_v2=place.v2_dir,
            die_with_spawner=self._spawner.die_with_spawner,
            extra_fds=sorted(stdio.extra),
        )
        slots = {} if process.terminal else stdio.slots()
        try:
            with _Filter(config, self._cache, around, slots):
                plan = exec_plan(process, config, (document["pid"], document["start_time"]), around)
                self._print(plan)
                child = self._spawner.spawn(plan, slots)
                child.wait_spawned()
        except BaseException:
            if own is not None:
                own.remove()
            raise
        return child, own

    def kill(self, container_id: str, number: int) -> None:
        """Send a signal to a container's init.

        Raises:
            WrongStatus: it has stopped.
        """
        with state.open_existing(self.root, container_id) as directory:
            document = directory.read()
            if directory.status(document) not in (state.CREATED, state.RUNNING):
                raise WrongStatus(f"kill container {container_id}: container not running")
            _signal(document, number)

    def delete(self, container_id: str, *, force: bool = False) -> None:
        """Delete a stopped or created container, with ``force`` a running one too.

        Raises:
            WrongStatus: it runs and ``force`` is false; nothing was done.
        """
        with state.open_existing(self.root, container_id) as directory:
            document = directory.read()
            status = directory.status(document)
            if status == state.RUNNING and not force:
                raise WrongStatus(
                    f"delete container {container_id}: it is running",
                    hint=f"Stop it first, or: ocirun delete --force {container_id}",
                )
            if status in (state.CREATED, state.RUNNING):
                _end(document)
            self._forget(directory, document)

    def state(self, container_id: str) -> dict[str, Any]:
        """The state of a container as the runtime-spec defines it, with rootfs, created and owner as runc adds."""
        with state.open_existing(self.root, container_id) as directory:
            document = directory.read()
            status = directory.status(document)
        pid = document["pid"] if status in (state.CREATED, state.RUNNING) else 0
        shown = {key: document.get(key) for key in ("bundle", "rootfs", "created", "annotations", "owner")}
        return {
            "ociVersion": document.get("ociVersion", ""),
            "id": container_id,
            "pid": pid,
            "status": status,
            **shown,
        }

    def is_orphan(self, container_id: str) -> bool:
        """Whether a container was to end with its maker, and the maker is dead."""
        with state.open_existing(self.root, container_id) as directory:
            document = directory.read()
        maker = document.get("maker")
        stays = document.get("stays", False)
        return maker is not None and not stays and not proc.is_alive(*maker)

    def cgroup(self, container_id: str) -> Cgroup:
        """The cgroup of a container."""
        with state.open_existing(self.root, container_id) as directory:
            return Cgroup.from_paths(directory.read()["cgroups"])

    def _spawn_init(  # noqa: PLR0913 - the parts of a create
        self,
        directory: Directory,
        bundle: str,
        config: Config,
        stdio: Stdio,
        cgroup: Cgroup,
        owns: dict[str, Any],
        *,
        holder: bool,
    ) -> Child:
        around = Surroundings(
            id=directory.id,
            bundle=bundle,
            procs=[] if cgroup.v2_dir else cgroup.join_files(),
            cgroup_v2=cgroup.v2_dir,
            cgroup_v1=_hierarchies(config),
            holder=holder,
            die_with_spawner=self._spawner.die_with_spawner,
            extra_fds=sorted(stdio.extra),
        )
        slots = {} if config.process.terminal else stdio.slots()
        listener = _listen(directory)
        try:
            slots["listen"] = listener.fileno()
            with _Filter(config, self._cache, around, slots):
                plan = container_plan(config, around)
                self._print(plan)
                child = self._spawner.spawn(plan, slots, owns)
        finally:
            listener.close()
        try:
            child.wait_ready()
        except BaseException:
            child.kill()
            child.close()
            raise
        return child

    def _cgroups(self) -> Manager:
        if self._manager is None:
            from pytest_ocirun.runtime.cgroups import detect

            self._manager = detect.manager()
        return self._manager

    def _maker(self) -> list[int]:
        found = proc.stat(os.getpid())
        return [os.getpid(), found[1] if found else 0]

    def _verify(self, child: Child, cgroup: Cgroup) -> None:
        """Fail closed: a process that the kernel does not count in its cgroup has no limits (CVE-2025-47291)."""
        if cgroup.join_files() and not cgroup.holds(child.pid):
            raise OcirunError(f"place process {child.pid} in its cgroup: the kernel counts it elsewhere")

    def _undo(
        self, directory: Directory, cgroup: Cgroup | None, child: Child | None, error: BaseException
    ) -> None:
        try:
            if child is not None:
                child.kill()
                if child.pid:
                    child.wait()
                child.close()
            if cgroup is not None:
                cgroup.remove()
            remains.remove_tree(directory.path)
            self._spawner.forget(directory.id)
        except (OSError, OcirunError) as left:
            error.add_note(f"undoing it failed too: {left}")

    def _forget(self, directory: Directory, document: dict[str, Any]) -> None:
        remains.remove({"cgroups": document.get("cgroups"), "state": directory.path})
        self._spawner.forget(directory.id)

    def _print(self, plan: Plan) -> None:
        if self._debug is not None:
            for sentence in describe_plan(plan):
                self._debug(sentence)


class _Filter:
    """The compiled seccomp program as slot ``filter``, for the time of a spawn."""

    def __init__(self, config: Config, cache: str, around: Surroundings, slots: dict[str, int]) -> None:
        self._seccomp = config.linux.seccomp
        self._cache = cache
        self._around = around
        self._slots = slots

    def __enter__(self) -> None:
        if self._seccomp is None:
            return
        from pytest_ocirun.runtime.seccomp import load_or_compile

        program = load_or_compile(self._seccomp, self._cache)
        self._around.filter_flags = program.flags
        self._slots["filter"] = fds.memfd("seccomp", program.code)

    def __exit__(self, *_exception: object) -> None:
        if "filter" in self._slots:
            os.close(self._slots.pop("filter"))


def _document(container_id: str, bundle: str, config: Config, pid: int, cgroup: Cgroup) -> dict[str, Any]:
    found = proc.stat(pid)
    if found is None:
        raise OcirunError(f"create container {container_id}: its init was killed")
    now = time.time()
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now))
    return {
        "ociVersion": config.oci_version,
        "id": container_id,
        "pid": pid,
        "start_time": found[1],
        "bundle": bundle,
        "rootfs": os.path.join(bundle, config.root.path),
        "created": f"{stamp}.{int(now % 1 * 1e9):09d}Z",
        "owner": os.environ.get("USER", "root" if os.geteuid() == 0 else ""),
        "annotations": config.annotations,
        "cgroups": cgroup.paths,
        "config": codec.encode(config),
    }


def _hierarchies(config: Config) -> list[list[str]]:
    """The v1 hierarchies to mount, if the config mounts cgroups at all."""
    if not any(mount.type == "cgroup" for mount in config.mounts):
        return []
    from pytest_ocirun.runtime.cgroups import detect

    found: dict[str, list[str]] = {}
    for controller, point in detect.layout().v1.items():
        options = ["none", controller] if controller.startswith("name=") else [controller]
        found.setdefault(point, [os.path.basename(point)]).extend(options)
    return list(found.values())


def _listen(directory: Directory) -> fds.Socket:
    listener = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET | _socket.SOCK_CLOEXEC)
    try:
        listener.bind(f"/proc/self/fd/{directory.fd}/{state.START_SOCKET}")
        listener.listen(1)
    except BaseException:
        listener.close()
        raise
    return listener


def _connect_and_wait(directory: Directory) -> KernelRefused | None:
    """Start the init that listens; None when its execve closed the connection."""
    import json

    from pytest_ocirun.runtime.child import refused

    connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET | _socket.SOCK_CLOEXEC)
    try:
        connection.connect(f"/proc/self/fd/{directory.fd}/{state.START_SOCKET}")
        if fds.receive(connection)[0] != b"starting":
            raise WrongStatus(f"start container {directory.id}: its init ended before it could be started")
        data, _none = fds.receive(connection)
    except (ConnectionRefusedError, ConnectionResetError):
        raise WrongStatus(
            f"start container {directory.id}: its init ended before it could be started"
        ) from None
    finally:
        connection.close()
    return refused(json.loads(data)) if data else None


def _signal(document: dict[str, Any], number: int) -> bool:
    try:
        pidfd = sched.pidfd_open(document["pid"])
    except ProcessLookupError:
        return False
    try:
        # Opened first, checked after: the pidfd cannot come to mean another process.
        if not proc.is_alive(document["pid"], document["start_time"]):
            return False
        return sched.pidfd_send_signal(pidfd, number)
    finally:
        os.close(pidfd)


def _end(document: dict[str, Any]) -> None:
    """SIGKILL the init and wait until it has ended; its pid namespace ends with it."""
    import select

    try:
        pidfd = sched.pidfd_open(document["pid"])
    except ProcessLookupError:
        return
    try:
        if proc.is_alive(document["pid"], document["start_time"]):
            sched.pidfd_send_signal(pidfd, sched.SIGKILL)
            select.select([pidfd], [], [])
    finally:
        os.close(pidfd)
