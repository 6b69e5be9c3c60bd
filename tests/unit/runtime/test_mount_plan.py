"""The table of mount options, and what a mount becomes."""

from typing import Any

import pytest

from pytest_ocirun.errors import ConfigError
from pytest_ocirun.linux import mount as m
from pytest_ocirun.oci.runtime import IDMapping, Mount
from pytest_ocirun.runtime.mount_options import REFUSED, Options, known_options
from pytest_ocirun.runtime.mount_plan import JOINED, MountPlan

IDMAPS = [[[0, 1000, 10]], [[0, 1000, 10]]]


def planned(*mounts: Mount, idmaps: list[list[list[int]]] | str | None = None, **more: Any) -> MountPlan:
    """The plan of mounts."""
    return MountPlan(list(mounts), bundle="/b", idmaps=idmaps, owner=(1000, 1000), cgroups=[], bounded=True, **more)


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
    options = Options(["rbind", "rro", "rnosuid", "rsuid", "noexec"])

    assert (options.bind, options.recursive) == (True, True)
    assert options.tree == (m.MOUNT_ATTR_RDONLY, m.MOUNT_ATTR_NOSUID)
    assert options.set == m.MOUNT_ATTR_NOEXEC


@pytest.mark.parametrize("word", known_options())
def test_known_option_is_understood(word: str) -> None:
    """None of them is taken for the name of a file system's own parameter, but for those that all file systems have."""
    data = Options([word]).data

    assert set(data) <= {"async", "dirsync", "iversion", "lazytime", "mand", "nolazytime", "nomand", "sync"}


def test_refused_options_are_not_known() -> None:
    """A word is either done or refused."""
    assert not set(REFUSED) & set(known_options())


def test_propagation_is_a_sequence() -> None:
    """A mount can be a slave and shared at once, if made so in this order."""
    assert Options(["slave", "rshared"]).propagation == [m.MS_SLAVE, m.MS_SHARED | m.MS_REC]


def test_what_is_no_attribute_is_data() -> None:
    """Keys with values, and flags without."""
    assert Options(["size=1m", "mode=755", "newinstance"]).data == {"size": "1m", "mode": "755", "newinstance": None}


def test_several_parameters_in_one_word() -> None:
    """As mount(2) reads them; a quoted or escaped comma belongs to the value."""
    quoted = ['context="a:b,c"', "lowerdir=/x\\,y"]

    assert Options(["size=1m,mode=755,a", "b"]).parameters() == {"size": "1m", "mode": "755", "a": None, "b": None}
    assert Options(quoted).parameters() == {"context": '"a:b,c"', "lowerdir": "/x\\,y"}


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

    assert made.prepare == [["clone_tree", "mount0", "/b/s", True, m.MOUNT_ATTR_RDONLY, 0, 0, 0, None]]
    assert made.enter == [["attach", "mount0", "/d", [m.MS_SLAVE | m.MS_REC]]]


def test_binds_in_order_are_the_childs() -> None:
    """Unless they are mapped, which is the spawner's to do, or the host's peers."""
    mounts = [Mount(destination="/d", type="bind", source="s", options=["rbind", "ro"])]
    made = planned(*mounts, in_order=True)

    assert made.enter == [["bind", "/d", "/b/s", "mount0", [], True, m.MOUNT_ATTR_RDONLY, 0, 0, 0, None]]
    assert made.prepare == []
    assert planned(*mounts, in_order=True, peers=True).prepare[0][0] == "clone_peers"
    mounts[0].options.append("idmap")
    assert planned(*mounts, in_order=True, idmaps=IDMAPS).prepare[0][0] == "clone_tree"


def test_binds_of_a_shared_root_stay_peers() -> None:
    """They are copied in the host's own mount namespace."""
    made = planned(Mount(destination="/d", type="bind", source="/s"), peers=True)

    assert made.prepare[0][0] == "clone_peers"


def test_own_propagation_wins_over_the_roots() -> None:
    """What the root gives is for mounts that say nothing."""
    mounts = [Mount(destination="/d", type="bind", source="/s", options=options) for options in ([], ["slave"])]
    made = planned(*mounts, propagation=m.MS_PRIVATE)

    assert [step[-1] for step in made.enter] == [[m.MS_PRIVATE], [m.MS_SLAVE]]


def test_idmapped_bind_carries_the_maps() -> None:
    """Only where asked for: the container's, or its own."""
    own = [IDMapping(container_id=5, host_id=6, size=7)]
    mounts = [Mount(destination="/d", type="bind", source="/s", options=options) for options in (["idmap"], [])]
    mounts.append(
        Mount(destination="/d", type="none", source="/s", options=["ridmap"], uid_mappings=own, gid_mappings=own)
    )
    made = planned(*mounts, idmaps=IDMAPS)

    assert [step[-1] for step in made.prepare] == [[IDMAPS, False], None, [[[[5, 6, 7]], [[5, 6, 7]]], True]]


def test_idmapped_bind_takes_the_maps_of_a_joined_namespace() -> None:
    """They are not known here, but that namespace has them."""
    made = planned(Mount(destination="/d", type="bind", source="/s", options=["idmap"]), idmaps=JOINED)

    assert made.prepare[0][-1] == ["ns-user", False]


def test_read_only_tmpfs_is_sealed_in_the_end() -> None:
    """Later mounts, devices and links are made in it first; another file system is read-only at once."""
    made = planned(
        Mount(destination="/t", type="tmpfs", source="t", options=["ro", "nodev"]),
        Mount(destination="/p", type="proc", source="proc", options=["ro"]),
        Mount(destination="/s", type="squashfs", source="/dev/loop0", options=["ro"]),
    )

    assert made.seals
    assert [(step[4], step[5], step[7]) for step in made.enter] == [
        ({}, m.MOUNT_ATTR_NODEV, True),
        ({}, m.MOUNT_ATTR_RDONLY, False),
        ({"ro": None}, m.MOUNT_ATTR_RDONLY, False),
    ]


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


@pytest.mark.parametrize("gid, kept", [("5", True), ("50", False)])
def test_group_of_terminals_only_where_it_is_mapped(gid: str, kept: bool) -> None:
    """The kernel refuses a gid that the user namespace lacks."""
    made = planned(Mount(destination="/dev/pts", type="devpts", options=[f"gid={gid}", "mode=620"]), idmaps=IDMAPS)

    assert ("gid" in made.enter[0][4]) is kept


@pytest.mark.parametrize(
    "mount",
    [
        Mount(destination="/d", type="bind", source="", options=[]),
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
