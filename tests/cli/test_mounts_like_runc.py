"""The same bundle under ocirun and under Debian's runc shows the same mounts, devices and paths.

Where they differ on purpose, ``test_better_than_runc`` says how.
"""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Cli, Config, Done
from tests.requires import requires

pytestmark = requires("root", "runc", "busybox", "cgroup_v1")

SHOW = r"while read a b c d e f r; do case $e in /mnt/*) echo $e $f $r;; esac; done < /proc/self/mountinfo | sort"
STAT = "stat -c '%n %F %t:%T %a %u:%g'"
PEERS = re.compile(r",mode=755|(shared|master):\d+")
"""Numbers of peer groups, and a mode that runc 1.1 sets by chmod."""


class Pair:
    """One bundle for both.

    Args:
        cli: ocirun.
        rootfs: a root file system of the test's own.
    """

    def __init__(self, cli: Cli, rootfs: Path) -> None:
        self.cli = cli
        self.rootfs = rootfs

    def write(self, script: str, edit: Callable[[Config], None]) -> None:
        """Write the bundle."""

        def both(config: Config) -> None:
            config["root"] = {"path": str(self.rootfs)}
            names = ["CAP_SYS_ADMIN", "CAP_MKNOD", "CAP_DAC_OVERRIDE"]
            config["process"]["capabilities"] = dict.fromkeys(("bounding", "effective", "permitted"), names)
            config["mounts"] = [each for each in config["mounts"] if each["type"] != "cgroup"]
            config["linux"].pop("resources", None)
            config["process"]["noNewPrivileges"] = False
            edit(config)

        self.cli.write("sh", "-c", script, edit=both)

    def runc(self) -> Done:
        """Run it there."""
        name = self.cli.new_id()
        root = self.cli.root.with_name("runc")
        command = ["runc", "--root", str(root), "run", name]
        done = subprocess.run(command, check=False, capture_output=True, text=True, input="", cwd=self.cli.bundle)
        subprocess.run(["runc", "--root", root, "delete", "--force", name], check=False, capture_output=True)
        return Done(done.returncode, PEERS.sub(r"\1", done.stdout), done.stderr)

    def ocirun(self) -> Done:
        """Run it here."""
        done = self.cli("run", self.cli.new_id())
        return Done(done.code, PEERS.sub(r"\1", done.out), done.err)

    def same(self, script: str, edit: Callable[[Config], None]) -> str:
        """Run both, insist on the same output; the output."""
        self.write(script, edit)
        theirs, ours = self.runc(), self.ocirun()
        assert (ours.code, ours.out) == (theirs.code, theirs.out), (ours, theirs)
        return ours.out


@pytest.fixture
def pair(cli: Cli, tmp_path: Path) -> Pair:
    """Both, with a source beside the bundle's config.json and a few things in the root."""
    rootfs = tmp_path / "rootfs"
    subprocess.run(["cp", "-a", cli.rootfs, rootfs], check=True)
    (cli.bundle / "src/sub").mkdir(parents=True)
    (cli.bundle / "src/file").write_text("file\n")
    (rootfs / "full/sub").mkdir(parents=True)
    (rootfs / "full/f").write_text("f\n")
    os.chown(rootfs / "full/f", 5, 6)
    (rootfs / "full").chmod(0o711)
    return Pair(cli, rootfs)


def adding(*mounts: dict[str, Any]) -> Callable[[Config], None]:
    """An edit."""

    def edit(config: Config) -> None:
        config["mounts"] += mounts

    return edit


def setting(**properties: Any) -> Callable[[Config], None]:
    """An edit of ``linux``."""

    def edit(config: Config) -> None:
        config["linux"] |= properties

    return edit


NEW = """ro nosuid,nodev,noexec noatime strictatime nodiratime relatime atime norelatime nostrictatime
    noatime,nostrictatime silent loud sync dirsync lazytime mand async nolazytime nomand nosymfollow symfollow ro,rw
    size=64k,mode=700,uid=3 private rprivate shared rshared slave rslave unbindable runbindable slave,shared
    iversion noiversion"""
TOGETHER = {"destination": "/mnt/together", "type": "tmpfs", "source": "t", "options": ["size=64k,mode=710"]}
BOUND = """bind rbind bind,ro rbind,ro rbind,rro bind,nosuid,nodev,noexec bind,noatime bind,strictatime bind,rw
    bind,nosymfollow rbind,rprivate rbind,rslave rbind,rshared rbind,runbindable
    rbind,rnoexec,rnosuid,rnodev,rnoatime"""
IGNORED = "bind,size=1,mode=700,sync,lazytime"


@pytest.mark.conforms(
    *(
        f"config: $.mounts[].options {word}"
        for word in sorted({*NEW.replace(",", " ").split(), *BOUND.replace(",", " ").split()})
        if "=" not in word
    )
)
@pytest.mark.conforms("config: $.mounts[].options")
def test_options_of_mounts(pair: Pair) -> None:
    """Every option that runc knows has its effect here, and no other."""
    mounts: list[dict[str, Any]] = [
        {"destination": f"/mnt/new-{words}", "type": "tmpfs", "source": "source", "options": words.split(",")}
        for words in NEW.split()
    ]
    mounts += [
        {"destination": f"/mnt/{words}", "type": "none", "source": "src", "options": words.split(",")}
        for words in (*BOUND.split(), IGNORED)
    ]

    assert len(pair.same(SHOW, adding(*mounts, TOGETHER)).splitlines()) == len(mounts) + 1


@pytest.mark.conforms(
    "config: $.mounts[].type tmpfs",
    "config: $.mounts[].type ramfs",
    "config: $.mounts[].type proc",
    "config: $.mounts[].type mqueue",
    "config: $.mounts[].type devpts",
    "config: $.mounts[].type overlay",
)
@pytest.mark.conforms("config: $.mounts[].type", "config: $.mounts[].destination", "config: $.mounts[].source")
def test_kinds_places_and_order_of_mounts(pair: Pair) -> None:
    """File systems, destinations that are made, relative ones, links, files, later mounts in earlier ones."""
    (pair.rootfs / "link").symlink_to("../../mnt/behind")
    (pair.rootfs / "etc/resolv.conf").symlink_to("../mnt/run/stub/resolv.conf")
    mounts: list[dict[str, Any]] = [
        {"destination": "/mnt/ramfs", "type": "ramfs", "source": "ram"},
        {"destination": "/mnt/proc", "type": "proc", "source": "proc"},
        {"destination": "/mnt/mqueue", "type": "mqueue", "source": "mqueue"},
        {"destination": "/mnt/pts", "type": "devpts", "source": "devpts", "options": ["newinstance", "mode=600"]},
        {"destination": "/mnt/overlay", "type": "overlay", "source": "o", "options": ["lowerdir=/usr:/etc"]},
        {"destination": "mnt/relative", "type": "tmpfs", "source": "tmpfs"},
        {"destination": "/mnt/a/../b/./c", "type": "tmpfs", "source": "tmpfs"},
        {"destination": "/link/deep", "type": "tmpfs", "source": "tmpfs"},
        {"destination": "/etc/resolv.conf", "source": "src/file", "options": ["bind", "ro"]},
        {"destination": "/mnt/files/file", "source": "src/file", "options": ["bind"]},
        {"destination": "/proc/cpuinfo", "source": "src/file", "options": ["bind"]},
        {"destination": "/mnt/ro", "type": "tmpfs", "source": "tmpfs", "options": ["ro"]},
        {"destination": "/mnt/ro/inner", "type": "tmpfs", "source": "tmpfs"},
        {"destination": "/full", "type": "tmpfs", "source": "tmpfs"},
    ]
    script = f"{SHOW}; cat /etc/resolv.conf /proc/cpuinfo; stat -c %a /full; ls -A /full"

    assert "file\nfile\n711\n" in pair.same(script, adding(*mounts))


def test_mounts_show_in_the_configs_order(pair: Pair) -> None:
    """In mountinfo, where the runtime-tools look for it."""
    mounts: list[dict[str, Any]] = [
        {"destination": "/mnt/a", "type": "tmpfs", "source": "tmpfs"},
        {"destination": "/mnt/b", "source": "src", "options": ["bind"]},
        {"destination": "/mnt/c", "type": "tmpfs", "source": "tmpfs"},
        {"destination": "/mnt/d", "source": "src", "options": ["rbind", "ro"]},
    ]

    assert pair.same(SHOW.removesuffix(" | sort"), adding(*mounts)).count("/mnt/") == 4


@pytest.mark.conforms("config: $.mounts[].options tmpcopyup")
def test_tmpcopyup(pair: Pair) -> None:
    """Names, modes, owners and contents."""
    mount = {"destination": "/full", "type": "tmpfs", "source": "tmpfs", "options": ["tmpcopyup"]}

    assert "5:6" in pair.same(f"cd /full; {STAT} . f sub; cat f", adding(mount))


@pytest.mark.parametrize(
    "mount",
    [
        {"destination": "/mnt", "type": "tmpfs", "source": "t", "options": ["bogus"]},
        {"destination": "/mnt", "type": "nosuch", "source": "t"},
        {"destination": "/mnt", "type": "bind", "source": "nosuch", "options": ["bind"]},
        {"destination": "/mnt", "source": "src"},
        {"destination": "/", "type": "tmpfs", "source": "t"},
        {"destination": "/proc", "source": "src", "options": ["bind"]},
        {"destination": "/proc/self", "source": "src", "options": ["bind"]},
        {"destination": "/full", "source": "src/file", "options": ["bind"]},
        {"destination": "/full/f", "source": "src", "options": ["bind"]},
    ],
    ids=str,
)
def test_mounts_that_are_refused(pair: Pair, mount: dict[str, Any]) -> None:
    """Both fail, with exit status 1."""
    pair.same("true", adding(mount))


@pytest.mark.conforms("config: $.linux.devices")
def test_devices(pair: Pair) -> None:
    """The default ones and their links, given ones of each type, nodes made inside, equal ones twice."""
    fuse = {"major": 10, "minor": 229}
    devices: list[dict[str, Any]] = [
        {"path": "/dev/c", "type": "c", **fuse, "fileMode": 0o640, "uid": 3, "gid": 4},
        {"path": "/dev/u", "type": "u", **fuse},
        {"path": "/dev/b", "type": "b", "major": 7, "minor": 0, "fileMode": 0o600},
        {"path": "/dev/p", "type": "p"},
        {"path": "/opt/zero", "type": "c", "major": 1, "minor": 5},
        {"path": "/opt/zero", "type": "c", "major": 1, "minor": 5},
    ]
    script = f"{STAT} /dev/*; for l in fd stdin stdout stderr ptmx; do readlink /dev/$l; done; "
    script += "head -c 2 /opt/zero | wc -c; mknod /tmp/z c 1 5 && head -c 2 /tmp/z | wc -c; rm /tmp/z"

    assert pair.same(script, setting(devices=devices)).endswith("2\n2\n")


def test_where_dev_comes_from(pair: Pair) -> None:
    """No mount at /dev, the host's bound there, a read-only one."""

    def without(config: Config) -> None:
        config["mounts"] = [each for each in config["mounts"] if not each["destination"].startswith("/dev")]

    def bound(config: Config) -> None:
        without(config)
        adding({"destination": "/dev", "source": "/dev", "options": ["rbind"]})(config)

    def read_only(config: Config) -> None:
        next(each for each in config["mounts"] if each["destination"] == "/dev")["options"].append("ro")

    pair.same("stat -c '%n %a %t:%T' /dev/null /dev/full", bound)
    pair.same("ls /dev; touch /dev/x", read_only)
    pair.same(f"{STAT} /dev/*", without)


@pytest.mark.conforms("config: $.linux.maskedPaths", "config: $.linux.readonlyPaths", "config: $.root.readonly")
def test_masked_and_read_only_paths(pair: Pair) -> None:
    """Files, directories, missing ones, behind links; the root alone is read-only, not what is mounted in it."""
    (pair.rootfs / "behind").symlink_to("full/f")
    script = "stat -c '%n %F %t:%T' /full/f /full/sub /proc/keys; cat /full/f; ls /full/sub; "
    script += "touch /full/sub/x; echo a > /full/f; "
    pair.same(
        f"{script}echo $?", setting(maskedPaths=["/proc/keys", "/behind", "/full/sub", "/nosuch", "/sys/firmware"])
    )
    script = "touch /full/x; echo a > /full/f; touch /full/sub/x; echo > /proc/sys/kernel/domainname; echo $?"
    pair.same(script, setting(readonlyPaths=["/full", "/nosuch", "/behind", "/proc/sys"]))

    def read_only(config: Config) -> None:
        config["root"]["readonly"] = True

    assert pair.same("touch /x && echo root; touch /dev/x && echo dev", read_only) == "dev\n"


@pytest.mark.conforms("config: $.root.path")
def test_paths_of_the_root(pair: Pair) -> None:
    """Relative to the bundle, with dots; a missing one or a file is an error."""
    shutil.copytree(pair.rootfs, pair.cli.bundle / "own", symlinks=True)
    for path in ("own", "../bundle/./own", "nosuch", "own/full/f", ""):

        def edit(config: Config, path: str = path) -> None:
            config["root"]["path"] = path

        pair.same("ls /full", edit)
    pair.same("true", lambda config: config.pop("root"))


@pytest.mark.conforms(
    "config: $.linux.rootfsPropagation private",
    "config: $.linux.rootfsPropagation rprivate",
    "config: $.linux.rootfsPropagation slave",
    "config: $.linux.rootfsPropagation rslave",
)
@pytest.mark.parametrize("mode", ["private", "rprivate", "slave", "rslave", "", "public"])
@pytest.mark.conforms("config: $.linux.rootfsPropagation")
def test_propagation_of_the_root(pair: Pair, mode: str) -> None:
    """As the container's own mountinfo tells it."""
    script = "while read a b c d e f r; do [ $e = / ] && echo $f $r; done < /proc/self/mountinfo"
    pair.same(script, setting(rootfsPropagation=mode))


@pytest.mark.parametrize("name", ["proc", "sys"])
def test_links_in_place_of_system_directories(pair: Pair, name: str) -> None:
    """Both refuse them (CVE-2019-19921)."""
    (pair.rootfs / name).rmdir()
    (pair.rootfs / name).symlink_to("/tmp")
    pair.same("true", setting())


def test_user_namespace(pair: Pair) -> None:
    """Devices and terminals of a container with ids of its own."""
    subprocess.run(["chown", "-hR", "100000:100000", pair.rootfs], check=True)
    for folder in (pair.rootfs, *pair.rootfs.parents[:3]):
        folder.chmod(0o755)

    def edit(config: Config) -> None:
        rows = [{"containerID": 0, "hostID": 100000, "size": 65536}]
        config["linux"]["namespaces"].append({"type": "user"})
        config["linux"] |= {"uidMappings": rows, "gidMappings": rows}

    pair.same(f"{STAT} /dev/null /dev/pts/ptmx /proc /sys /mnt /full; ls /dev", edit)


UNMAPPED = [{"containerID": 0, "hostID": 3000, "size": 10}]


NULL = {"path": "/dev/null", "type": "c", "major": 1, "minor": 3, "fileMode": 0o622}
SHARED = "awk '$5 == \"/\" && /shared:/' /proc/self/mountinfo | wc -l"
TMPFS = {"destination": "/mnt", "type": "tmpfs", "source": "tmpfs"}
BIND = {"destination": "/mnt", "source": "src"}


@pytest.mark.parametrize(
    "script, edit, wanted",
    [
        ("stat -c %a /dev/null", setting(devices=[NULL]), "622"),
        (
            "stat -c %u /mnt/file",
            adding({**BIND, "options": ["bind"], "uidMappings": UNMAPPED, "gidMappings": UNMAPPED}),
            "3000",
        ),
        (SHARED, setting(rootfsPropagation="shared"), "1"),
        ("echo unbindable", setting(rootfsPropagation="unbindable"), "unbindable"),
        ("grep -c ' /mnt ro,' /proc/self/mountinfo", adding({**TMPFS, "options": ["rro"]}), "1"),
        ("echo defaults", adding({**TMPFS, "options": ["defaults"]}), "defaults"),
        ("echo remount", adding({**BIND, "options": ["bind", "remount", "ro"]}), "remount"),
        ("echo type", adding({**BIND, "type": "bind"}), "type"),
    ],
    ids=["equal-device", "own-mappings", "shared", "unbindable", "rro-tmpfs", "defaults", "remount", "type-bind"],
)
def test_better_than_runc(pair: Pair, script: str, edit: Callable[[Config], None], wanted: str) -> None:
    """What runc 1.1 refuses or ignores; the specification asks for it, or nothing speaks against it."""
    pair.write(script, edit)

    assert pair.ocirun().out == f"{wanted}\n", pair.ocirun()
    assert pair.runc().out != f"{wanted}\n"


@pytest.mark.parametrize(
    "mount",
    [
        {"destination": "/proc/sys", "type": "tmpfs", "source": "t"},
        {"destination": "/mnt", "source": "src", "options": ["bind", "idmap"]},
    ],
    ids=["tmpfs-on-proc", "idmap-without-maps"],
)
def test_stricter_than_runc(pair: Pair, mount: dict[str, Any]) -> None:
    """What runc 1.1 ignores silently is an error here."""
    pair.write("true", adding(mount))

    assert pair.runc().code == 0
    assert pair.ocirun().code == 1


def test_the_bundle_is_one(pair: Pair) -> None:
    """Both read the same file."""
    pair.write("echo it", setting())

    assert json.loads((pair.cli.bundle / "config.json").read_text())["process"]["args"][-1] == "echo it"
    assert (pair.ocirun().out, pair.runc().out) == ("it\n", "it\n")
