"""Bundles that are wrong: each one clear error with the place, and nothing left behind."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Cli
from tests.requires import requires

pytestmark = requires("root")

Edit = Callable[[dict[str, Any]], object]


def _remove(*keys: str) -> Edit:
    def edit(config: dict[str, Any]) -> None:
        for key in keys[:-1]:
            config = config[key]
        del config[keys[-1]]

    return edit


def _set(*path: Any) -> Edit:
    *keys, last, value = path

    def edit(config: Any) -> None:
        for key in keys:
            config = config[key]
        config[last] = value

    return edit


@pytest.mark.parametrize(
    "edit, complaint",
    [
        (_remove("ociVersion"), "$.ociVersion: required, but missing"),
        (_set("ociVersion", "2.0.0"), "$.ociVersion"),
        (_remove("process"), "$.process: required, but missing"),
        (_remove("process", "cwd"), "$.process.cwd: required, but missing"),
        (_remove("root"), "$.root: required, but missing"),
        (_set("process", "args", []), "$.process.args: must name a program"),
        (_set("process", "args", ["a", 1]), "$.process.args[1]: expected string, got integer 1"),
        (_set("process", "env", ["X"]), "$.process.env[0]: expected NAME=VALUE"),
        (_set("process", "cwd", "tmp"), "$.process.cwd: must be an absolute path"),
        (_set("process", "user", "uid", -1), "$.process.user.uid: expected 0 to 4294967294, got -1"),
        (_set("process", "user", "uid", 1 << 32), "$.process.user.uid: expected 0 to 4294967294"),
        (_set("process", "user", "uid", True), "$.process.user.uid: expected integer, got boolean true"),
        (_set("process", "rlimits", [{"type": "RLIMIT_FOO", "soft": 1, "hard": 1}]), "$.process.rlimits[0].type"),
        (_set("mounts", {}), "$.mounts: expected array, got object"),
        (_set("mounts", 0, "options", "ro"), "$.mounts[0].options: expected array"),
        (_set("linux", "namespaces", 0, "type", "foo"), "$.linux.namespaces[0].type"),
        (_set("linux", "resources", "memory", {"limit": "1g"}), "$.linux.resources.memory.limit: expected integer"),
        (_set("hooks", {"prestart": [{"path": "bin/true"}]}), "$.hooks.prestart[0].path"),
        (_set("root", "path", "nosuch"), "$.root.path: "),
        (_set("root", "path", "config.json"), "config.json: not a directory"),
        (_set("process", "args", ["nosuch"]), "executable file not found in $PATH (nosuch)"),
        (_set("process", "args", ["/etc"]), "Permission denied: it is a directory (/etc)"),
        (_set("process", "args", ["/etc/passwd"]), "Permission denied (/etc/passwd)"),
        (_set("process", "rlimits", 0, "hard", 1 << 40), "limit RLIMIT_NOFILE to 1024 (soft) and 1099511627776 (hard)"),
        (
            _set("mounts", 0, {"destination": "/mnt", "type": "bind", "source": "/nosuch", "options": ["bind"]}),
            "/nosuch",
        ),
    ],
)
def test_a_wrong_config_is_one_clear_error(cli: Cli, edit: Edit, complaint: str) -> None:
    """With the path of what is wrong; by create and by run alike."""
    cli.write("true", edit=edit)  # type: ignore[arg-type]
    for verb in ("run", "create"):
        done = cli(verb, cli.new_id())

        assert (done.code, done.out) == (1, "")
        assert done.err.startswith("ocirun: ")
        assert complaint in done.err.splitlines()[0]


@pytest.mark.parametrize(
    "text, complaint",
    [
        (b"", "not JSON at line 1, column 1"),
        (b'{"ociVersion": "1.0.2",}', "not JSON at line 1"),
        (b"\xff{}", "not UTF-8 at byte 0"),
        (b"[" * 100000, "nested too deeply"),
        (b'{"ociVersion": NaN}', "NaN is no number"),
        (b"null", "$: expected object, got null"),
    ],
)
def test_a_broken_file_is_one_clear_error(cli: Cli, text: bytes, complaint: str) -> None:
    """With the file's name and the place in it."""
    (cli.bundle / "config.json").write_bytes(text)
    done = cli("run", cli.new_id())

    assert (done.code, done.out) == (1, "")
    assert done.err.startswith(f"ocirun: cannot read {cli.bundle}/config.json: ")
    assert complaint in done.err


def test_a_bundle_without_a_config(cli: Cli) -> None:
    """It says how to get one."""
    done = cli("run", cli.new_id())

    assert done.code == 1
    assert done.err.splitlines() == [
        f"ocirun: read {cli.bundle}/config.json: no such file or directory",
        "`ocirun spec` writes one; --bundle names another directory.",
    ]


def test_a_bundle_that_is_not_there(cli: Cli, tmp_path: Path) -> None:
    """Or is a file."""
    (tmp_path / "file").touch()

    assert cli("run", "-b", tmp_path / "no", "a").err == f"ocirun: open the bundle {tmp_path}/no: no such directory\n"
    assert cli("run", "-b", tmp_path / "file", "a").err == (
        f"ocirun: open the bundle {tmp_path}/file: it is no directory\n"
    )


def test_control_characters_do_not_reach_the_terminal(cli: Cli) -> None:
    """A config may be a stranger's."""
    cli.write("true", edit=_set("process", "args", ["\x1b[2Jboo\nocirun: all is well"]))  # type: ignore[arg-type]
    done = cli("run", cli.new_id())

    assert done.code == 1
    assert "\x1b" not in done.err
    assert "\nocirun: all is well" not in done.err


def test_unknown_properties_are_ignored(cli: Cli) -> None:
    """The specification wants it."""
    cli.write("true", edit=_set("future", {"a": [1]}))  # type: ignore[arg-type]

    assert cli("run", cli.new_id()).code == 0


@pytest.mark.parametrize("mode", [0o777, 0o770])
def test_a_state_root_of_others_is_refused(cli: Cli, mode: int) -> None:
    """Who may write to it could swap what lies in it."""
    cli.root.mkdir()
    os.chmod(cli.root, mode)
    cli.write("true")
    done = cli("run", cli.new_id())
    cli.root.chmod(0o700)

    assert done.code == 1
    assert done.err.startswith(f"ocirun: use the state directory {cli.root}: it belongs to uid 0 with mode {mode:o}")


def test_a_state_root_that_cannot_be_made(cli: Cli, tmp_path: Path) -> None:
    """One clear error."""
    (tmp_path / "file").touch()
    cli.write("true")
    done = cli("--root", tmp_path / "file/root", "run", "a")

    assert done.code == 1
    assert done.err.startswith(
        f"ocirun: make the state directory {tmp_path}/file/root: Not a directory\n--root names it"
    )


def test_what_a_killed_create_left_can_be_deleted(cli: Cli) -> None:
    """A directory without a document: it holds the id, it is listed, it goes."""
    name = cli.new_id()
    (cli.root / name).mkdir(parents=True)
    cli.root.chmod(0o700)
    listed = json.loads(cli.ok("list", "-f", "json"))
    started = cli("start", name)
    killed = cli("kill", name)
    cli.ok("delete", name)

    assert [(each["id"], each["status"], each["pid"]) for each in listed] == [(name, "creating", 0)]
    assert (started.code, killed.code) == (1, 1)
    assert cli.ok("list", "-q") == ""
