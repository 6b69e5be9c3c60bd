"""What ``features`` says is true: each word is one that a config may have."""

import json
import subprocess
from collections.abc import Callable
from typing import Any

import pytest

from pytest_ocirun.oci.codec import decode, encode
from pytest_ocirun.oci.runtime import Config
from pytest_ocirun.runtime import defaults, features
from pytest_ocirun.runtime.validate import validate
from tests.requires import requires

FOUND = features.document()
_BIND = {"destination": "/mnt", "type": "bind", "source": "/tmp"}
_HOOK = {"path": "/bin/true"}
_MAPPING = {"containerID": 0, "hostID": 1000, "size": 10}


def _filter(config: dict[str, Any], **more: Any) -> None:
    listener = {}
    if "SCMP_ACT_NOTIFY" in str(more) or "WAIT_KILLABLE_RECV" in str(more):
        listener = {"listenerPath": "/run/listener", "syscalls": [{"names": ["getcwd"], "action": "SCMP_ACT_NOTIFY"}]}
    config["linux"]["seccomp"] = {"defaultAction": "SCMP_ACT_ALLOW", **listener, **more}


def _capability(config: dict[str, Any], word: str) -> None:
    config["process"]["capabilities"] = {name: [word] for name in ("bounding", "effective", "permitted")}


_CASES: list[tuple[str, str, Callable[[dict[str, Any], str], object]]] = [
    ("hooks", "$.hooks", lambda config, word: config.update(hooks={word: [_HOOK]})),
    (
        "linux.seccomp.actions",
        "action",
        lambda config, word: _filter(config, syscalls=[{"names": ["read"], "action": word}]),
    ),
    ("linux.seccomp.archs", "architectures", lambda config, word: _filter(config, architectures=[word])),
    ("linux.seccomp.supportedFlags", "flags", lambda config, word: _filter(config, flags=[word])),
    ("linux.capabilities", "capabilities", _capability),
]


def _config() -> dict[str, Any]:
    document: dict[str, Any] = encode(defaults.spec())
    return document


def _look(path: str) -> list[str]:
    found: Any = FOUND
    for name in path.split("."):
        found = found[name]
    words: list[str] = found
    return words


@pytest.mark.conforms("cli: features")
@pytest.mark.parametrize("path, place, edit", _CASES, ids=[case[0] for case in _CASES])
def test_each_word_is_taken(path: str, place: str, edit: Callable[[dict[str, Any], str], object]) -> None:
    """With no complaint about it, and a wrong one with one."""
    words = _look(path)
    for word in words:
        config = _config()
        edit(config, word)
        complaints = validate(decode(Config, config))
        assert [text for text in complaints if word in text and "ocirun itself" not in text] == [], place

    assert len(words) > 2


@pytest.mark.parametrize("option", FOUND["mountOptions"])
def test_each_mount_option_is_taken(option: str) -> None:
    """By a bind mount or, where that makes no sense, a tmpfs."""
    config = _config()
    of_bind: dict[str, Any] = {**_BIND, "options": ["bind", option]}
    of_tmpfs = {"destination": "/mnt", "type": "tmpfs", "source": "tmpfs", "options": [option]}
    if option in ("idmap", "ridmap"):
        of_bind |= {name: [_MAPPING] for name in ("uidMappings", "gidMappings")}
    errors = []
    for mount in (of_bind, of_tmpfs):
        try:
            validate(decode(Config, {**config, "mounts": [*config["mounts"], mount]}))
        except Exception as error:  # noqa: BLE001 - either of the two may be refused
            errors.append(error)

    assert len(errors) < 2, errors


@pytest.mark.parametrize("version", [features.OLDEST, features.NEWEST])
def test_both_versions_are_taken(version: str) -> None:
    """As the specification demands of what is said."""
    validate(decode(Config, {**_config(), "ociVersion": version}))


@requires("runc")
def test_all_that_runc_has_is_there() -> None:
    """But for options that no file system takes any more, and systemd's cgroups."""
    theirs = json.loads(subprocess.run(["runc", "features"], capture_output=True, check=True).stdout)

    assert set(theirs["mountOptions"]) - set(FOUND["mountOptions"]) <= {"acl", "noacl", "iversion", "noiversion"}
    assert set(theirs["hooks"]) == set(FOUND["hooks"])
    for name in ("namespaces", "capabilities"):
        assert set(theirs["linux"][name]) <= set(FOUND["linux"][name])
    for name in ("operators", "archs"):
        assert set(theirs["linux"]["seccomp"][name]) <= set(FOUND["linux"]["seccomp"][name])
