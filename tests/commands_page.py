"""docs/commands.md, made from the command line's own tables, so that it cannot say anything else.

``python -m tests.commands_page`` writes it anew; ``tests/unit/test_docs.py`` compares.
"""

from pathlib import Path

from pytest_ocirun.cli import app, settings
from pytest_ocirun.cli.options import HELP, Option, Verb

PAGE = Path(__file__).parents[1] / "docs/commands.md"

_HEAD = """\
# The command line

`ocirun` takes the words that runc takes: `ocirun [global options] VERB [options] [arguments]`.

This page is made from the program's own tables by `python -m tests.commands_page`; a test compares them.
`ocirun VERB --help` says the same, and `ocirun completion bash|zsh|fish` prints a script that completes it.

- An option and its value are two words or one: `--root DIR`, `--root=DIR`. One dash is as good as two.
- A switch can be turned off: `--detach=false`.
- Global options stand before the verb. Those of `exec` and `ps` end at the container's id: what follows is the
  program's, or ps's. Elsewhere they may also stand behind the arguments, and `--` ends them.
- A time is a number of seconds, or numbers with units: `10`, `0.5`, `250ms`, `1m30s`.
- A signal is a number or a name: `9`, `KILL`, `SIGKILL`, `sigkill`, `RTMIN+3`.

## Exit status

| status | when |
|---|---|
| the program's own | `run` and `exec` without `--detach` |
| 128 + N | the program of `run` or `exec` was ended by signal N; or ocirun itself was asked to end by it |
| 255 | `exec` failed itself |
| 3 | there is no such verb |
| 1 | any other error |
| 0 | all else; also `delete --force` of an id that nobody has, and `stop` of a stopped container |

An error is one line on stderr, often with a second one that says what to do; with `--log` it is an entry of that file
too.

## Where it differs from runc

- `stop` and `completion` are its own. `checkpoint` and `restore` say why they cannot be done.
- `list --format json` and `ps --format json` print `[]` where there is nothing; runc prints `null`.
- `events` ends when the container's init ends, not only when its cgroup is removed; and it tells of the interfaces
  of the container's network namespace.
- `exec --process` refuses options that say otherwise than the file; runc ignores them.
- An error is told on stderr also when there is a log.
- `--systemd-cgroup` needs cgroup v2 alone and root; the container is in the cgroup `container` of its scope, where
  systemd changes nothing.
"""


def page() -> str:
    """The whole page."""
    verbs = [app.find_command(name).VERB for name in app.VERBS]
    index = "".join(f"| [`{verb.name}`](#{verb.name}) | {verb.summary} |\n" for verb in verbs)
    return (
        f"{_HEAD}\n## Verbs\n\n| verb | what it does |\n|---|---|\n{index}\n"
        f"## Global options\n\n{_table(settings.OPTIONS)}\n" + "\n".join(_section(verb) for verb in verbs)
    )


def _section(verb: Verb) -> str:
    forms = verb.arguments.split("  or  ")
    usage = "".join(f"ocirun {verb.name} [options] {form}".rstrip() + "\n" for form in forms)
    text = f"## {verb.name}\n\n{verb.summary[:1].upper()}{verb.summary[1:]}.\n\n```\n{usage}```\n"
    return text + (f"\n{_table(verb.options)}" if verb.options else "")


def _table(options: tuple[Option, ...]) -> str:
    rows = "".join(
        f"| `{option.spelling()}` | {option.help}{'; may be repeated' if option.many else ''} |\n"
        for option in options
        if option.name != HELP.name
    )
    return f"| option | meaning |\n|---|---|\n{rows}"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
