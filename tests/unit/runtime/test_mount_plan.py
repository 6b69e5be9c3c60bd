"""The table of mount options, and what a mount becomes."""

import pytest

from pytest_ocirun.errors import ConfigError
from pytest_ocirun.linux import mount as m
from pytest_ocirun.oci.runtime import Mount
from pytest_ocirun.runtime.mount_plan import MountPlan, Options

IDMAPS = [[[0, 1000, 10]], [[0, 1000, 10]]]


def planned(*mounts: Mount, idmaps: list[list[list[int]]] | None = None) -> MountPlan:
    """The plan of mounts."""
    return MountPlan(list(mounts), bundle="/b", idmaps=idmaps, owner=(1000, 1000), cgroups=[])


@pytest.mark.parametrize(
    "option, set_, clear",
    [
        ("ro", m.MOUNT_ATTR_RDONLY, 0),
        ("rw", 0, m.MOUNT_ATTR_RDONLY),
        ("nosuid", m.MOUNT_ATTR_NOSUID, 0),
        ("suid", 0, m.MOUNT_ATTR_NOSUID),
        ("nodev", m.MOUNT_ATTR_NODEV, 0),
        ("dev", 0, m.MOUNT_ATTR_NODEV),
        ("noexec", m.MOUNT_ATTR_NOEXEC, 0),
        ("exec", 0, m.MOUNT_ATTR_NOEXEC),
        ("noatime", m.MOUNT_ATTR_NOATIME, m.MOUNT_ATTR__ATIME),
        ("relatime", 0, m.MOUNT_ATTR__ATIME),
        ("strictatime", m.MOUNT_ATTR_STRICTATIME, m.MOUNT_ATTR__ATIME),
        ("nodiratime", m.MOUNT_ATTR_NODIRATIME, 0),
        ("nosymfollow", m.MOUNT_ATTR_NOSYMFOLLOW, 0),
        ("symfollow", 0, m.MOUNT_ATTR_NOSYMFOLLOW),
        ("defaults", 0, 0),
    ],
)
def test_option_is_an_attribute(option: str, set_: int, clear: int) -> None:
    """Each word is one bit to set or to clear, and never data for the file system."""
    options = Options([option])

    assert (options.set, options.clear, options.data) == (set_, clear, {})


def test_last_of_two_opposites_wins() -> None:
    """As mount(8) reads its options."""
    assert Options(["ro", "rw"]).set == 0
    assert Options(["rw", "ro"]).set == m.MOUNT_ATTR_RDONLY
    assert Options(["noatime", "strictatime"]).set == m.MOUNT_ATTR_STRICTATIME


def test_recursive_options_are_kept_apart() -> None:
    """Rro is set on the whole tree, ro on its top alone; rbind is no recursive "bind"."""
    options = Options(["rbind", "rro", "rnosuid", "noexec"])

    assert (options.bind, options.recursive) == (True, True)
    assert options.set_recursive == m.MOUNT_ATTR_RDONLY | m.MOUNT_ATTR_NOSUID
    assert options.set == m.MOUNT_ATTR_NOEXEC


def test_what_is_no_attribute_is_data() -> None:
    """Keys with values, and flags without."""
    assert Options(["size=1m", "mode=755", "newinstance"]).data == {"size": "1m", "mode": "755", "newinstance": None}


@pytest.mark.parametrize(
    "destination", ["/proc", "proc", "//proc", "/./proc", "/x/../proc", "/proc/", "///proc//", "/../proc"]
)
def test_each_spelling_of_a_destination_is_one(destination: str) -> None:
    """The runtime's own directories are told by their path."""
    made = planned(Mount(destination=destination, type="proc", source="proc"))

    assert [step[1] for step in made.enter] == ["/proc"]


def test_bind_becomes_a_copy_and_a_move() -> None:
    """Made before the clone with the rights of the host, moved into place inside."""
    made = planned(Mount(destination="/d", type="bind", source="s", options=["rbind", "ro", "rslave"]))

    assert made.prepare == [["clone_tree", "mount0", "/b/s", True, m.MOUNT_ATTR_RDONLY, 0, 0, None]]
    assert made.enter == [["attach", "mount0", "/d", m.MS_SLAVE | m.MS_REC]]


def test_idmapped_bind_carries_the_maps() -> None:
    """Only where asked for."""
    mounts = [Mount(destination="/d", type="bind", source="/s", options=options) for options in (["idmap"], [])]
    made = planned(*mounts, idmaps=IDMAPS)

    assert [step[-1] for step in made.prepare] == [IDMAPS, None]


def test_overlays_get_layers_of_their_own() -> None:
    """Layer 0 is the root's; empty directories and overlays share the numbering."""
    made = planned(
        Mount(destination="/a", type="overlay", options=["lowerdir=/l"]),
        Mount(destination="/b", type="overlay", options=["mode=1777", "nosuid"]),
    )

    assert made.prepare == [
        ["overlay", "mount0", "/l", 1, 1000, 1000, 0, None],
        ["scratch", "mount1", 2, 1000, 1000, 0o1777, m.MOUNT_ATTR_NOSUID],
    ]
    assert made.overlays == 2


@pytest.mark.parametrize("gid, kept", [("5", True), ("50", False)])
def test_group_of_terminals_only_where_it_is_mapped(gid: str, kept: bool) -> None:
    """The kernel refuses a gid that the user namespace lacks."""
    made = planned(Mount(destination="/dev/pts", type="devpts", options=[f"gid={gid}", "mode=620"]), idmaps=IDMAPS)

    assert ("gid" in made.enter[0][3]) is kept


@pytest.mark.parametrize(
    "mount",
    [
        Mount(destination="/d", type="bind", source="", options=[]),
        Mount(destination="/d", type="bind", source="/s", options=["size=1"]),
        Mount(destination="/d", type="", source="/s", options=[]),
        Mount(destination="/d", type="bind", source="/s", options=["idmap"]),
        Mount(destination="/d", type="overlay", options=["lowerdir=/l", "mode=755"]),
        Mount(destination="/d", type="overlay", options=["mode=9"]),
        Mount(destination="/d", type="overlay", options=["lowerdir=/l", "metacopy=on"]),
    ],
)
def test_wrong_mounts_name_their_place(mount: Mount) -> None:
    """The message begins with the property's path."""
    with pytest.raises(ConfigError, match=r"^\$\.mounts\[0\]"):
        planned(mount)
