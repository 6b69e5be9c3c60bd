"""``ocirun exec``: one more process in a container."""

from __future__ import annotations

import os

from pytest_ocirun.cli import making, stdio
from pytest_ocirun.cli.core import Footing, enter_stage
from pytest_ocirun.cli.options import Option, Usage, Verb, decimal
from pytest_ocirun.errors import ConfigError, WrongStatus

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pytest_ocirun.cli.options import Given
    from pytest_ocirun.cli.report import Journal
    from pytest_ocirun.cli.settings import Settings
    from pytest_ocirun.oci.process import Process
    from pytest_ocirun.runtime.record import Record

_OF_PROCESS = (
    Option("cwd", "working directory in the container", value="DIR"),
    Option("env", "set an environment variable", short="e", value="NAME=VALUE", many=True),
    Option("user", "run as this uid, and gid; numbers only", short="u", value="UID[:GID]"),
    Option("additional-gids", "one more supplementary group", short="g", value="GID", many=True),
    Option("cap", "one more capability, CAP_NAME", short="c", value="CAP", many=True),
    Option("no-new-privs", "let no execve give new privileges"),
    Option("process-label", "run with this SELinux label", value="LABEL"),
    Option("apparmor", "run with this AppArmor profile", value="PROFILE"),
)
VERB = Verb(
    "exec",
    "CONTAINER-ID COMMAND [ARGUMENT...]  or  --process FILE CONTAINER-ID",
    "run one more process in a container",
    *stdio.OPTIONS,
    stdio.DETACH,
    Option("tty", "give it a terminal", short="t"),
    Option("process", "read the whole process object from this file", short="p", value="FILE"),
    *_OF_PROCESS,
    Option("cgroup", "join a cgroup that is there below the container's", value="[CONTROLLER,...:]PATH", many=True),
    Option("ignore-paused", "exec in a paused container: the process runs when that is resumed"),
    most=None,
    ends_at_argument=True,
    staged=True,
)
_ID_MOST = 2**32 - 2


def container_to_enter(given: Given, settings: Settings) -> int | None:
    """The pid of the init to be entered; only without root it matters whose namespaces that are."""
    _check_arguments(given)
    if settings.privileged:
        return None
    from pytest_ocirun.runtime import state

    with state.look(settings.root, given.arguments[0]) as directory:
        document = directory.read()
        status = directory.status(document)
    if status not in state.ALIVE:
        raise WrongStatus(
            f"exec in container {given.arguments[0]}: it is {status}; exec needs one that is created or running"
        )
    pid: int = document["pid"]
    return pid


def run(given: Given, settings: Settings, journal: Journal) -> int:
    """Run a process in a container.

    Returns:
        Its exit status, 128 + N for signal N; 0 with ``--detach``.
    """
    from pytest_ocirun.cli.foreground import attend, await_execution
    from pytest_ocirun.cli.signals import Caught
    from pytest_ocirun.runtime.validate_process import validate_process

    _check_arguments(given)
    container_id, detached = given.arguments[0], given.on("detach")
    if given.has("process") and not settings.staged and not os.path.isfile(given.text("process")):
        enter_stage(settings)  # what can be read only once is read there
    footing = Footing(settings, journal)
    runtime = footing.runtime
    record = runtime.record(container_id)
    if not given.on("ignore-paused"):
        _refuse_paused(record)
    below = _cgroups_below(given.texts("cgroup"))
    process = _from_file(given) if given.has("process") else _from_options(given, record.config.process.copy())
    footing.choose(record.config, process, record.filter, joins=True, traced=record.traced)
    for warning in validate_process(process):
        journal.warning(warning)
    surface = stdio.Surface(given, settings, process, detached=detached)
    terminal = None
    if process.terminal and not detached:
        from pytest_ocirun.cli.terminal import Terminal

        terminal = Terminal.find()
    footing.take()
    with Caught() as caught:
        child, _cgroup = runtime.exec(container_id, process, surface.stdio, below=below, record=record)
        try:
            if terminal is not None:
                child.wait_console()
                terminal.prepare(child)
            await_execution(child, caught)
            if settings.helper is not None:
                settings.helper.end()
            surface.present(child)
            return 0 if detached else attend(child, caught, terminal)
        except BaseException:
            making.reap(child)
            raise


def _refuse_paused(record: Record) -> None:
    from pytest_ocirun.runtime.freezer import is_frozen

    if is_frozen(record.cgroup.paths):
        raise WrongStatus(
            f"exec in container {record.id}: cannot exec in a paused container",
            hint="Resume it first, or give --ignore-paused: the process then waits until it is resumed.",
        )


def _cgroups_below(words: list[str]) -> dict[str, str]:
    """Controller to path; the controller is empty for all of them."""
    found: dict[str, str] = {}
    for word in words:
        controllers, colon, path = word.rpartition(":")
        for controller in controllers.split(","):
            if controller in found or (colon and not controller):
                raise Usage(f"--cgroup {word}: expected [CONTROLLER[,CONTROLLER...]:]PATH, each controller once")
            found[controller] = path
    return found


def _check_arguments(given: Given) -> None:
    if not given.has("process"):
        if len(given.arguments) < 2:
            raise Usage('"exec" requires a container id and a command, or --process FILE and a container id')
        return
    several = [f"--{option.name}" for option in _OF_PROCESS if given.has(option.name)]
    if len(given.arguments) > 1:
        several.append("a command")
    if several:
        raise Usage(f"--process gives the whole process, so {' and '.join(several)} cannot be given too")


def _from_file(given: Given) -> Process:
    from pytest_ocirun.oci.codec import SIZE_CAP
    from pytest_ocirun.oci.process import load_process

    path = given.text("process")
    try:
        with open(path, "rb") as file:
            text = file.read(SIZE_CAP + 1)
    except OSError as error:
        raise ConfigError(f"read {path}: {error.strerror}") from error
    process = load_process(text, path)
    if given.has("tty"):
        process.terminal = given.on("tty")
    return process


def _from_options(given: Given, process: Process) -> Process:
    """The container's own process with what the options say instead, as runc does it."""
    process.args = given.arguments[1:]
    process.terminal = given.on("tty")
    process.console_size = None
    process.env += given.texts("env")
    process.cwd = given.text("cwd", process.cwd)
    process.user.additional_gids += [
        decimal(gid, _ID_MOST, "--additional-gids") for gid in given.texts("additional-gids")
    ]
    if given.has("no-new-privs"):
        process.no_new_privileges = given.on("no-new-privs")
    process.selinux_label = given.text("process-label", process.selinux_label)
    process.apparmor_profile = given.text("apparmor", process.apparmor_profile)
    if given.has("user"):
        uid, colon, gid = given.text("user").partition(":")
        process.user.uid = decimal(uid, _ID_MOST, "--user")
        if colon:
            process.user.gid = decimal(gid, _ID_MOST, "--user")
    if given.has("cap"):
        _add_capabilities(process, given.texts("cap"))
    return process


def _add_capabilities(process: Process, names: list[str]) -> None:
    from pytest_ocirun.linux.caps import NUMBERS
    from pytest_ocirun.oci.process import Capabilities

    for name in names:
        if name not in NUMBERS:
            raise Usage(f"--cap: no capability {name!r}", hint="They are written as CAP_KILL.")
    sets = process.capabilities = process.capabilities or Capabilities()
    for names_of_set in (sets.bounding, sets.effective, sets.permitted):
        names_of_set += [name for name in names if name not in names_of_set]
