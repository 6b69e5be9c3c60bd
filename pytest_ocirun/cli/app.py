"""From argv to a verb, and from what it raises to an exit status.

Verbs that make a process (create, run, exec) may need another place to stand: ``runtime.stage`` replaces the process
that the user started by a bare interpreter that no container can reach, which runs ``cli.staged`` with the same words
and the first one's settings. Without root that is always so, and known at once. Must not know: what any verb does.
"""

from __future__ import annotations

import os
import sys

from pytest_ocirun import __version__
from pytest_ocirun.cli import settings as globals_
from pytest_ocirun.cli.options import HELP, Given, Usage, help_text, options_text, parse_verb
from pytest_ocirun.cli.report import Journal
from pytest_ocirun.cli.settings import Settings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Protocol

    from pytest_ocirun.cli.options import Verb

    class Command(Protocol):
        """A module of ``cli.commands``."""

        VERB: Verb

        def run(self, given: Given, settings: Settings, journal: Journal) -> int:
            """Do the verb; the exit status."""


VERBS = {
    "checkpoint": "say why a running container cannot be saved here",
    "completion": "print the completion script of a shell",
    "create": "create a container",
    "delete": "delete a container and all that it holds",
    "events": "print as JSON what a container uses, and that it ran out of memory, until it ends",
    "exec": "run one more process in a container",
    "features": "print as JSON what this runtime understands, on any host",
    "kill": "send a signal, by default TERM, to a container's init",
    "list": "list the containers",
    "pause": "have all processes of a container stand still",
    "ps": "show the processes of a container",
    "restore": "say why no container can be restored here",
    "resume": "let a paused container go on",
    "run": "create a container, start it, and delete it when it ends",
    "spec": "write a config.json to start from",
    "start": "run the program of a created container",
    "state": "print the state of a container",
    "stop": "end a container: a signal, time to act on it, SIGKILL",
    "update": "change the limits of a container",
}
SPEC_VERSION = "1.2.0"
"""Of the OCI runtime specification, for ``--version``; a test holds it to what ``spec`` writes."""

_EXEC_FAILED = 255


class UnknownVerb(Usage):
    """There is no such verb; runc's exit status."""

    exit_code = 3


def main(argv: Sequence[str]) -> int:
    """Run a command line.

    Returns:
        The exit status.
    """
    _fill_stdio()
    journal = Journal(Settings())
    try:
        given, words = globals_.split(argv)
        if given.on("version"):
            print(f"ocirun version {__version__}\nspec: {SPEC_VERSION}")
        elif given.on(HELP.name) or not words or words[0] in ("help", "h"):
            print(_help(words[1:]))
        else:
            settings = globals_.settle(given)
            journal = Journal(settings)
            return _first(words, settings, journal)
    except BaseException as error:  # noqa: BLE001 - the last line: no traceback reaches the user
        return journal.failure(error)
    return flush(journal)


def _first(words: Sequence[str], settings: Settings, journal: Journal) -> int:
    command = find_command(words[0])
    given = parse_verb(command.VERB, words[1:])
    if given.on(HELP.name):
        print(help_text(command.VERB))
        return flush(journal)
    try:
        if command.VERB.staged:
            _prepare_making(command, given, words, settings)
        code = command.run(given, settings, journal)
        return code or flush(journal)
    except BaseException as error:  # noqa: BLE001 - as above
        return journal.failure(error, error_code(words[0]))
    finally:
        if settings.helper is not None:
            settings.helper.end()


def _prepare_making(command: Command, given: Given, words: Sequence[str], settings: Settings) -> None:
    from pytest_ocirun.cli.core import enter_stage
    from pytest_ocirun.cli.signals import end_by_unwinding
    from pytest_ocirun.runtime.stage import is_privileged

    settings.privileged = is_privileged()
    settings.words = words
    if settings.privileged:
        from pytest_ocirun.runtime.cgroups.grace import Helper

        end_by_unwinding()
        settings.helper = Helper()
        return
    prepare = getattr(command, "before_stage", None)
    if prepare is not None:
        prepare(given, settings)
    find_container = getattr(command, "container_to_enter", None)
    enter_stage(settings, find_container(given, settings) if find_container else None)


def find_command(name: str) -> Command:
    """The module of a verb.

    Raises:
        UnknownVerb: there is no such verb.
    """
    if name not in VERBS:
        raise UnknownVerb(f"no verb {name!r}", hint=f"There are: {', '.join(VERBS)}. See `ocirun --help`.")
    package = __import__(f"pytest_ocirun.cli.commands.{name}", fromlist=["VERB"])
    command: Command = package
    return command


def error_code(verb: str) -> int | None:
    """The exit status of a verb's errors; None for that of the error itself."""
    return _EXEC_FAILED if verb == "exec" else None


def _help(words: Sequence[str]) -> str:
    if words:
        return help_text(find_command(words[0]).VERB)
    width = max(map(len, VERBS)) + 3
    verbs = "".join(f"   {name:{width}}{text}\n" for name, text in VERBS.items())
    return (
        "NAME:\n   ocirun - run OCI containers, as root or not, with no daemon\n\n"
        "USAGE:\n   ocirun [global options] VERB [options] [arguments]\n\n"
        f"VERBS:\n{verbs}\n{options_text('GLOBAL OPTIONS', globals_.OPTIONS)}"
        "\n`ocirun VERB --help` tells more about a verb."
    )


def flush(journal: Journal) -> int:
    """Find out now whether what was printed could be written: later only a traceback could tell."""
    try:
        if sys.stdout is not None:  # Python has none where fd 1 was closed
            sys.stdout.flush()
    except OSError as error:
        return journal.failure(error)
    return 0


def _fill_stdio() -> None:
    """Open /dev/null where 0, 1 or 2 is closed: the next file to be opened would become a container's stdio."""
    while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(fd, True)
    os.close(fd)
