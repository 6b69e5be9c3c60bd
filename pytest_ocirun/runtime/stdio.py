"""The file descriptors that a process gets. Must not know where they come from."""

from __future__ import annotations

import os
import stat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pytest_ocirun.oci.process import Process
    from pytest_ocirun.oci.runtime import Config


class Stdio:
    """The fds that a process gets: three for stdio, or none with a terminal, and others by number.

    Args:
        stdin: becomes fd 0.
        stdout: becomes fd 1.
        stderr: becomes fd 2.
        extra: target number (from 3 on) to one of our fds.
        drop_in: do with them, and for the process, what runc does unasked; see ``courtesies``.

    Attributes:
        directory: the name of one that is made with the container's state, for what the starter shares with it.
    """

    __slots__ = ("directory", "drop_in", "extra", "stderr", "stdin", "stdout")

    def __init__(
        self, stdin: int, stdout: int, stderr: int, extra: dict[int, int] | None = None, *, drop_in: bool = False
    ) -> None:
        self.stdin = stdin
        self.stdout = stdout
        self.stderr = stderr
        self.extra = extra or {}
        self.drop_in = drop_in
        self.directory = ""

    def give_pipes(self, owner: int) -> None:
        """Make the host's uid ``owner`` the owner of those of the three that are pipes, as far as we may.

        Else a process that is not their maker could use but not open them again, as ``/dev/stdout`` for instance. Other
        files belong to somebody already: a terminal or a log must not change hands for a container.
        """
        from pytest_ocirun.runtime.idmap import translate

        for fd in (self.stdin, self.stdout, self.stderr):
            if not stat.S_ISFIFO(os.fstat(fd).st_mode):
                continue
            try:
                os.fchown(fd, translate("uid", owner), -1)
            except OSError:
                pass

    def slots(self) -> dict[str, int]:
        """The fds by the slot names of ``runtime.plan``."""
        named = {"stdio0": self.stdin, "stdio1": self.stdout, "stdio2": self.stderr}
        return named | {f"fd{number}": fd for number, fd in self.extra.items()}


def slots_for(process: Process, config: Config, stdio: Stdio) -> dict[str, int]:
    """The fds for a process by slot, none with a terminal; its pipes become its user's.

    Args:
        process: the process.
        config: its container's, which says who its user is on the host.
        stdio: the fds.
    """
    if process.terminal:
        return {}
    uid = process.user.uid
    if config.linux.namespace("user") is None:
        stdio.give_pipes(uid)
    for row in config.linux.uid_mappings:
        if row.container_id <= uid < row.container_id + row.size:
            stdio.give_pipes(row.host_id + uid - row.container_id)
    return stdio.slots()
