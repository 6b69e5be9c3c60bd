"""Options of mounts beyond the plain ones: whole trees, mapped owners, copies, propagation, data of any length."""

import os
import stat
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pytest_ocirun.errors import ConfigError, KernelRefused
from pytest_ocirun.oci.runtime import Config, DeviceRule, IDMapping, Mount, Namespace, Resources
from pytest_ocirun.runtime.mount_options import ATTRIBUTES
from tests.boxes import Bare, confined, mapping
from tests.requires import requires

pytestmark = [requires("userns", "overlay", "seccomp", "busybox"), pytest.mark.lane("v2")]

SHOW = ("cat", "/proc/self/mountinfo")


def mount(destination: str, kind: str, source: Path | str, *options: str, **more: list[IDMapping]) -> Mount:
    """A mount as a config has it."""
    return Mount(destination=destination, type=kind, source=str(source), options=list(options), **more)


def options_at(out: str, path: str) -> set[str]:
    """The options of the topmost mount at a path, from a mountinfo, with its propagation."""
    line = next(line for line in reversed(out.splitlines()) if line.split()[4] == path)
    fields = line.partition(" - ")[0].split()
    return {*fields[5].split(","), *(field.partition(":")[0] for field in fields[6:])}


@contextmanager
def host_mounts(tmp_path: Path) -> Iterator[tuple[Path, Bare]]:
    """A directory with a mount in it, nosuid, on the host, and a runtime whose zygote has seen it."""
    tree = tmp_path / "tree"
    (tree / "below").mkdir(parents=True)
    (tmp_path / "other").mkdir()
    tmp_path.chmod(0o755)
    subprocess.run(["mount", "--bind", tmp_path / "other", tree / "below"], check=True)
    subprocess.run(["mount", "-o", "remount,bind,nosuid", tree / "below"], check=True)
    late = Bare(tmp_path / "state")
    try:
        yield tree, late
    finally:
        late.close()
        subprocess.run(["umount", tree / "below"], check=True)


SETS = ["ro", "nosuid", "nodev", "noexec", "nodiratime", "nosymfollow"]
CLEARS = {"rw": "ro", "suid": "nosuid", "dev": "nodev", "exec": "noexec", "diratime": "nodiratime"}


@requires("root")
@pytest.mark.conforms(*(f"config: $.mounts[].options {r}{word}" for word in SETS for r in ("", "r")))
@pytest.mark.parametrize("word", SETS)
def test_recursive_option_sets_the_whole_tree(busybox_rootfs: Path, tmp_path: Path, word: str) -> None:
    """``rro`` and its like reach the mounts below, where ``ro`` stops at the top; a new file system has only a top."""
    with host_mounts(tmp_path) as (tree, late):
        mounts = [
            mount("/mnt/all", "bind", tree, "rbind", f"r{word}"),
            mount("/mnt/top", "bind", tree, "rbind", word),
            mount("/mnt/new", "tmpfs", "tmpfs", f"r{word}"),
        ]
        out = late.run(confined(busybox_rootfs, *SHOW, mounts=mounts)).out
        given = "nosuid"  # what the source's own mount has stays

        assert {word, given} <= options_at(out, "/mnt/all/below")
        assert word in options_at(out, "/mnt/all")
        assert word in options_at(out, "/mnt/top")
        assert (word in options_at(out, "/mnt/top/below")) == (word == given)
        assert word in options_at(out, "/mnt/new")


@requires("root")
@pytest.mark.conforms(*(f"config: $.mounts[].options r{word}" for word in ("noatime", "strictatime", "relatime")))
@pytest.mark.parametrize("word", ["noatime", "strictatime", "relatime"])
def test_recursive_times(busybox_rootfs: Path, tmp_path: Path, word: str) -> None:
    """The three ways to keep access times exclude each other, in a whole tree too."""
    with host_mounts(tmp_path) as (tree, late):
        mounts = [mount("/mnt", "bind", tree, "rbind", "rnoatime", f"r{word}")]
        out = late.run(confined(busybox_rootfs, *SHOW, mounts=mounts)).out

        for path in ("/mnt", "/mnt/below"):
            assert {"noatime", "relatime"} & options_at(out, path) == {word} - {"strictatime"}


@requires("root")
@pytest.mark.conforms(*(f"config: $.mounts[].options r{word}" for word in CLEARS))
@pytest.mark.parametrize("word", CLEARS)
def test_recursive_option_clears_the_whole_tree(busybox_rootfs: Path, tmp_path: Path, word: str) -> None:
    """``rrw`` and its like take away what the tree has; without a word it stays."""
    with host_mounts(tmp_path) as (tree, late):
        mounts = [
            mount("/mnt/a", "bind", tree, "rbind", f"r{CLEARS[word]}", f"r{word}"),
            mount("/mnt/b", "bind", tree, "rbind"),
        ]
        out = late.run(confined(busybox_rootfs, *SHOW, mounts=mounts)).out

        assert CLEARS[word] not in options_at(out, "/mnt/a/below") | options_at(out, "/mnt/a")
        assert "nosuid" in options_at(out, "/mnt/b/below")


def test_every_attribute_is_accepted(bare: Bare, busybox_rootfs: Path, tmp_path: Path) -> None:
    """Each word, alone and with its r, on a bind and on a new mount."""
    tmp_path.chmod(0o755)
    words = [*ATTRIBUTES, *(f"r{word}" for word in ATTRIBUTES)]
    if os.geteuid():  # what the host gave is locked
        words = [word for word in words if not word.endswith("atime")]
    mounts = [mount(f"/mnt/bind-{word}", "bind", tmp_path, "rbind", word) for word in words]
    mounts += [mount(f"/mnt/new-{word}", "tmpfs", "tmpfs", word) for word in words]
    out = bare.run(confined(busybox_rootfs, *SHOW, mounts=mounts)).out

    assert sum(" /mnt/" in line for line in out.splitlines()) == 2 * len(words)


@pytest.mark.conforms(
    "config: $.mounts[].options sync",
    "config: $.mounts[].options dirsync",
    "config: $.mounts[].options lazytime",
    "config: $.mounts[].options mand",
    "config: $.mounts[].options async",
    "config: $.mounts[].options nolazytime",
    "config: $.mounts[].options nomand",
)
@requires("root")
@pytest.mark.parametrize("word", ["sync", "dirsync", "lazytime", "mand", "async", "nolazytime", "nomand", "iversion"])
def test_words_of_every_file_system(bare: Bare, busybox_rootfs: Path, word: str) -> None:
    """What the superblock takes shows there; silent and loud say nothing of the mount."""
    options = [word, "silent", "loud", "noiversion", "defaults"]
    mounts = [mount("/mnt", "tmpfs", "tmpfs", *options)]
    ran = bare.run(confined(busybox_rootfs, *SHOW, mounts=mounts, user_namespace=False))
    superblock = next(line for line in ran.out.splitlines() if line.split()[4] == "/mnt").split()[-1].split(",")

    assert (word in superblock) == (word in ("sync", "dirsync", "lazytime", "mand"))


@requires("root")
def test_data_longer_than_the_new_calls_take(bare: Bare, rootfs: Path, tmp_path: Path) -> None:
    """fsconfig(2) takes 255 bytes a value; layers of an overlay are longer soon, and go by mount(2)."""
    layers = [tmp_path / f"{number}-{'x' * 60}" for number in range(6)]
    for number, layer in enumerate(layers):
        layer.mkdir()
        (layer / str(number)).touch()
    mounts = [mount("/mnt", "overlay", "overlay", f"lowerdir={':'.join(map(str, layers))}", "nodev")]
    config = confined(rootfs, "sh", "-c", "ls /mnt; cat /proc/self/mountinfo", mounts=mounts, overlay=False)
    config.linux.namespaces = [each for each in config.linux.namespaces if each.type != "user"]
    config.linux.uid_mappings = config.linux.gid_mappings = []
    config.annotations.clear()
    out = bare.run(config).out

    assert out.split()[:6] == ["0", "1", "2", "3", "4", "5"]
    assert "nodev" in options_at(out, "/mnt")


def test_later_mounts_lie_in_a_read_only_tmpfs(bare: Bare, busybox_rootfs: Path, tmp_path: Path) -> None:
    """It becomes read-only when everything is in it."""
    (tmp_path / "file").touch()
    tmp_path.chmod(0o755)
    mounts = [
        mount("/mnt", "tmpfs", "tmpfs", "ro"),
        mount("/mnt/a/b", "tmpfs", "tmpfs", "mode=700"),
        mount("/mnt/c/file", "bind", tmp_path / "file", "bind"),
    ]
    ran = bare.run(confined(busybox_rootfs, "sh", "-c", "find /mnt; touch /mnt/a/b/x /mnt/x", mounts=mounts))

    assert sorted(ran.out.split()) == ["/mnt", "/mnt/a", "/mnt/a/b", "/mnt/c", "/mnt/c/file"]
    assert ran.err == "touch: /mnt/x: Read-only file system\n"


def test_tmpfs_has_the_mode_of_what_it_covers(bare: Bare, rootfs: Path) -> None:
    """Unless it names one, or covers nothing; as with runc."""
    (rootfs / "secret").mkdir(mode=0o710)
    mounts = [
        mount("/secret", "tmpfs", "tmpfs"),
        mount("/named", "tmpfs", "tmpfs", "mode=701"),
        mount("/none", "tmpfs", "tmpfs"),
    ]
    ran = bare.run(confined(rootfs, "stat", "-c", "%a", "/secret", "/named", "/none", mounts=mounts))

    assert ran.out.split() == ["710", "701", "1777"]


def test_a_source_is_shown(bare: Bare, busybox_rootfs: Path) -> None:
    """The device of a file system without one is a name that df shows."""
    out = bare.run(confined(busybox_rootfs, *SHOW, mounts=[mount("/mnt", "tmpfs", "my-source")])).out

    assert next(line for line in out.splitlines() if line.split()[4] == "/mnt").split()[-2] == "my-source"


@requires("root")
@pytest.mark.conforms("config: $.mounts[].options tmpcopyup")
def test_tmpcopyup_begins_with_what_is_there(bare: Bare, rootfs: Path) -> None:
    """Contents, links, modes, owners and times of the image's directory; changes stay in the tmpfs."""
    top = rootfs / "data"
    (top / "deep/deeper").mkdir(parents=True)
    (top / "deep/file").write_text("content", encoding="ascii")
    os.link(top / "deep/file", top / "second")
    (top / "link").symlink_to("/etc/shadow")
    os.mkfifo(top / "fifo")
    os.chown(top / "deep/file", 12, 34)
    (top / "deep/file").chmod(0o4755)
    (top / "deep/deeper").chmod(0o700)
    top.chmod(0o750)
    for path in (top / "deep/file", top / "deep", top / "link"):
        os.utime(path, (5, 6), follow_symlinks=False)
    script = """
        cd /data; cat deep/file; echo; stat -c '%n %a %u:%g %F %Y' . deep deep/file deep/deeper fifo
        stat -c '%h %Y' second; readlink link; stat -c %Y link; rm -r deep; echo new > own; ls | wc -l
    """
    config = confined(
        rootfs, "sh", "-euc", script, mounts=[mount("/data", "tmpfs", "tmpfs", "tmpcopyup")], user_namespace=False
    )
    times = {path: path.stat().st_mtime_ns // 10**9 for path in (top / "deep/deeper", top / "fifo")}
    lines = bare.run(config).out.splitlines()

    assert lines[0] == "content"
    assert lines[1].startswith(". 750 0:0 directory ")
    assert lines[2:6] == [
        "deep 755 0:0 directory 6",
        "deep/file 4755 12:34 regular file 6",
        f"deep/deeper 700 0:0 directory {times[top / 'deep/deeper']}",
        f"fifo 644 0:0 fifo {times[top / 'fifo']}",
    ]
    assert lines[6:] == ["2 6", "/etc/shadow", "6", "4"]
    assert sorted(os.listdir(top)) == ["deep", "fifo", "link", "second"]


def test_tmpcopyup_of_nothing_and_too_much(bare: Bare, rootfs: Path) -> None:
    """A place that is missing makes an empty tmpfs; what does not fit is an error, not half a copy."""
    (rootfs / "much").mkdir()
    (rootfs / "much/file").write_bytes(bytes(100_000))
    options = ["tmpcopyup"] if os.geteuid() else ["tmpcopyup", "iversion"]
    ran = bare.run(confined(rootfs, "ls", "-A", "/new", mounts=[mount("/new", "tmpfs", "tmpfs", *options)]))

    assert (ran.end.code, ran.out) == (0, "")
    with pytest.raises(KernelRefused, match="copy of what is there: No space left"):
        bare.run(confined(rootfs, "true", mounts=[mount("/much", "tmpfs", "tmpfs", "tmpcopyup", "size=8k")]))


@requires("root")
@pytest.mark.conforms("config: $.mounts[].options remount")
def test_remount_changes_what_is_there(bare: Bare, busybox_rootfs: Path, tmp_path: Path) -> None:
    """On a bind it says nothing new; otherwise it names an earlier mount, which alone is changed."""
    (tmp_path / "file").touch()
    tmp_path.chmod(0o755)
    mounts = [
        mount("/mnt/a", "tmpfs", "tmpfs"),
        mount("/mnt/a", "", "", "remount", "ro", "noexec", "shared"),
        mount("/mnt/b", "bind", tmp_path, "bind", "remount", "ro"),
        mount("/proc", "proc", "proc", "remount", "ro"),
    ]
    out = bare.run(confined(busybox_rootfs, *SHOW, mounts=mounts)).out

    assert {"ro", "noexec", "shared"} <= options_at(out, "/mnt/a")
    assert "ro" in options_at(out, "/mnt/b")
    assert "ro" in options_at(out, "/proc")
    assert " - proc proc rw" in Path("/proc/self/mountinfo").read_text(encoding="utf-8")


@pytest.mark.conforms(*(f"config: $.mounts[].options {word}" for word in ("private", "shared", "unbindable")))
@pytest.mark.parametrize(
    "words, expected",
    [
        ([], set()),
        (["private"], set()),
        (["rshared"], {"shared"}),
        (["shared"], {"shared"}),
        (["rslave"], set()),
        (["shared", "slave"], set()),
        (["unbindable"], {"unbindable"}),
        (["runbindable"], {"unbindable"}),
    ],
)
def test_propagation_of_a_new_mount(bare: Bare, busybox_rootfs: Path, words: list[str], expected: set[str]) -> None:
    """A new mount has no peers: shared makes a group of its own, slave of nobody is private."""
    out = bare.run(confined(busybox_rootfs, *SHOW, mounts=[mount("/mnt", "tmpfs", "tmpfs", *words)])).out

    assert {"shared", "master", "unbindable"} & options_at(out, "/mnt") == expected


def shifted(first: int, host: int, size: int = 100) -> dict[str, list[IDMapping]]:
    """Mappings of a mount."""
    rows = [IDMapping(container_id=first, host_id=host, size=size)]
    return {"uid_mappings": rows, "gid_mappings": rows}


def owned(tmp_path: Path, *uids: int) -> Path:
    """A directory with files of these owners, by their name."""
    tmp_path.chmod(0o755)
    for uid in uids:
        (tmp_path / str(uid)).touch()
        os.chown(tmp_path / str(uid), uid, uid)
    return tmp_path


def without_user_namespace(config: Config) -> Config:
    """The same on the host's ids."""
    config.linux.namespaces = [each for each in config.linux.namespaces if each.type != "user"]
    config.linux.uid_mappings = config.linux.gid_mappings = []
    config.annotations.pop("org.ocirun.idmap", None)
    return config


@requires("root", "idmap")
@pytest.mark.conforms(
    *(
        f"config: $.mounts[].{kind}Mappings{field}"
        for kind in ("uid", "gid")
        for field in ("", "[].containerID", "[].hostID", "[].size")
    )
)
@pytest.mark.parametrize("word", ["", "idmap", "ridmap"])
def test_own_mappings_without_a_user_namespace(bare: Bare, busybox_rootfs: Path, tmp_path: Path, word: str) -> None:
    """Owners on the file system come out as the mapping says; the option is a reminder that it is there."""
    source = owned(tmp_path, 0, 5, 200)
    options = ["bind", word] if word else ["bind"]
    mounts = [mount("/mnt", "bind", source, *options, **shifted(0, 3000))]
    config = without_user_namespace(
        confined(busybox_rootfs, "stat", "-c", "%u:%g", "/mnt/0", "/mnt/5", "/mnt/200", mounts=mounts)
    )

    assert bare.run(config).out.split() == ["3000:3000", "3005:3005", "65534:65534"]


@requires("root", "idmap")
@pytest.mark.conforms("config: $.mounts[].options idmap")
@pytest.mark.parametrize("kind", ["new", "joined"])
def test_mappings_of_the_user_namespace(bare: Bare, rootfs: Path, tmp_path: Path, kind: str) -> None:
    """Idmap alone takes the container's: real owners show as they are, in a namespace made or joined."""
    source = owned(tmp_path, 0, 5)
    for name in ("plain", "mapped"):
        (rootfs / name).mkdir()
    mounts = [mount("/plain", "bind", source, "bind"), mount("/mapped", "bind", source, "bind", "idmap")]
    config = confined(rootfs, "stat", "-c", "%u", "/mapped/0", "/mapped/5", "/plain/5", mounts=mounts)
    if kind == "new":
        assert bare.run(config).out.split() == ["0", "5", "65534"]
        return
    with bare.holder(confined(rootfs)) as name:
        without_user_namespace(config)
        pid = bare.runtime.state(name)["pid"]
        config.linux.namespaces.append(Namespace(type="user", path=f"/proc/{pid}/ns/user"))

        assert bare.run(config).out.split() == ["0", "5", "65534"]


@requires("root", "idmap")
def test_own_mappings_in_a_user_namespace(bare: Bare, busybox_rootfs: Path, tmp_path: Path) -> None:
    """The mount's mapping leads to ids of the host, which the namespace then shows as its own."""
    source = owned(tmp_path, 7)
    mounts = [mount("/mnt", "bind", source, "bind", "idmap", **shifted(7, mapping().host_id + 42, 1))]
    config = confined(busybox_rootfs, "stat", "-c", "%u:%g", "/mnt/7", mounts=mounts)

    assert bare.run(config).out == "42:42\n"


@requires("root", "idmap")
@pytest.mark.conforms("config: $.mounts[].options ridmap")
def test_ridmap_maps_the_whole_tree(busybox_rootfs: Path, tmp_path: Path) -> None:
    """Idmap maps the top alone."""
    with host_mounts(tmp_path) as (tree, late):
        mounts = [
            mount("/top", "bind", tree, "rbind", "idmap", **shifted(0, 3000)),
            mount("/all", "bind", tree, "rbind", "ridmap", **shifted(0, 3000)),
        ]
        paths = ["/top", "/top/below", "/all", "/all/below"]
        config = without_user_namespace(confined(busybox_rootfs, "stat", "-c", "%u", *paths, mounts=mounts))

        assert late.run(config).out.split() == ["3000", "0", "3000", "3000"]


@requires("root", "idmap")
def test_files_written_through_a_mapping_are_the_others(bare: Bare, busybox_rootfs: Path, tmp_path: Path) -> None:
    """Who writes as the mapped id leaves files of the file system's own id."""
    source = owned(tmp_path, 9)
    source.chmod(0o777)
    mounts = [mount("/mnt", "bind", source, "bind", **shifted(0, 3000))]
    config = without_user_namespace(confined(busybox_rootfs, "touch", "/mnt/new", mounts=mounts))
    config.process.user.uid = config.process.user.gid = 3012
    ran = bare.run(config)

    assert ran.end.code == 0, ran
    assert ((source / "new").stat().st_uid, (source / "new").stat().st_gid) == (12, 12)


@requires("root")
def test_idmap_without_mappings_is_an_error(bare: Bare, busybox_rootfs: Path, tmp_path: Path) -> None:
    """Nothing says how to map."""
    config = without_user_namespace(
        confined(busybox_rootfs, "true", mounts=[mount("/mnt", "bind", tmp_path, "bind", "idmap")])
    )
    with pytest.raises(ConfigError, match="needs uidMappings and gidMappings"):
        bare.run(config)


@requires("root")
def test_a_file_system_that_cannot_be_mapped_is_named(bare: Bare, busybox_rootfs: Path) -> None:
    """The kernel refuses proc, and the message says what was tried on what."""
    mounts = [mount("/mnt", "bind", "/proc/sys", "bind", **shifted(0, 3000))]
    config = without_user_namespace(confined(busybox_rootfs, "true", mounts=mounts))

    with pytest.raises(KernelRefused, match=r"/proc/sys.*map its owners"):
        bare.run(config)


@requires("root")
def test_block_devices_are_mounted(bare: Bare, busybox_rootfs: Path, tmp_path: Path) -> None:
    """A file system of its own on a device, here read-only by its nature too: a loop device of a small ext2."""
    file = tmp_path / "image"
    file.write_bytes(bytes(1 << 20))
    if subprocess.run(["mke2fs", "-q", "-F", file], check=False, capture_output=True).returncode:
        pytest.skip("mke2fs fails here")
    device = subprocess.run(
        ["losetup", "--find", "--show", "--read-only", file], capture_output=True, text=True, check=False
    )
    if device.returncode:
        pytest.skip(f"this kernel lacks loop devices: {device.stderr}")
    try:
        mounts = [mount("/mnt", "ext2", device.stdout.strip(), "ro")]
        number = os.stat(device.stdout.strip()).st_rdev
        rule = DeviceRule(allow=True, type="b", major=os.major(number), minor=os.minor(number), access="rwm")
        limits = Resources(devices=[rule])
        config = confined(busybox_rootfs, "ls", "/mnt", mounts=mounts, user_namespace=False, resources=limits)
        assert bare.run(config).out == "lost+found\n"
    finally:
        subprocess.run(["losetup", "--detach", device.stdout.strip()], check=True)


@requires("root")
def test_masks_cannot_be_chmodded_through_to_the_host(bare: Bare, busybox_rootfs: Path) -> None:
    """A masked file is the host's null device on a read-only mount: its mode and owner are not the container's."""
    before = os.stat("/dev/null")
    script = "chmod 600 /proc/keys; chown 7 /proc/keys; echo x > /proc/keys && cat /proc/keys"
    config = without_user_namespace(confined(busybox_rootfs, "sh", "-c", script))
    names = ["CAP_FOWNER", "CAP_CHOWN", "CAP_DAC_OVERRIDE"]
    assert config.process.capabilities is not None
    sets = config.process.capabilities
    sets.bounding, sets.effective, sets.permitted = names, names, names
    config.linux.masked_paths = ["/proc/keys"]
    ran = bare.run(config)
    after = os.stat("/dev/null")

    assert ran.err.count("Read-only file system") == 2, ran
    assert (ran.end.code, ran.out) == (0, "")
    assert (stat.S_IMODE(before.st_mode), before.st_uid) == (stat.S_IMODE(after.st_mode), after.st_uid)


def test_flags_of_the_source_stay(bare: Bare, busybox_rootfs: Path, tmp_path: Path) -> None:
    """Unless an option takes them away, which only root may: for a plain user they are locked, and that is an error."""
    if os.geteuid():
        lines = Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()
        source = next(line.split()[4] for line in lines if "nosuid" in line.split()[5] and " - tmpfs " in line)
        kept = bare.run(confined(busybox_rootfs, *SHOW, mounts=[mount("/kept", "bind", source, "rbind", "ro")])).out
        with pytest.raises(KernelRefused, match=f"{source}.*not permitted"):
            bare.run(confined(busybox_rootfs, *SHOW, mounts=[mount("/less", "bind", source, "rbind", "suid")]))
    else:
        with host_mounts(tmp_path) as (tree, late):
            below = tree / "below"
            mounts = [mount("/less", "bind", below, "rbind", "suid"), mount("/kept", "bind", below, "rbind", "ro")]
            kept = late.run(confined(busybox_rootfs, *SHOW, mounts=mounts)).out
        assert "nosuid" not in options_at(kept, "/less")

    assert {"ro", "nosuid"} <= options_at(kept, "/kept")
