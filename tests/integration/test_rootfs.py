"""The root file system: layers, owners, modes, and what is made in it."""

import os
from pathlib import Path

import pytest

from pytest_ocirun.errors import KernelRefused
from pytest_ocirun.oci.process import Capabilities, User
from pytest_ocirun.oci.runtime import Config
from tests.boxes import Bare, confined, mapping
from tests.requires import requires

pytestmark = [requires("userns", "overlay", "seccomp", "busybox"), pytest.mark.lane("v2")]


def test_without_an_overlay_the_root_itself_is_written(bare: Bare, rootfs: Path) -> None:
    """As OCI has it; the files belong to the host's id of the container's root."""
    config = confined(rootfs, "sh", "-c", "echo x > /made; mkdir /folder; stat -c %u:%g /made", overlay=False)
    ran = bare.run(config)
    made = (rootfs / "made").stat()

    assert ran.out == "0:0\n"
    assert (made.st_uid, made.st_gid) == (os.geteuid(), os.getegid())
    assert (rootfs / "folder").is_dir()


@requires("root", "idmap")
def test_owners_of_the_image_show_as_they_are(bare: Bare, rootfs: Path) -> None:
    """With the annotation real ids are mapped, in both directions; without it they are nobody's."""
    for uid in (0, 5, 1000):
        (rootfs / f"of{uid}").touch()
        os.chown(rootfs / f"of{uid}", uid, uid)
    script = "stat -c %u:%g /of0 /of5 /of1000; chown 7:8 /of5; stat -c %u:%g /of5"
    ran = bare.run(with_chown(confined(rootfs, "sh", "-c", script, overlay=False)))
    plain = confined(rootfs, "stat", "-c", "%u", "/of0")
    plain.annotations.pop("org.ocirun.idmap")

    assert ran.out.split() == ["0:0", "5:5", "1000:1000", "7:8"]
    assert ((rootfs / "of5").stat().st_uid, (rootfs / "of5").stat().st_gid) == (7, 8)
    assert bare.run(plain).out == "65534\n"


def with_chown(config: Config) -> Config:
    """Give the capabilities that chown needs."""
    names = ["CAP_CHOWN", "CAP_FOWNER"]
    config.process.capabilities = Capabilities(bounding=names, effective=names, permitted=names)
    return config


@requires("root", "idmap")
def test_a_shifted_root_needs_no_mapping(bare: Bare, rootfs: Path) -> None:
    """Files that lie shifted by the container's range show as its own."""
    base = mapping().host_id
    for folder, names, files in os.walk(rootfs):
        for name in (*names, *files, "."):
            os.chown(os.path.join(folder, name), base, base, follow_symlinks=False)
    config = confined(rootfs, "stat", "-c", "%u", "/", "/bin/busybox")
    config.annotations.pop("org.ocirun.idmap")

    assert bare.run(config).out == "0\n0\n"


def test_changes_in_an_overlay_are_seen_whole(bare: Bare, rootfs: Path) -> None:
    """Removed, replaced, renamed and new names all show as on one file system."""
    (rootfs / "folder").mkdir()
    for name in ("a", "b", "c"):
        (rootfs / "folder" / name).write_text(name, encoding="ascii")
    script = """
        cd /folder; rm a; echo B > b; mv c d; ln d e; ln -s d f; mkdir g; touch g/h; chmod 600 b
        ls; cat b d f; echo; stat -c %h d; stat -c %a b; rmdir /var/tmp; mkdir /var/tmp; ls -A /var/tmp
        touch -d @5 d; stat -c %Y d
    """
    ran = bare.run(confined(rootfs, "sh", "-euc", script))

    assert ran.err == ""
    assert ran.out.split() == ["b", "d", "e", "f", "g", "B", "cc", "2", "600", "5"]
    assert sorted(os.listdir(rootfs / "folder")) == ["a", "b", "c"]


@pytest.mark.parametrize("mode", [0o755, 0o711, 0o700, 0o1777])
def test_the_roots_mode_is_the_images(bare: Bare, rootfs: Path, mode: int) -> None:
    """The upper layer's directory becomes the root; it has the lower one's mode."""
    rootfs.chmod(mode)
    ran = bare.run(confined(rootfs, "stat", "-c", "%a %u", "/"))
    rootfs.chmod(0o755)

    assert ran.out.split() == [f"{mode:o}", "0"]


def test_a_root_that_is_missing_or_none(bare: Bare, tmp_path: Path) -> None:
    """Named, with what the kernel says."""
    (tmp_path / "file").touch()
    for name, said in (("missing", "No such file"), ("file", "Not a directory")):
        with pytest.raises(KernelRefused, match=said) as caught:
            bare.run(confined(tmp_path / name))
        assert str(tmp_path / name) in str(caught.value)


def test_an_empty_root_runs_a_holder(bare: Bare, tmp_path: Path) -> None:
    """Nothing of the image is needed but a directory: mount points are made."""
    empty = tmp_path / "empty"
    empty.mkdir()
    with bare.holder(confined(empty)) as name:
        assert bare.runtime.state(name)["status"] == "running"
    assert os.listdir(empty) == []


def test_many_containers_of_one_root(bare: Bare, busybox_rootfs: Path) -> None:
    """Each has a layer of its own over the same files."""
    names = []
    children = []
    for number in range(5):
        name = bare.new_id()
        config = confined(busybox_rootfs)
        children.append(bare.create(config, name=name, holder=True))
        bare.runtime.start(name)
        bare.exec(name, "sh", "-c", f"echo {number} > /etc/mine")
        names.append(name)
    seen = [bare.exec(name, "cat", "/etc/mine").out for name in names]
    for name, child in zip(names, children, strict=True):
        bare.end(name, child)

    assert seen == [f"{number}\n" for number in range(5)]


@requires("root")
def test_another_user_sees_only_what_the_modes_allow(bare: Bare, rootfs: Path) -> None:
    """Modes of the image hold inside."""
    (rootfs / "secret").write_text("x", encoding="ascii")
    (rootfs / "secret").chmod(0o600)
    config = confined(rootfs, "cat", "/secret")
    config.process.user = User(uid=1000, gid=1000)

    assert "Permission denied" in bare.run(config).err
