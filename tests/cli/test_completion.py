"""``ocirun completion``: the scripts in the shells that they are for."""

import os
import pty
import select
import shlex
import subprocess
import time
from pathlib import Path

import pytest

from pytest_ocirun.cli import app, settings
from tests.cli.conftest import Cli
from tests.requires import lack, requires

SHELLS = ("bash", "zsh", "fish")

_BASH = """
source {script}
COMP_WORDS=({words}) COMP_CWORD={last}
_ocirun
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
_ZSH = """
PROMPT= RPROMPT=
autoload -Uz compinit
compinit -u -D
source {script}
bindkey '^I' complete-word
compadd() {{ # what would be added is written down instead of shown
    if [[ ${{@[1,(i)(-|--)]}} == *-(O|A|D)\\ * ]]; then
        builtin compadd "$@"
        return
    fi
    local -a hits
    builtin compadd -O hits "$@"
    [[ -z $hits ]] || print -rl -- $hits >> {out}
    builtin compadd "$@"
}}
finished() {{ print -r -- {end} >> {out} }}
comppostfuncs=(finished)
print ready
"""
_END = "THE-END"


@pytest.fixture(params=SHELLS)
def shell(request: pytest.FixtureRequest) -> str:
    """Each shell that is here; in CI all are."""
    name: str = request.param
    found = lack(name)
    if found:
        pytest.skip(f"needs {name}: {found.why}")
    return name


class Completer:
    """A shell that has sourced our script and finds ``ocirun`` on its PATH."""

    def __init__(self, shell: str, cli: Cli, place: Path) -> None:
        self._shell = shell
        self._script = place / "script"
        self._out = place / "out"
        self._place = place
        self._script.write_text(cli.ok("completion", shell), encoding="utf-8")
        wrapper = place / "bin/ocirun"
        wrapper.parent.mkdir()
        wrapper.write_text(f'#!/bin/sh\nexec {shlex.join(cli.command()[:-2])} "$@"\n', encoding="utf-8")
        wrapper.chmod(0o755)
        self._env = {"PATH": f"{wrapper.parent}:/usr/bin:/bin", "HOME": str(place), "TERM": "dumb", "LC_ALL": "C.UTF-8"}

    def __call__(self, line: str) -> list[str]:
        """What the shell offers when Tab is hit behind ``line``, sorted."""
        found = {"bash": self._bash, "zsh": self._zsh, "fish": self._fish}[self._shell](line)
        return sorted({word.rstrip("/ ") for word in found if word})

    def _bash(self, line: str) -> list[str]:
        words = [word for part in line.split(" ") for word in _parted(part)]
        script = _BASH.format(script=self._script, words=" ".join(map(shlex.quote, words)), last=len(words) - 1)
        return self._run("bash", "--norc", "-c", script).splitlines()

    def _fish(self, line: str) -> list[str]:
        script = f"source {self._script}; complete -C {shlex.quote(line)}"
        return [text.split("\t")[0].rpartition("=")[2] for text in self._run("fish", "-N", "-c", script).splitlines()]

    def _run(self, *argv: str) -> str:
        done = subprocess.run(
            argv, capture_output=True, text=True, env=self._env, cwd=self._place, timeout=30, check=False
        )
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    def _zsh(self, line: str) -> list[str]:
        setup = self._place / "setup"
        setup.write_text(_ZSH.format(script=self._script, out=self._out, end=_END), encoding="utf-8")
        self._out.write_text("", encoding="utf-8")
        pid, terminal = pty.fork()
        if pid == 0:
            os.chdir(self._place)
            os.execvpe("zsh", ["zsh", "-f", "-i"], self._env)
        try:
            os.write(terminal, f"source {setup}\n".encode())
            _read_until(terminal, b"ready\r\n")
            os.write(terminal, f"{line}\t".encode())
            deadline = time.monotonic() + 20
            while _END not in (text := self._out.read_text(encoding="utf-8")):
                assert time.monotonic() < deadline, text
                time.sleep(0.01)
        finally:
            os.kill(pid, 9)
            os.waitpid(pid, 0)
            os.close(terminal)
        return text.splitlines()[:-1]


def _parted(word: str) -> list[str]:
    """As bash parts words for completion: ``=`` is one of its own."""
    left, equals, right = word.partition("=")
    return [left, equals, right] if equals else [word]


def _read_until(fd: int, wanted: bytes) -> None:
    seen, deadline = b"", time.monotonic() + 20
    while wanted not in seen:
        assert select.select([fd], [], [], max(0, deadline - time.monotonic()))[0], seen
        seen += os.read(fd, 4096)


@pytest.fixture
def complete(shell: str, cli: Cli, tmp_path: Path) -> Completer:
    """Completes in one of the shells."""
    (tmp_path / "shell").mkdir()
    return Completer(shell, cli, tmp_path / "shell")


@pytest.mark.conforms("cli: completion")
def test_verbs_are_completed(complete: Completer) -> None:
    """Every one, also behind global options in both spellings."""
    assert complete("ocirun ") == sorted(app.VERBS)
    assert complete("ocirun --debug --log-format=json --root /tmp sta") == ["start", "state"]


def test_options_are_completed(complete: Completer) -> None:
    """The global ones before the verb, the verb's behind it, none behind the id where that ends them."""
    own = [f"--{option.name}" for option in app.find_command("delete").VERB.options]

    assert complete("ocirun --") == sorted(f"--{option.name}" for option in settings.OPTIONS)
    assert complete("ocirun delete --") == sorted([*own, "--help"])
    assert complete("ocirun exec some-id --") == []


def test_values_are_completed(complete: Completer) -> None:
    """From their choices; directories where one is wanted."""
    assert complete("ocirun --log-format ") == ["json", "text"]
    assert complete("ocirun --log-format=") == ["json", "text"]
    assert complete("ocirun list -f ") == ["json", "table"]
    assert [os.path.basename(path) for path in complete("ocirun --root /us")] == ["usr"]


def test_arguments_are_completed(complete: Completer) -> None:
    """Words and signals."""
    assert complete("ocirun completion ") == sorted(SHELLS)
    assert complete("ocirun kill some-id US") == ["USR1", "USR2"]


@requires("root")
def test_ids_are_completed(complete: Completer, cli: Cli) -> None:
    """Of the containers below the state root that the line names."""
    first, second = cli.running("sleep", "60"), cli.running("sleep", "60")
    offered = complete(f"ocirun --root {cli.root} delete --force t")
    elsewhere = complete("ocirun --root /nosuch delete t")
    for name in (first, second):
        cli.ok("delete", "--force", name)

    assert (offered, elsewhere) == (sorted([first, second]), [])


def test_an_unknown_shell(cli: Cli) -> None:
    """Is named."""
    done = cli("completion", "tcsh")

    assert (done.code, done.err) == (1, "ocirun: completion: expected bash or zsh or fish, got 'tcsh'\n")
