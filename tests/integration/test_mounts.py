"""Mounts: every kind and option, as /proc/self/mountinfo of the container tells them."""

import os
import subprocess
from pathlib import Path

import pytest

from pytest_ocirun.engine.container import Container
from pytest_ocirun.errors import ConfigError, KernelRefused, Unsupported
from pytest_ocirun.oci.runtime import Mount
from tests.boxes import Bare, confined, shell
from tests.requires import requires

pytestmark = [requires("userns", "overlay", "seccomp", "busybox"), pytest.mark.lane("v2")]


def mount(destination: str, kind: str, source: str, options: list[str]) -> Mount:
    """A mount as a config has it."""
    return Mount(destination=destination, type=kind, source=source, options=list(options))


def options_of(bare: Bare, rootfs: Path, wanted: Mount) -> tuple[set[str], str, str]:
    """Mount options, kind and superblock options of what a config mounts."""
    ran = bare.run(confined(rootfs, "cat", "/proc/self/mountinfo", mounts=[wanted]))
    line = next(line for line in ran.out.splitlines() if line.split()[4] == wanted.destination)
    left, _, right = line.partition(" - ")
    return set(left.split()[5].split(",")), right.split()[0], right.split()[2]


@pytest.mark.parametrize(
    "options, expected",
    [
        ([], {"rw", "relatime"}),
        (["nosuid", "nodev", "noexec"], {"rw", "nosuid", "nodev", "noexec", "relatime"}),
        (["ro", "noatime"], {"ro", "noatime"}),
        (["ro", "rw"], {"rw", "relatime"}),
        (["nosuid", "suid", "nodiratime"], {"rw", "nodiratime", "relatime"}),
        (["noatime", "strictatime"], {"rw"}),
        (["nosymfollow"], {"rw", "relatime", "nosymfollow"}),
        (["defaults"], {"rw", "relatime"}),
    ],
)
def test_options_of_a_new_mount(bare: Bare, busybox_rootfs: Path, options: list[str], expected: set[str]) -> None:
    """Each option is the mount's attribute, the last of two that contradict each other wins."""
    found, kind, _super = options_of(bare, busybox_rootfs, mount("/mnt", "tmpfs", "tmpfs", options))

    assert (kind, found) == ("tmpfs", expected)


def test_data_of_a_file_system(bare: Bare, busybox_rootfs: Path) -> None:
    """What is no attribute goes to the file system."""
    _found, _kind, data = options_of(
        bare, busybox_rootfs, mount("/mnt", "tmpfs", "tmpfs", ["size=64k", "mode=700", "nr_inodes=10"])
    )

    assert {"size=64k", "mode=700", "nr_inodes=10"} <= set(data.split(","))


@pytest.mark.parametrize(
    "options, expected",
    [
        (["rbind"], {"rw"}),
        (["rbind", "ro", "nosuid", "nodev"], {"ro", "nosuid", "nodev"}),
        (["rbind", "rro", "rnoexec"], {"ro", "noexec"}),
        pytest.param(["rbind", "noatime", "ro"], {"ro", "noatime"}, marks=requires("root")),
    ],
)
def test_options_of_a_bind(
    bare: Bare, busybox_rootfs: Path, tmp_path: Path, options: list[str], expected: set[str]
) -> None:
    """A bind takes the attributes that it names; nothing of the source's mount changes."""
    of_tmp = ["findmnt", "-no", "OPTIONS", "-T", str(tmp_path)]
    before = subprocess.check_output(of_tmp)
    found, _kind, _super = options_of(bare, busybox_rootfs, mount("/mnt", "bind", str(tmp_path), options))

    assert expected <= found
    assert subprocess.check_output(of_tmp) == before
    assert str(tmp_path) not in Path("/proc/self/mountinfo").read_text(encoding="utf-8")


def test_relative_source_starts_at_the_bundle(bare: Bare, busybox_rootfs: Path) -> None:
    """A bind's relative source lies in the bundle."""
    (bare.root / "@given").mkdir(exist_ok=True)
    (bare.root / "@given/file").touch()
    bare.root.chmod(0o755)
    mounts = [mount("/mnt", "bind", "@given", ["rbind", "ro"])]

    assert bare.run(confined(busybox_rootfs, "ls", "/mnt", mounts=mounts)).out == "file\n"


def test_mounts_come_in_the_configs_order(bare: Bare, busybox_rootfs: Path, tmp_path: Path) -> None:
    """A later mount covers an earlier one, and can lie in it."""
    (tmp_path / "inner").mkdir()
    tmp_path.chmod(0o755)
    mounts = [
        mount("/mnt", "tmpfs", "tmpfs", []),
        mount("/mnt/a/b", "bind", str(tmp_path), ["rbind", "ro"]),
        mount("/mnt/a/b/inner", "tmpfs", "tmpfs", ["mode=711"]),
        mount("/mnt/file", "bind", "/dev/null", ["rbind"]),
    ]
    script = "ls /mnt /mnt/a/b; stat -c %a /mnt/a/b/inner; stat -c %t:%T /mnt/file"
    ran = bare.run(confined(busybox_rootfs, "sh", "-c", script, mounts=mounts))

    assert ran.out.split() == ["/mnt:", "a", "file", "/mnt/a/b:", "inner", "711", "1:3"]


def test_nested_binds_are_read_only_all_the_way(bare: Bare, busybox_rootfs: Path) -> None:
    """Rro reaches the mounts below a bind; ro alone is the top's, as mount(8) has it."""
    mounts = [mount("/mnt", "bind", "/dev", ["rbind", "rro"])]
    ran = bare.run(confined(busybox_rootfs, "sh", "-c", "touch /mnt/x; touch /mnt/shm/x", mounts=mounts))

    assert ran.err.count("Read-only file system") == 2, ran.err


def test_usual_mounts_are_there(box: Container) -> None:
    """What programs expect: proc, sys, dev with pts, shm and mqueue."""
    seen = dict(line.split()[1:3] for line in shell(box, "cat /proc/self/mounts").splitlines())
    kinds = {path: seen[path] for path in ("/proc", "/sys", "/dev", "/dev/pts", "/dev/shm", "/dev/mqueue", "/")}

    assert kinds == {
        "/proc": "proc",
        "/sys": "sysfs",
        "/dev": "tmpfs",
        "/dev/pts": "devpts",
        "/dev/shm": "tmpfs",
        "/dev/mqueue": "mqueue",
        "/": "overlay",
    }
    assert shell(box, "stat -c %a /dev/shm /tmp; ls -l /dev/ptmx /dev/fd | awk '{print $NF}'").split() == [
        *("1777", "1777"),
        *("/proc/self/fd", "pts/ptmx"),
    ]


@pytest.mark.parametrize(
    "wrong, error",
    [
        (mount("/mnt", "bind", "", ["ro"]), ConfigError),
        (mount("/mnt", "", "/usr", []), ConfigError),
        (mount("/mnt", "overlay", "overlay", ["lowerdir=/usr", "mode=755"]), ConfigError),
        (mount("/mnt", "overlay", "overlay", ["mode=x"]), ConfigError),
        (mount("/mnt", "tmpfs", "tmpfs", ["idmap"]), ConfigError),
        (mount("/mnt", "tmpfs", "tmpfs", ["remount", "size=1m"]), ConfigError),
        (mount("/mnt", "tmpfs", "tmpfs", ["remount"]), KernelRefused),
        (mount("/mnt", "bind", "/usr", ["bind", "src-nofollow"]), Unsupported),
        (mount("/mnt", "bind", "/no/such", ["ro"]), KernelRefused),
        (mount("/mnt", "nosuchfs", "x", []), KernelRefused),
        (mount("/mnt", "tmpfs", "tmpfs", ["nonsense"]), KernelRefused),
    ],
    ids=lambda value: value if isinstance(value, type) else str(getattr(value, "options", value)),
)
def test_wrong_mounts_are_named(bare: Bare, busybox_rootfs: Path, wrong: Mount, error: type[Exception]) -> None:
    """Each wrong mount is an error that names it, and never a mount without what was asked for."""
    with pytest.raises(error, match=r"mounts\[6\]|/mnt|/no/such|mount6"):
        bare.run(confined(busybox_rootfs, mounts=[wrong]))


@requires("root")
def test_a_shared_root_propagates_nothing(bare: Bare, busybox_rootfs: Path) -> None:
    """Mounts that a container without confinement makes stay inside, whatever the propagation of the root."""
    name = f"ocirun-test-{os.getpid()}"
    for propagation in ("", "private", "slave", "rslave"):
        config = confined(busybox_rootfs, "mount", "-t", "tmpfs", name, "/tmp", user_namespace=False)
        config.linux.rootfs_propagation = propagation
        config.linux.seccomp = None
        names = ["CAP_SYS_ADMIN"]
        assert config.process.capabilities is not None
        sets = config.process.capabilities
        sets.bounding, sets.effective, sets.permitted = names, names, names

        assert bare.run(config).end.code == 0
    assert name not in Path("/proc/self/mountinfo").read_text(encoding="utf-8")


def test_masks_hide_what_is_mounted_too(bare: Bare, busybox_rootfs: Path, tmp_path: Path) -> None:
    """Masked and read-only paths are applied last, so they hold for the config's own mounts."""
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret/file").write_text("x", encoding="ascii")
    (tmp_path / "plain").write_text("plain", encoding="ascii")
    tmp_path.chmod(0o777)
    config = confined(
        busybox_rootfs,
        "sh",
        "-c",
        "ls /mnt/secret; cat /mnt/plain; touch /etc/x",
        mounts=[mount("/mnt", "bind", str(tmp_path), ["rbind"])],
    )
    config.linux.masked_paths += ["/mnt/secret", "/mnt/plain", "/mnt/missing"]
    config.linux.readonly_paths += ["/etc", "/missing"]
    ran = bare.run(config)

    assert ran.out == ""
    assert "Read-only file system" in ran.err
    assert os.listdir(tmp_path / "secret") == ["file"]
