"""Completion scripts for bash, zsh and fish, made from the verbs' own tables.

Responsible for turning each option, its value and each argument into the shell's words. Must not know any particular
verb: what a value is follows from its choices, or from what the help calls it.
"""

from __future__ import annotations

from pytest_ocirun.cli.options import HELP

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from pytest_ocirun.cli.options import Option, Verb

    Script = Callable[[Sequence[Option], Sequence[Verb]], str]

_KINDS = {"DIR": "dirs", "FILE": "files", "PATH": "files", "SIGNAL": "signals", "CONTAINER-ID": "ids", "VERB": "verbs"}
_SIGNALS = "HUP INT QUIT TERM KILL STOP CONT USR1 USR2 WINCH ALRM PIPE CHLD"


def kind(option: Option) -> str:
    """What the option's value is: ``dirs``, ``files``, ``signals``, words to choose from, or nothing that is known."""
    return " ".join(option.choices) or _KINDS.get(option.value, "")


def argument_kinds(verb: Verb) -> list[str]:
    """The same for the verb's arguments; a word in square brackets may be left out, one with bars is a choice."""
    form = verb.arguments.partition("  or  ")[0]
    words = [word.strip("[]") for word in form.split()]
    return [" ".join(word.split("|")) if "|" in word else _KINDS.get(word, "") for word in words]


def _cases(options: Sequence[Option], verbs: Sequence[Verb]) -> Iterable[tuple[str, Sequence[Option]]]:
    """Every place for options: before the verb, then each verb's."""
    yield "", options
    for verb in verbs:
        yield verb.name, (*verb.options, HELP)


def bash(options: Sequence[Option], verbs: Sequence[Verb]) -> str:
    """The script for bash, without the bash-completion package."""
    lists, values, arguments = [], [], []
    for name, group in _cases(options, verbs):
        words = " ".join(f"--{option.name}" for option in group)
        lists.append(f"        {_quoted(name)}) echo {_quoted(words)} ;;")
        for option in group:
            if option.value:
                spellings = "|".join(f"{name}:{dashes}" for dashes in _spellings(option))
                values.append(f"        {spellings}) echo {_quoted(kind(option) or 'none')} ;;")
    for verb in verbs:
        for index, known in enumerate(argument_kinds(verb)):
            if known:
                arguments.append(f"        {verb.name}:{index}) echo {_quoted(known)} ;;")
    return _BASH.format(
        verbs=" ".join(verb.name for verb in verbs),
        signals=_SIGNALS,
        options="\n".join(lists),
        values="\n".join(values),
        arguments="\n".join(arguments),
    )


def _spellings(option: Option) -> list[str]:
    return [f"--{option.name}", *([f"-{option.short}"] if option.short else [])]


def _quoted(text: str) -> str:
    """In single quotes, for any of the three shells; our tables have no backslash."""
    return f"'{_in_quotes(text)}'"


def _in_quotes(text: str) -> str:
    return text.replace("'", r"'\''")


_BASH = """\
# Completion of ocirun for bash: source it, or save it as ocirun in bash-completion's directory.
_ocirun_options() {{
    case "$1" in
{options}
    esac
}}
_ocirun_value() {{
    case "$1" in
{values}
        *) return 1 ;;
    esac
}}
_ocirun_argument() {{
    case "$1" in
{arguments}
    esac
}}
_ocirun_words() {{ # KIND CURRENT
    case "$1" in
        dirs) compopt -o filenames 2>/dev/null; compgen -d -- "$2" ;;
        files) compopt -o filenames 2>/dev/null; compgen -f -- "$2" ;;
        signals) compgen -W '{signals}' -- "$2" ;;
        verbs) compgen -W '{verbs}' -- "$2" ;;
        ids) compgen -W "$(ocirun "${{_ocirun_root[@]}}" list --quiet 2>/dev/null)" -- "$2" ;;
        none) ;;
        *) compgen -W "$1" -- "$2" ;;
    esac
}}
_ocirun() {{
    local current=${{COMP_WORDS[COMP_CWORD]}} verb= count=0 index word pending= what
    local -a _ocirun_root=()
    COMPREPLY=()
    for ((index = 1; index < COMP_CWORD; index++)); do
        word=${{COMP_WORDS[index]}}
        [ "$word" != = ] || continue # bash parts --x=v into three words
        if [ -n "$pending" ]; then
            [ "$pending" != :--root ] || _ocirun_root=(--root "$word")
            pending=
        elif [[ $word == -?* && $count == 0 ]] && what=$(_ocirun_value "$verb:$word"); then
            pending=$verb:$word
        elif [[ $word == -?* && $count == 0 ]]; then
            :
        elif [ -z "$verb" ]; then
            verb=$word
        else
            count=$((count + 1))
        fi
    done
    [ "$current" != = ] || current=
    if [ -n "$pending" ]; then
        what=$(_ocirun_value "$pending")
    elif [[ $current == -* && $count == 0 ]]; then
        what=$(_ocirun_options "$verb")
    elif [ -z "$verb" ]; then
        what=verbs
    else
        what=$(_ocirun_argument "$verb:$count")
        what=${{what:-none}}
    fi
    mapfile -t COMPREPLY < <(_ocirun_words "$what" "$current")
}}
complete -F _ocirun ocirun
"""


def zsh(options: Sequence[Option], verbs: Sequence[Verb]) -> str:
    """The script for zsh's own completion system."""
    cases = []
    for verb in verbs:
        specs = [_zsh_option(option) for option in (*verb.options, HELP)]
        known = argument_kinds(verb)
        specs += [f"'{index}:{_zsh_action(what)}'" for index, what in enumerate(known, 1)]
        stop = " -A '-*'" if verb.ends_at_argument else ""
        lines = " \\\n                ".join(specs)
        cases.append(
            f"        {verb.name})\n            _arguments -s{stop} : \\\n                {lines}\n            ;;"
        )
    names = "\n".join(f"        '{verb.name}:{_zsh_text(verb.summary)}'" for verb in verbs)
    before = " \\\n        ".join(_zsh_option(option) for option in options)
    return _ZSH.format(options=before, verbs=names, cases="\n".join(cases), signals=_SIGNALS)


def _zsh_option(option: Option) -> str:
    many = "*" if option.many else ""
    equals = "=" if option.value else ""
    value = f":{_zsh_action(kind(option), option.value)}" if option.value else ""
    text = f"[{_zsh_text(option.help)}]{value}"
    if not option.short:
        return f"'{many}--{option.name}{equals}{text}'"
    both = f"{{--{option.name}{equals},-{option.short}}}"
    guard = "'*'" if option.many else f"'(--{option.name} -{option.short})'"
    return f"{guard}{both}'{text}'"


def _zsh_action(what: str, title: str = "") -> str:
    action = {
        "dirs": "_files -/",
        "files": "_files",
        "signals": "_ocirun_signals",
        "ids": "_ocirun_ids",
        "verbs": "_ocirun_verbs",
        "": "( )",
    }.get(what, f"({what})")
    return f"{(title or 'argument').lower()}:{action}"


def _zsh_text(text: str) -> str:
    return _in_quotes(text.replace("[", "(").replace("]", ")").replace(":", "\\:"))


_ZSH = """\
#compdef ocirun
# Completion of ocirun for zsh: save it as _ocirun in a directory of $fpath, or source it after compinit.
_ocirun_ids() {{
    local -a ids
    ids=(${{(f)"$(ocirun ${{_ocirun_root:+--root}} $_ocirun_root list --quiet 2>/dev/null)"}})
    compadd -a ids
}}
_ocirun_signals() {{
    compadd {signals}
}}
_ocirun_verbs() {{
    local -a verbs
    verbs=(
{verbs}
    )
    _describe verb verbs
}}
_ocirun() {{
    local context state line curcontext=$curcontext _ocirun_root
    typeset -A opt_args
    _arguments -s -C -A '-*' : \\
        {options} \\
        '1:verb:_ocirun_verbs' \\
        '*::argument:->arguments'
    [[ $state == arguments ]] || return
    _ocirun_root=${{opt_args[--root]}}
    case $words[1] in
{cases}
    esac
}}
if [ "$funcstack[1]" = _ocirun ]; then
    _ocirun "$@"
else
    compdef _ocirun ocirun
fi
"""


def fish(options: Sequence[Option], verbs: Sequence[Verb]) -> str:
    """The script for fish."""
    lines = [_FISH.rstrip()]
    with_value = [f"{dashes}" for option in options if option.value for dashes in _spellings(option)]
    lines[0] = lines[0].replace("GLOBALS_WITH_VALUE", " ".join(with_value))
    lines += [_fish_option("__ocirun_is ''", option) for option in options]
    for verb in verbs:
        lines.append(f"complete -c ocirun -n \"__ocirun_is ''\" -f -a {verb.name} -d {_quoted(verb.summary)}")
        with_value = [f"{dashes}" for option in verb.options if option.value for dashes in _spellings(option)]
        before = f"__ocirun_is {verb.name}"
        if verb.ends_at_argument:
            before = f"__ocirun_is {verb.name}; and __ocirun_count 0 {' '.join(with_value)}"
        lines += [_fish_option(before, option) for option in (*verb.options, HELP)]
        for index, what in enumerate(argument_kinds(verb)):
            counted = f"__ocirun_is {verb.name}; and __ocirun_count {index} {' '.join(with_value)}".rstrip()
            lines.append(f"complete -c ocirun -n {_quoted(counted)} {_fish_words(what)}")
    return "\n".join(lines) + "\n"


def _fish_option(condition: str, option: Option) -> str:
    short = f" -s {option.short}" if option.short else ""
    value = f" -r {_fish_words(kind(option))}" if option.value else ""
    quote = f'"{condition}"'
    return f"complete -c ocirun -n {quote} -l {option.name}{short}{value} -d {_quoted(option.help)}"


def _fish_words(what: str) -> str:
    return {
        "dirs": "-f -a '(__fish_complete_directories (commandline -ct))'",
        "files": "-F",
        "signals": f"-f -a '{_SIGNALS}'",
        "ids": "-f -a '(__ocirun_ids)'",
        "verbs": "-f -a '(__ocirun_verbs)'",
        "": "-f",
    }.get(what, f"-f -a '{what}'")


_FISH = """\
# Completion of ocirun for fish: save it as ocirun.fish in ~/.config/fish/completions, or source it.
function __ocirun_words -a skipped # what is no option and no option's value; further arguments: options with a value
    set -l pending no
    for word in (commandline -opc)[2..-1]
        if test $pending = yes
            set pending no
        else if contains -- $word $argv
            set pending yes
        else if not string match -q -- '-?*' $word
            echo $word
        end
    end
end
function __ocirun_verb
    set -l words (__ocirun_words GLOBALS_WITH_VALUE)
    test (count $words) -gt 0; and echo $words[1]
end
function __ocirun_is -a verb
    test "$(__ocirun_verb)" = "$verb"
end
function __ocirun_count -a wanted # how many arguments of the verb stand before the cursor
    test (math (count (__ocirun_words GLOBALS_WITH_VALUE $argv[2..-1])) - 1) -eq $wanted
end
function __ocirun_root
    set -l pending no
    for word in (commandline -opc)[2..-1]
        if test $pending = yes
            echo $word
            return
        else if test $word = --root
            set pending yes
        else if string match -q -- '--root=*' $word
            string replace -- --root= '' $word
            return
        end
    end
end
function __ocirun_ids
    set -l root (__ocirun_root)
    ocirun (test -n "$root"; and printf '%s\\n' --root $root) list --quiet 2>/dev/null
end
complete -c ocirun -f
"""

SCRIPTS: dict[str, Script] = {"bash": bash, "zsh": zsh, "fish": fish}
"""Shell to what makes its script."""
