"""The second process of a verb that makes a process: it stands on the stage and does the verb.

Responsible for: running a verb with what ``cli.app`` passed on, ending by signals without leaving anything
half done. Must not know: verbs.
"""

from __future__ import annotations

import os
import sys

from pytest_ocirun.cli.app import error_code, find_command, flush
from pytest_ocirun.cli.core import SEPARATOR
from pytest_ocirun.cli.options import parse_verb
from pytest_ocirun.cli.report import Journal
from pytest_ocirun.cli.settings import Settings
from pytest_ocirun.cli.signals import end_by_unwinding

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn


def main() -> NoReturn:
    """Run a verb: ``sys.argv`` has the first process's settings, then the verb's words."""
    split = sys.argv.index(SEPARATOR)
    words = sys.argv[split + 1 :]
    settings = Settings.of_words(sys.argv[1:split])
    journal = Journal(settings)
    try:
        end_by_unwinding()
        command = find_command(words[0])
        code = command.run(parse_verb(command.VERB, words[1:]), settings, journal)
        code = code or flush(journal)
    except BaseException as error:  # noqa: BLE001 - the last line: no traceback reaches the user
        code = journal.failure(error, error_code(words[0]))
    os._exit(code)
