"""Fields of a config of their own: its version, the words of its program, the place of its cgroup."""

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Cli
from tests.requires import requires

pytestmark = [requires("root"), pytest.mark.lane("v2")]


@pytest.mark.conforms("config: $.ociVersion")
@pytest.mark.parametrize("version", ["1.0.0", "1.0.2-dev", "1.3.0", "1.99.0"])
def test_a_version_of_the_specification(cli: Cli, version: str) -> None:
    """Any 1.x.y is run, and its state says the same."""
    name = cli.running("sleep", "60", edit=lambda config: config.update(ociVersion=version))
    state = json.loads(cli.ok("state", name))
    cli.ok("delete", "--force", name)

    assert (state["ociVersion"], state["status"]) == (version, "running")


@pytest.mark.conforms("config: $.ociVersion")
@pytest.mark.parametrize("version", ["2.0.0", "0.9.0", "1", "", "v1.0.0"])
def test_other_versions(cli: Cli, version: str) -> None:
    """They are refused before anything is made."""
    cli.write("true", edit=lambda config: config.update(ociVersion=version))
    done = cli("run", cli.new_id())

    assert (done.code, done.err.startswith("ocirun: $.ociVersion: ")) == (1, True)


@pytest.mark.conforms("config: $.process.args")
@pytest.mark.parametrize("words", [[""], ["a b", "", "*", "$HOME", "-x", "--", "\n'\"\\", "über", "\U0001f433"]])
def test_words_of_the_program(either: Cli, words: list[str]) -> None:
    """They reach it as they are; no shell is between."""
    argv = ["sh", "-c", "cat /proc/$$/cmdline; true", "name", *words]
    either.write(*argv)

    assert either.ok("run", either.new_id()).split("\0") == [*argv, ""]


@pytest.mark.conforms("config: $.process.args")
def test_the_program_is_found_by_its_own_path(either: Cli) -> None:
    """The one of its environment, not the caller's; a word with a slash is a path, from the working directory on."""
    commands = [["busybox", "echo", "found"], ["./busybox", "echo", "found"], ["/bin/busybox", "echo", "found"]]
    found = []
    for command in commands:
        either.write(*command, edit=lambda config: config["process"].update(env=["PATH=/nosuch:/bin"], cwd="/bin"))
        found.append(either.ok("run", either.new_id()))
    either.write("busybox", "true", edit=lambda config: config["process"].update(env=["PATH=/nosuch"]))
    missing = either("run", either.new_id())

    assert found == ["found\n"] * 3
    assert (missing.code, "executable file not found in $PATH" in missing.err) == (1, True)


@requires("cgroup")
@pytest.mark.conforms("config: $.linux.cgroupsPath")
@pytest.mark.parametrize(
    "path, expected",
    [("/{id}/leaf", "/{id}/leaf"), ("{id}/leaf", "/ocirun/{id}/leaf"), ("", "/ocirun/{id}"), (None, "/ocirun/{id}")],
)
def test_the_place_of_its_cgroup(cli: Cli, path: str | None, expected: str) -> None:
    """Absolute: from the top of each hierarchy; relative: beside all others of ocirun. In the end it goes away."""
    name = cli.new_id()
    if path is None:
        cli.write("sleep", "60")
    else:
        cli.write("sleep", "60", edit=lambda config: config["linux"].update(cgroupsPath=path.format(id=name)))
    assert cli.quiet("run", "--detach", name) == 0
    pid = json.loads(cli.ok("state", name))["pid"]
    places = {line.split(":", 2)[2] for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines()}
    cli.ok("delete", "--force", name)

    assert [place for place in places if name in place] == [expected.format(id=name)]
    assert cli.left() == []
