"""A small process that starts programs and times them, so that all pay the same for being started.

Forking the benchmark itself would cost a page table of its size; bubblewrap and runc would be charged for it. The
launcher is ``python -I -S`` with next to nothing imported. It can also do the least that a container needs: one
clone3 with new namespaces and an execve. As a script it reads one JSON list per line and answers in kind.
"""

import json
import os
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from typing import Any, Self


class Launcher:
    """A running launcher; a context manager that ends it.

    Args:
        without: mounts that its programs must not see. It gets a mount namespace of its own then.
        cwd: where its programs start.
    """

    def __init__(self, *, without: "Sequence[str]" = (), cwd: "Path | None" = None) -> None:
        import subprocess

        import pytest_ocirun

        package = os.path.dirname(os.path.dirname(pytest_ocirun.__file__))
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", __file__, package, *without],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=cwd,
        )

    def __enter__(self) -> "Self":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate(timeout=30)

    def run(self, args: "Sequence[str]", *, expect: int = 0) -> float:
        """Run a program to its end.

        Returns:
            Milliseconds from before its start to after its end.

        Raises:
            RuntimeError: it did not exit with ``expect``.
        """
        return self._ask(["spawn", *args], expect)

    def clone(self, flags: int, args: "Sequence[str]") -> float:
        """The same, by clone3 with new namespaces. The program is an absolute path."""
        return self._ask(["clone", str(flags), *args], 0)

    def _ask(self, request: "list[str]", expect: int) -> float:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        milliseconds, status, text = json.loads(self._process.stdout.readline())
        if status != expect:
            raise RuntimeError(f"{' '.join(request)}: exited with {status}: {text}")
        return float(milliseconds)


def main() -> None:
    """Serve requests until standard input ends."""
    package, *without = sys.argv[1:]
    sys.path.insert(0, package)
    from pytest_ocirun.linux import mount, sched

    if without:
        sched.unshare(sched.CLONE_NEWNS)
        mount.mount(None, "/", None, mount.MS_REC | mount.MS_PRIVATE)
        for path in without:
            mount.umount2(path)
    output = os.memfd_create("output")
    # Not /dev/null: crun 1.8 makes the container's user the owner of its stdin, and that would be the host's device.
    nothing = os.memfd_create("input")
    actions = [(os.POSIX_SPAWN_DUP2, nothing, 0), (os.POSIX_SPAWN_DUP2, output, 1), (os.POSIX_SPAWN_DUP2, output, 2)]
    for line in sys.stdin:
        kind, *args = json.loads(line)
        os.ftruncate(output, 0)
        os.lseek(output, 0, os.SEEK_SET)
        began = time.perf_counter()
        pid = os.posix_spawnp(args[0], args, os.environ, file_actions=actions) if kind == "spawn" else _clone(args)
        status = os.waitpid(pid, 0)[1]
        took = (time.perf_counter() - began) * 1e3
        text = os.pread(output, 2000, 0).decode(errors="replace")
        print(json.dumps([took, os.waitstatus_to_exitcode(status), text]), flush=True)


def _clone(args: "list[Any]") -> int:
    from pytest_ocirun.linux import sched

    pid, pidfd = sched.clone3(int(args[0]))
    if pid == 0:
        try:
            os.execv(args[1], args[1:])
        finally:
            os._exit(127)
    os.close(pidfd)
    return pid


if __name__ == "__main__":
    main()
