"""The vocabulary of a plan: every operation has one function and one sentence.

A plan is a list of steps ``[operation, argument, ...]`` of plain JSON values. ``describe`` tells what a step does
without doing it; ``replay`` does them in order. The operations themselves live in ``prepare`` (what the spawner does
before the clone), ``rootfs`` and ``process`` (what the child does). Operations that few containers need have modules
of their own, which ``load`` imports when a plan names one: before the clone, since after it nothing is imported.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from pytest_ocirun.linux.seccomp import Filter

    Step = list[Any]
    Operation = Callable[..., None]


class Context:
    """What the steps of one replay share.

    ``fds`` maps the slots that steps name to open fds; ``mounts`` to detached mounts. ``pid`` is the new process, for
    the steps that are done to it from outside.
    """

    __slots__ = (
        *(
            "console",
            "cwd_entered",
            "environment",
            "executable",
            "fds",
            "filter",
            "masks",
            "mounts",
            "nodes",
            "pid",
            "root",
        ),
        "sealed",
    )

    def __init__(self, fds: dict[str, int]) -> None:
        self.fds = fds
        self.mounts: dict[str, int] = {}
        self.pid = 0
        self.root = -1
        self.masks: dict[str, int] = {}
        self.sealed: list[int] = []
        self.nodes: dict[str, str] = {}
        self.console = -1
        self.cwd_entered = False
        self.environment: dict[str, str] = {}
        self.executable = ""
        self.filter: Filter | None = None


class StepFailed(Exception):
    """A step ended in an OSError; carries what the client needs to say so."""

    def __init__(self, step: Step, error: OSError) -> None:
        super().__init__(step, error)
        self.step = step
        self.error = error


_operations: dict[str, tuple[Operation, str]] = {}
_HOMES: dict[str, str] = {
    "schedule": "tuning",
    "io_priority": "tuning",
    "affinity": "tuning",
    "personality": "tuning",
    "memory_policy": "tuning",
    "move_devices": "net_devices",
    "open_label": "labels",
    "set_label": "labels",
    "label_file": "labels",
    "await_hooks": "hook_steps",
    "run_hooks": "hook_steps",
    "find_home": "courtesies",
    "tell_pid": "courtesies",
    "load_listening_filter": "listener_steps",
    "attach_device": "device_nodes",
    "change_mount": "rare_mounts",
    "change_root": "rare_mounts",
    "clone_peers": "rare_mounts",
    "enter_host_mounts": "rare_mounts",
    "enter_root": "rare_mounts",
    "open_host_mounts": "rare_mounts",
    "move_root": "less_isolation",
    "device_node": "device_nodes",
    "mount_copied": "copy_up",
    "usher": "usher",
    "await_place": "overlap",
}
"""The module below ``runtime`` of each operation that is not loaded from the start."""


def operation(sentence: str) -> Callable[[Operation], Operation]:
    """Register a function of (context, *arguments) under its own name; ``sentence`` is formatted with the arguments."""

    def register(function: Operation) -> Operation:
        _operations[function.__name__] = (function, sentence)
        return function

    return register


def load(steps: list[Step]) -> None:
    """Import the modules of those operations of ``steps`` that are rarely needed, and what these import late."""
    for step in steps:
        if step[0] not in _operations:
            module = __import__(f"pytest_ocirun.runtime.{_HOMES[step[0]]}", fromlist=["preload"])
            getattr(module, "preload", int)()


def describe(step: Step) -> str:
    """What ``step`` does, as a sentence."""
    load([step])
    return _operations[step[0]][1].format(*step[1:])


def replay(steps: list[Step], context: Context) -> None:
    """Do ``steps`` in order.

    Raises:
        StepFailed: a step met an OSError; nothing after it was done.
    """
    for step in steps:
        try:
            _operations[step[0]][0](context, *step[1:])
        except OSError as error:
            raise StepFailed(step, error) from error
