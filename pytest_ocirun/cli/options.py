"""Options and arguments of a command line: what a verb takes, and reading it from argv.

Responsible for: the shape of runc's command line, as its users' scripts rely on it. ``--x v``, ``--x=v``, one
dash as good as two, ``--flag=false``, options also behind the arguments, unless the verb ends them at its
first argument, and ``--``. Must not know: any particular verb, nor what an option means.
"""

from __future__ import annotations

from pytest_ocirun.errors import ConfigError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_TRUE = {"1", "t", "T", "true", "TRUE", "True"}
_FALSE = {"0", "f", "F", "false", "FALSE", "False"}


class Usage(ConfigError):
    """The command line is wrong."""

    exit_code = 1


class Option:
    """One option.

    Args:
        name: the long name, without dashes.
        short: one letter, or empty.
        value: what the help calls its value; empty for a switch.
        help: one clause for the help.
        many: whether it may be given again, each time adding a value.
        choices: the only values that there are; empty if there are others.
    """

    __slots__ = ("choices", "help", "many", "name", "short", "value")

    def __init__(
        self,
        name: str,
        help: str,
        *,
        short: str = "",
        value: str = "",
        many: bool = False,
        choices: tuple[str, ...] = (),
    ) -> None:
        self.name = name
        self.short = short
        self.value = value
        self.help = help
        self.many = many
        self.choices = choices

    def spelling(self) -> str:
        """How the help writes it: ``--bundle DIR, -b DIR``."""
        value = f" {self.value}" if self.value else ""
        return f"--{self.name}{value}" + (f", -{self.short}{value}" if self.short else "")


class Verb:
    """What one verb takes.

    Args:
        name: the verb.
        arguments: how the usage line writes what follows the options.
        summary: one clause.
        options: its options; ``--help`` is added.
        least: the fewest arguments.
        most: the most; None for any number.
        ends_at_argument: whether everything behind the first argument is no option of ours.
        staged: whether it makes a process, so that ``run`` is called on the stage (``runtime.stage``).
    """

    __slots__ = ("arguments", "ends_at_argument", "least", "most", "name", "options", "staged", "summary")

    def __init__(
        self,
        name: str,
        arguments: str,
        summary: str,
        *options: Option,
        least: int = 1,
        most: int | None = 1,
        ends_at_argument: bool = False,
        staged: bool = False,
    ) -> None:
        self.name = name
        self.arguments = arguments
        self.summary = summary
        self.options = options
        self.least = least
        self.most = most
        self.ends_at_argument = ends_at_argument
        self.staged = staged


class Given:
    """What the command line gave.

    Args:
        values: option name to its values in order; a switch has "true" or "false".
        arguments: what was no option.
    """

    __slots__ = ("_values", "arguments")

    def __init__(self, values: dict[str, list[str]], arguments: list[str]) -> None:
        self._values = values
        self.arguments = arguments

    def has(self, name: str) -> bool:
        """Whether the option was given at all."""
        return name in self._values

    def on(self, name: str) -> bool:
        """Whether the switch is on."""
        return self.text(name) == "true"

    def text(self, name: str, default: str = "") -> str:
        """The option's value; the last one counts."""
        return self._values[name][-1] if name in self._values else default

    def texts(self, name: str) -> list[str]:
        """Every value that the option was given."""
        return self._values.get(name, [])

    def number(self, name: str, most: int) -> int:
        """The option's value as a number from 0 to ``most``; 0 if it was not given.

        Raises:
            Usage: it is no such number.
        """
        return decimal(self.text(name, "0"), most, f"--{name}")


def decimal(text: str, most: int, what: str) -> int:
    """Read a plain decimal number: no sign, no space, no leading zero, no underscore.

    Raises:
        Usage: it is none, or above ``most``.
    """
    plain = text.isascii() and text.isdigit() and (text == "0" or not text.startswith("0"))
    if not plain or len(text) > len(str(most)) or int(text) > most:
        raise Usage(f"{what}: expected a number from 0 to {most}, got {text!r}")
    return int(text)


def parse(options: Sequence[Option], argv: Sequence[str], *, ends_at_argument: bool) -> Given:
    """Read options and arguments.

    Args:
        options: those that there are.
        argv: the words behind the program or the verb.
        ends_at_argument: whether the first argument ends the options.

    Raises:
        Usage: an unknown option, a value missing, or one too many.
    """
    known = {option.name: option for option in options} | {option.short: option for option in options if option.short}
    values: dict[str, list[str]] = {}
    arguments: list[str] = []
    words = iter(argv)
    for word in words:
        if word == "--":
            arguments.extend(words)
        elif len(word) < 2 or not word.startswith("-"):
            arguments.append(word)
            if ends_at_argument:
                arguments.extend(words)
        else:
            _take(known, values, word, lambda: next(words, None))
    return Given(values, arguments)


def _take(known: dict[str, Option], values: dict[str, list[str]], word: str, rest: Callable[[], str | None]) -> None:
    name, equals, value = word[2 if word.startswith("--") else 1 :].partition("=")
    option = known.get(name)
    if option is None:
        raise Usage(f"unknown option {word!r}")
    given: str | None = value
    if option.value:
        given = value if equals else rest()
    elif equals:
        given = "true" if value in _TRUE else "false" if value in _FALSE else None
    else:
        given = "true"
    if given is None:
        raise Usage(
            f"--{option.name}: expected {option.value or 'true or false'}" + (f", got {value!r}" if equals else "")
        )
    if option.choices and given not in option.choices:
        raise Usage(f"--{option.name}: expected {' or '.join(option.choices)}, got {given!r}")
    values.setdefault(option.name, []).append(given)


def parse_verb(verb: Verb, argv: Sequence[str]) -> Given:
    """Read the command line of one verb.

    Raises:
        Usage: as ``parse``, and for too few or too many arguments.
    """
    given = parse((*verb.options, HELP), argv, ends_at_argument=verb.ends_at_argument)
    count = len(given.arguments)
    if given.on(HELP.name):
        return given
    if count < verb.least or (verb.most is not None and count > verb.most):
        wanted = f"exactly {verb.least}" if verb.most == verb.least else f"at least {verb.least}"
        if verb.most is not None and count > verb.most:
            wanted = f"exactly {verb.most}" if verb.most == verb.least else f"at most {verb.most}"
        raise Usage(f'"{verb.name}" requires {wanted} argument(s), got {count}')
    return given


def help_text(verb: Verb) -> str:
    """The help of one verb."""
    usage = f"ocirun [global options] {verb.name} [options] {verb.arguments}".rstrip()
    return f"NAME:\n   ocirun {verb.name} - {verb.summary}\n\nUSAGE:\n   {usage}\n\n" + options_text(
        "OPTIONS", (*verb.options, HELP)
    )


def options_text(title: str, options: Sequence[Option]) -> str:
    """A table of options for a help."""
    width = max(len(option.spelling()) for option in options) + 2
    lines = [f"   {option.spelling():{width}}{option.help}\n" for option in options]
    return f"{title}:\n{''.join(lines)}"


HELP = Option("help", "show this help", short="h")
