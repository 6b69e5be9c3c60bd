"""The handle of a running container: exec, kill, counters, delete. What the fixture gives and the run loop drives."""

from __future__ import annotations

import itertools
import os
import time
from typing import TYPE_CHECKING

from pytest_ocirun.engine.exchange import Exchange
from pytest_ocirun.engine.result import Counters, ExecResult, Exit
from pytest_ocirun.errors import CommandFailed, ConfigError, ContainerNotFound, ProtocolError
from pytest_ocirun.linux import fds
from pytest_ocirun.oci.process import Process, User
from pytest_ocirun.runtime.child import NotRun
from pytest_ocirun.runtime.kin import kill_kin
from pytest_ocirun.runtime.stdio import Stdio
from pytest_ocirun.runtime.validate_process import validate_process

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from types import TracebackType
    from typing import Self

    from pytest_ocirun.oci.runtime import Config
    from pytest_ocirun.runtime.cgroups import Cgroup
    from pytest_ocirun.runtime.child import Child
    from pytest_ocirun.runtime.container import Runtime

__tracebackhide__ = True  # in a failed test's traceback the test's own lines are what matters

_OUTPUT_CAP = 64 << 20
_DYING_SECONDS = 5.0


class Container:
    """A container that has been started. A context manager that deletes it.

    Args:
        runtime: whose container it is.
        container_id: its id, as ``ocirun list`` shows it.
        config: its config.
        child: its init.
        released: takes the init over when the container is deleted.
        idle: called once in each exec, while the process gets going.
    """

    def __init__(
        self,
        runtime: Runtime,
        container_id: str,
        config: Config,
        child: Child,
        *,
        released: Callable[[Container, Child], None],
        idle: Callable[[], None],
    ) -> None:
        self.id = container_id
        self._runtime = runtime
        self._config = config
        self._child = child
        self._released = released
        self._idle = idle
        self._cgroup: Cgroup = runtime.record(container_id).cgroup
        self._execs = itertools.count(1)
        self._deleted = False
        self._last = Counters(0, 0, None)

    @property
    def pid(self) -> int:
        """The host's pid of its init."""
        return self._child.pid

    def fileno(self) -> int:
        """A fd that is readable once its init has ended, for select and poll."""
        return self._child.fileno()

    def poll(self) -> Exit | None:
        """How its init ended, or None while it runs."""
        status = self._child.poll()
        return None if status is None else Exit.from_status(status)

    def wait(self, timeout: float | None = None) -> Exit:
        """Wait until its init has ended.

        Raises:
            TimeoutError: it still ran after ``timeout`` seconds.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while (end := self.poll()) is None:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            if not fds.readable(self.fileno(), left):
                raise TimeoutError(f"container {self.id} still runs after {timeout} s")
        return end

    def exec(
        self,
        args: Sequence[str],
        *,
        input: str | bytes | None = None,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        user: int | tuple[int, int] | None = None,
        timeout: float | None = None,
        check: bool = False,
    ) -> ExecResult:
        """Run a program in the container and wait for it.

        Args:
            args: program and arguments; the program is looked up in the container's PATH.
            input: becomes its standard input; without it that is /dev/null.
            env: set on top of the container's environment.
            cwd: working directory instead of the container's.
            user: uid, or (uid, gid), in the container.
            timeout: seconds; when they are over its whole process tree is killed.
            check: raise if it does not end with status 0.

        Returns:
            Its result. A program that cannot be found or executed is an error, not a result.

        Raises:
            ConfigError: an argument is wrong.
            KernelRefused: the program cannot be executed.
            WrongStatus, ContainerNotFound: the container has ended.
            CommandFailed: ``check`` and it failed; carries the result.
        """
        self._live()
        if timeout is not None and not timeout >= 0:
            raise ConfigError(f"exec in container {self.id}: timeout must be seconds, 0 or more, got {timeout!r}")
        process = self._process(args, env, cwd, user)
        before = self._cgroup.oom_kills()
        began = time.monotonic()
        deadline = None if timeout is None else began + timeout
        data = input.encode() if isinstance(input, str) else input
        status, timed_out, outputs = self._run(process, data, deadline)
        end = Exit.from_status(status)
        result = ExecResult(
            args=tuple(args),
            exit_code=end.code,
            signal=end.signal,
            stdout_bytes=outputs[0],
            stderr_bytes=outputs[1],
            duration=time.monotonic() - began,
            timed_out=timed_out,
            oom_killed=self._cgroup.oom_kills() > before,
        )
        if check and not result.ok:
            raise CommandFailed(f"run {list(args)!r} in container {self.id}: it {result.describe()}", result)
        return result

    def kill(self) -> None:
        """SIGKILL its init; everything in the container ends with it."""
        self._child.kill()

    def counters(self) -> Counters:
        """What the kernel counted; after the deletion what it had counted last."""
        if not self._deleted:
            found = self._cgroup.counters()
            self._last = Counters(found.oom_kills or 0, found.pids_refused or 0, found.memory_peak)
        return self._last

    def delete(self) -> None:
        """Kill it if it runs, and have all that belongs to it removed. A second time does nothing.

        When this returns nothing of it runs any more; the zygote removes its cgroup and its directory meanwhile, and
        ``Engine.close`` waits for that.
        """
        if self._deleted:
            return
        self.counters()
        self._deleted = True
        self._child.kill()
        try:
            self._runtime.remove(self.id)
        except ProtocolError:
            pass  # the zygote was killed; the engine sees it on the init's socket and removes the rest itself
        self._child.wait_ended()
        self._released(self, self._child)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.delete()

    def __repr__(self) -> str:
        return f"<Container {self.id}>"

    def _live(self) -> None:
        if self._deleted:
            raise ContainerNotFound(f"use container {self.id}: it was deleted")

    def _process(
        self, args: Sequence[str], env: Mapping[str, str] | None, cwd: str | None, user: int | tuple[int, int] | None
    ) -> Process:
        words: Sequence[object] = args
        if isinstance(args, str) or not words or not all(isinstance(word, str) and "\0" not in word for word in words):
            raise ConfigError(
                f"exec in container {self.id}: args must be a list of strings, got {args!r}",
                hint='Write exec(["sh", "-c", "..."]) to have a shell take a line apart.',
            )
        own = self._config.process
        process = Process(
            user=own.user if user is None else self._user(user),
            args=list(args),
            env=self._variables(env or {}),
            cwd=own.cwd if cwd is None else cwd,
            capabilities=own.capabilities,
            rlimits=own.rlimits,
            no_new_privileges=own.no_new_privileges,
        )
        validate_process(process, f"exec in container {self.id}: process")
        return process

    def _user(self, user: object) -> User:
        """A user as the caller gives it; nothing but numbers, so that none is ever looked up or taken for another."""
        ids = user if isinstance(user, tuple) else (user, 0)
        if len(ids) != 2 or not all(type(each) is int for each in ids):
            raise ConfigError(f"exec in container {self.id}: user must be a uid or (uid, gid), got {user!r}")
        return User(uid=ids[0], gid=ids[1])

    def _variables(self, more: Mapping[str, str]) -> list[str]:
        """The container's environment with ``more`` on top."""
        pairs: list[tuple[object, object]] = list(more.items())  # what a caller without a type checker may give
        for name, value in pairs:
            if not (isinstance(name, str) and isinstance(value, str)) or "=" in name:
                raise ConfigError(
                    f"exec in container {self.id}: env must map names without '=' to strings, got {name!r}: {value!r}"
                )
        variables = dict(item.split("=", 1) for item in self._config.process.env) | dict(more)
        return [f"{name}={value}" for name, value in variables.items()]

    def _run(
        self, process: Process, data: bytes | None, deadline: float | None
    ) -> tuple[int, bool, tuple[bytes, bytes]]:
        try:
            return self._attempt(process, data, deadline)
        except NotRun:
            return self._attempt(process, data, deadline)  # the container's spare is used up, so this is the last time

    def _attempt(
        self, process: Process, data: bytes | None, deadline: float | None
    ) -> tuple[int, bool, tuple[bytes, bytes]]:
        theirs: list[int] = []
        ours: list[int] = []
        try:
            if data is None:
                theirs.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
            else:
                read, write = os.pipe2(os.O_CLOEXEC)
                theirs.append(read)
                ours.append(write)
            for _stream in ("stdout", "stderr"):
                read, write = os.pipe2(os.O_CLOEXEC)
                theirs.append(write)
                ours.append(read)
            # Only a timeout has to tell this process's tree from others; a cgroup for it costs a third of a
            # millisecond.
            name = None if deadline is None else f"exec-{os.getpid()}-{next(self._execs)}"
            child, tree = self._runtime.exec(self.id, process, Stdio(theirs[0], theirs[1], theirs[2]), tree=name)
        except BaseException:
            for fd in ours:
                os.close(fd)
            raise
        finally:
            for fd in theirs:
                os.close(fd)
        outputs = (ours[-2], ours[-1])
        try:
            self._idle()
            stdin = None if data is None else (ours[0], data)
            exchange = Exchange(child, stdin, outputs, cap=_OUTPUT_CAP, kill=lambda: self._kill_tree(child, tree))
            status, timed_out = exchange.run(deadline)
            return status, timed_out, (exchange.output(outputs[0]), exchange.output(outputs[1]))
        finally:
            for fd in outputs:
                os.close(fd)
            child.close()
            if tree is not None and not tree.processes():
                tree.remove()

    def _kill_tree(self, child: Child, tree: Cgroup | None) -> None:
        """End what an exec started; without a cgroup of its own that is everything in the container but its init."""
        if tree is None:
            kill_kin(self.pid)
            child.kill()
        else:
            tree.kill()
            child.kill()
            tree.wait_empty(_DYING_SECONDS)
