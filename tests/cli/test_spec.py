"""``ocirun spec`` and what needs no container: version, help, usage errors."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

import pytest_ocirun
from pytest_ocirun.cli import app
from pytest_ocirun.runtime import defaults
from tests.cli.conftest import Cli
from tests.requires import SBIN_PATH, requires


def _runc_spec(folder: Path, *flags: str) -> dict[str, Any]:
    subprocess.run(["runc", "spec", *flags], cwd=folder, check=True, env={"PATH": SBIN_PATH})
    config: dict[str, Any] = json.loads((folder / "config.json").read_text())
    return config


@pytest.mark.conforms("cli: --version")
def test_the_version_is_the_packages(cli: Cli) -> None:
    """Clients parse the first line."""
    expected = f"ocirun version {pytest_ocirun.__version__}\nspec: {defaults.OCI_VERSION}\n"

    assert cli.ok("--version") == cli.ok("-v") == expected
    assert app.SPEC_VERSION == defaults.OCI_VERSION


@pytest.mark.conforms("cli: spec", "cli: spec --rootless")
@requires("runc")
@pytest.mark.parametrize("flags", [[], ["--rootless"]])
def test_spec_is_runcs(cli: Cli, tmp_path: Path, flags: list[str]) -> None:
    """All but the names, the version, a masked path of our own, and ambient ones, which had no effect."""
    cli.ok("spec", *flags)
    ours = json.loads((cli.bundle / "config.json").read_text())
    theirs = _runc_spec(tmp_path, *flags)
    ours["linux"]["maskedPaths"].remove("/sys/devices/virtual/powercap")
    for config in (ours, theirs):
        del config["ociVersion"], config["hostname"]
        config["process"]["capabilities"].pop("ambient", None)
        config["linux"]["maskedPaths"].sort()

    assert ours == theirs


def test_spec_is_indented_by_tabs(cli: Cli) -> None:
    """As runc writes it, for people and for sed."""
    cli.ok("spec")

    assert (cli.bundle / "config.json").read_text().startswith('{\n\t"ociVersion": "')


def test_spec_overwrites_nothing(cli: Cli) -> None:
    """An edited config is work."""
    (cli.bundle / "config.json").write_text("mine")

    done = cli("spec")

    assert (done.code, done.out) == (1, "")
    assert "file exists" in done.err
    assert (cli.bundle / "config.json").read_text() == "mine"


@pytest.mark.conforms("cli: spec --bundle")
def test_spec_goes_to_the_bundle(cli: Cli, tmp_path: Path) -> None:
    """--bundle names another directory; one that is not there is an error."""
    (tmp_path / "other").mkdir()

    cli.ok("spec", "--bundle", tmp_path / "other")
    done = cli("spec", "-b", tmp_path / "nowhere")

    assert (tmp_path / "other/config.json").exists()
    assert (done.code, "No such file or directory" in done.err) == (1, True)


@pytest.mark.parametrize("verb", app.VERBS)
def test_every_verb_has_a_help(cli: Cli, verb: str) -> None:
    """``VERB --help``, ``VERB -h`` and ``help VERB`` print it."""
    text = cli.ok(verb, "--help")

    assert text.startswith(f"NAME:\n   ocirun {verb} - {app.VERBS[verb]}\n")
    assert text == cli.ok(verb, "-h") == cli.ok("help", verb)


def test_the_programs_help_names_every_verb(cli: Cli) -> None:
    """Also without any argument."""
    text = cli.ok("--help")

    assert text == cli.ok() == cli.ok("help")
    assert all(f"   {verb} " in text for verb in app.VERBS)


@pytest.mark.parametrize(
    "words, code, complaint",
    [
        (["bogus"], 3, "no verb 'bogus'"),
        (["--bogus", "list"], 1, "unknown option '--bogus'"),
        (["list", "--bogus"], 1, "unknown option '--bogus'"),
        (["list", "extra"], 1, '"list" requires exactly 0 argument(s), got 1'),
        (["list", "--format", "xml"], 1, "--format: expected table or json, got 'xml'"),
        (["list", "--format"], 1, "--format: expected FORMAT"),
        (["list", "--quiet=maybe"], 1, "--quiet: expected true or false, got 'maybe'"),
        (["state"], 1, '"state" requires exactly 1 argument(s), got 0'),
        (["state", "a", "b"], 1, '"state" requires exactly 1 argument(s), got 2'),
        (["kill", "a", "FOO"], 1, 'unknown signal "FOO"'),
        (["kill", "a", "65"], 1, "signal: expected a number from 0 to 64, got '65'"),
        (["kill", "a", "RTMIN+99"], 1, "signal RTMIN+99: expected a number from 0 to"),
        (["exec"], 1, '"exec" requires at least 1 argument(s), got 0'),
        (["exec", "a"], 255, "requires a container id and a command"),
        (["exec", "-p", "f", "-e", "A=b", "a", "true"], 255, "so --env and a command cannot be given too"),
        (["--rootless", "perhaps", "list"], 1, "--rootless: expected auto or true or false, got 'perhaps'"),
        (["--log-format", "xml", "list"], 1, "--log-format: expected text or json, got 'xml'"),
        (["delete", "a/b"], 1, "invalid container id 'a/b'"),
        (["delete", "--force", ".."], 1, "invalid container id '..'"),
        (["state", ""], 1, "invalid container id ''"),
        (["state", "nosuch"], 1, "container does not exist"),
        (["start", "nosuch"], 1, "container does not exist"),
        (["kill", "nosuch"], 1, "container does not exist"),
        (["delete", "nosuch"], 1, "container does not exist"),
        (["exec", "nosuch", "true"], 255, "container does not exist"),
    ],
)
def test_mistakes_are_one_clear_error(cli: Cli, words: list[str], code: int, complaint: str) -> None:
    """A line that says what is wrong, perhaps one with what to do, and runc's exit status."""
    done = cli(*words)

    assert (done.code, done.out) == (code, "")
    assert done.err.startswith("ocirun: ")
    assert complaint in done.err.splitlines()[0]
    assert len(done.err.splitlines()) <= 2


def test_force_deletes_what_is_not_there(cli: Cli) -> None:
    """Clients clean up without asking first."""
    assert cli.ok("delete", "--force", "nosuch") == ""


def test_a_switch_that_is_off_is_not_refused(cli: Cli) -> None:
    """``--no-pivot=false`` asks for nothing."""
    assert "--no-pivot" not in cli("run", "--no-pivot=false", "a").err


def test_options_may_follow_the_arguments(cli: Cli) -> None:
    """As runc takes them, with one dash or two; exec alone ends its options at the id."""
    assert cli.ok("delete", "nosuch", "-force") == ""
    assert cli.ok("delete", "nosuch", "--force=true") == ""
    assert cli("delete", "--force", "--", "--force").err.startswith("ocirun: container does not exist") is False
    assert "container does not exist" in cli("exec", "nosuch", "ls", "--nope").err


@pytest.mark.parametrize("form", ["text", "json"])
def test_errors_go_to_the_log_too(cli: Cli, tmp_path: Path, form: str) -> None:
    """Podman and containerd show the last error of the log; one line each, appended."""
    log = tmp_path / "log"
    for name in ("one", 'quo"te'):
        cli("--log", log, "--log-format", form, "state", name)
    lines = log.read_text().splitlines()

    assert len(lines) == 2
    if form == "json":
        entries = [json.loads(line) for line in lines]
        assert [sorted(entry) for entry in entries] == [["level", "msg", "time"]] * 2
        assert entries[0]["level"] == "error"
        assert entries[0]["msg"].startswith("container does not exist: no container one below ")
    else:
        assert lines[0].startswith('time="')
        assert 'level=error msg="container does not exist: ' in lines[0]
        assert "invalid container id 'quo\\\"te'" in lines[1]


def test_an_unexpected_error_is_one_line(cli: Cli) -> None:
    """And with --debug it says where it comes from."""
    (cli.root / "x").mkdir(parents=True)
    (cli.root / "x/state.json").write_text("no json")

    done = cli("state", "x")
    told = cli("--debug", "state", "x")
    (cli.root / "x/state.json").unlink()
    (cli.root / "x").rmdir()

    assert done.code == 1
    assert done.err.startswith("ocirun: unexpected JSONDecodeError: ")
    assert "Traceback" not in done.err
    assert "Traceback" in told.err


def test_nobody_to_read_is_no_traceback(cli: Cli) -> None:
    """``ocirun list | true``."""
    read, write = os.pipe()
    os.close(read)
    try:
        done = subprocess.run(cli.command("list"), check=False, stdout=write, stderr=subprocess.PIPE, text=True)
    finally:
        os.close(write)

    assert (done.returncode, done.stderr) == (1, "")


def test_nothing_is_listed_where_nothing_is(cli: Cli) -> None:
    """The header alone, an empty array, and no line."""
    assert cli.ok("list") == "ID          PID         STATUS      BUNDLE      CREATED     OWNER\n"
    assert cli.ok("list", "--format=json") == "[]\n"
    assert cli.ok("list", "-q") == ""
