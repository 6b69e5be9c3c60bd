"""What an image reference is taken for, and what is said about the rest."""

import os
from pathlib import Path

import pytest

from pytest_ocirun.errors import ImageError, Unsupported
from pytest_ocirun.images.reference import parse

pytestmark = pytest.mark.lane("rootless", "v2")


def test_host_is_a_word(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even where a file has that name; ./host means the file."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "host").write_bytes(b"")

    assert parse("host").kind == "host"
    assert parse("./host").kind == "tarball"


def test_files_are_tarballs_whatever_their_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file wins over the registry reference that its name could be."""
    monkeypatch.chdir(tmp_path)
    for name in ("image.tar", "debian", "docker.io"):
        (tmp_path / name).write_bytes(b"")
        found = parse(name)

        assert (found.kind, found.path) == ("tarball", str(tmp_path / name))


@pytest.mark.parametrize("inner", ["usr/bin", "bin", "etc"])
def test_directory_that_is_a_root_file_system(tmp_path: Path, inner: str) -> None:
    """One of the three is enough."""
    (tmp_path / inner).mkdir(parents=True)

    assert parse(str(tmp_path)).kind == "directory"


def test_directory_links_are_resolved_inside(tmp_path: Path) -> None:
    """A /bin that leads to the host's is none."""
    (tmp_path / "bin").symlink_to("/usr/bin")
    with pytest.raises(ImageError, match="it is no root file system"):
        parse(str(tmp_path))
    (tmp_path / "usr/bin").mkdir(parents=True)
    assert parse(str(tmp_path)).kind == "directory"


@pytest.mark.parametrize(
    "names, form",
    [
        (["oci-layout", "etc/"], "an OCI layout"),
        (["config.json", "rootfs/"], "an OCI bundle"),
        (["manifest.json"], "a docker archive"),
    ],
)
def test_directories_of_other_forms_are_named(tmp_path: Path, names: list[str], form: str) -> None:
    """The error says what it is instead."""
    for name in names:
        (tmp_path / name).mkdir() if name.endswith("/") else (tmp_path / name).write_text("")
    with pytest.raises(Unsupported, match=f"it is {form}, which cannot be used yet"):
        parse(str(tmp_path))


@pytest.mark.parametrize(
    "text, form",
    [
        ("docker://debian:12", "a registry reference"),
        ("oci:folder:tag", "an OCI layout"),
        ("oci-archive:file.tar", "an OCI archive"),
        ("docker-archive:file.tar", "a docker archive"),
        ("docker-daemon:debian:12", "docker daemon"),
        ("podman:debian", "podman"),
        ("debian", "if it means a registry"),
        ("debian:12", "if it means a registry"),
        ("quay.io:443/name/space:v1.0", "if it means a registry"),
        (f"debian@sha256:{'0' * 64}", "if it means a registry"),
    ],
)
def test_forms_that_come_later_are_named(text: str, form: str) -> None:
    """Refused as what they are, not as missing files."""
    with pytest.raises(Unsupported, match=form) as caught:
        parse(text)
    assert caught.value.hint is not None


@pytest.mark.parametrize(
    "text", ["/none", "./none", "~/none", "none.tar", "none.tar.zst", "none.tgz", "UPPER CASE", "a/../b", "x" * 300]
)
def test_missing_files_are_missing(text: str) -> None:
    """What looks like a path is one."""
    with pytest.raises(ImageError, match=r"no such file or directory|File name too long"):
        parse(text)


def test_what_names_nothing(tmp_path: Path) -> None:
    """Empty, with a NUL, or no file at all: each has its own words."""
    os.mkfifo(tmp_path / "fifo")
    for text, why in {
        "": "this names nothing",
        "a\0b": "this names nothing",
        str(tmp_path / "fifo"): "neither a file nor a directory",
        "/dev/null": "neither a file nor a directory",
        str(tmp_path): "it is no root file system",
        "/": "the root of this host would show its secrets",
        "/usr/..": "the root of this host would show its secrets",
    }.items():
        with pytest.raises(ImageError, match=why):
            parse(text)
