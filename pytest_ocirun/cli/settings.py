"""The global options, and what the first process knows that the staged one cannot see any more.

Responsible for: reading them once. Must not know: verbs.
"""

from __future__ import annotations

import os

from pytest_ocirun.cli.options import HELP, Given, Option, parse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_ocirun.runtime.cgroups.grace import Helper

OPTIONS = (
    Option("root", "directory of the containers' states, on a tmpfs", value="DIR"),
    Option("log", "append errors and warnings to this file as well", value="FILE"),
    Option("log-format", "text (default) or json", value="FORMAT", choices=("text", "json")),
    Option("debug", "show every step before it is done, and where unexpected errors come from"),
    Option(
        "rootless",
        "go on without cgroups if no limit is asked for: true, false or auto (default)",
        value="WHEN",
        choices=("auto", "true", "false"),
    ),
    Option("systemd-cgroup", "have systemd make the cgroup: cgroupsPath is SLICE:PREFIX:NAME"),
    HELP,
    Option("version", "print the version", short="v"),
)


class Settings:
    """The global options.

    Args:
        root: where states lie, absolute.
        log: absolute path of the log, or empty.
        log_format: ``text`` or ``json``.
        debug: whether to show each step.
        rootless: ``true``, ``false`` or ``auto``.
        listen_fds: how many fds systemd's socket activation passed to us.
        notify: the socket of sd_notify(3) that we were given, or empty.
        systemd_cgroup: whether systemd is to make the cgroups.
        privileged: whether no user namespace is needed to make a container; known to verbs that do.
        outside: fd of the socket to who runs hooks for a process on the stage, or -1.
        subids: without root, whether ids of subuid(5) are to be mapped for the stage; known before it only.
        helper: who waits for the kernel on our behalf (``cgroups.grace``); known before the stage only.
        staged: whether this process is on the stage.
        words: the verb and all that follows it; known before the stage only.
    """

    _PASSED = (
        "debug",
        "listen_fds",
        "log",
        "log_format",
        "notify",
        "outside",
        "privileged",
        "root",
        "rootless",
        "systemd_cgroup",
    )
    __slots__ = (*_PASSED, "helper", "staged", "subids", "words")

    def __init__(
        self,
        *,
        root: str = "",
        log: str = "",
        log_format: str = "text",
        debug: bool = False,
        rootless: str = "auto",
        listen_fds: int = 0,
        notify: str = "",
        systemd_cgroup: bool = False,
        privileged: bool = False,
        outside: int = -1,
        subids: bool = False,
        staged: bool = False,
        words: Sequence[str] = (),
    ) -> None:
        self.root = root
        self.log = log
        self.log_format = log_format
        self.debug = debug
        self.rootless = rootless
        self.listen_fds = listen_fds
        self.notify = notify
        self.systemd_cgroup = systemd_cgroup
        self.privileged = privileged
        self.outside = outside
        self.subids = subids
        self.staged = staged
        self.helper: Helper | None = None
        self.words = words

    @property
    def without_cgroup(self) -> bool:
        """Whether a container may do without cgroups where none can be had; asked on the stage."""
        from pytest_ocirun.linux import proc

        return self.rootless == "true" or (self.rootless == "auto" and not proc.in_initial_user_namespace())

    def as_words(self) -> list[str]:
        """All of them as plain words, for the staged process."""
        return [f"{name}={getattr(self, name)}" for name in self._PASSED]

    @classmethod
    def of_words(cls, words: Sequence[str]) -> Settings:
        """What ``words`` gave."""
        found = dict(word.split("=", 1) for word in words)
        return cls(
            root=found["root"],
            log=found["log"],
            log_format=found["log_format"],
            debug=found["debug"] == "True",
            rootless=found["rootless"],
            listen_fds=int(found["listen_fds"]),
            notify=found["notify"],
            systemd_cgroup=found["systemd_cgroup"] == "True",
            privileged=found["privileged"] == "True",
            outside=int(found["outside"]),
            staged=True,
        )


def split(argv: Sequence[str]) -> tuple[Given, list[str]]:
    """Part the global options from the verb and what follows it.

    Raises:
        Usage: as ``options.parse``.
    """
    given = parse(OPTIONS, argv, ends_at_argument=True)
    return given, given.arguments


def settle(given: Given) -> Settings:
    """Read the global options.

    Raises:
        Usage: a value is none of those that there are.
    """
    settings = Settings(
        log=given.text("log") and os.path.abspath(given.text("log")),
        log_format=given.text("log-format", "text"),
        debug=given.on("debug"),
        rootless=given.text("rootless", "auto"),
        listen_fds=_listen_fds(),
        notify=os.environ.get("NOTIFY_SOCKET", ""),
        systemd_cgroup=given.on("systemd-cgroup"),
    )
    if given.text("root"):
        settings.root = os.path.abspath(given.text("root"))
    else:
        from pytest_ocirun.runtime.state import default_root

        settings.root = default_root()
    return settings


def _listen_fds() -> int:
    """The number of fds of sd_listen_fds(3), if they are meant for this process."""
    count = os.environ.get("LISTEN_FDS", "")
    if os.environ.get("LISTEN_PID") != str(os.getpid()) or not count.isdigit():
        return 0
    return int(count)
