"""From a request to a config: pure, and confined by default."""

from pathlib import Path
from typing import Any

import pytest

from pytest_ocirun.engine import profile
from pytest_ocirun.engine.request import Bind, Limits, Request
from pytest_ocirun.errors import ConfigError
from pytest_ocirun.images.image import Image
from pytest_ocirun.oci.runtime import Config, IDMapping
from pytest_ocirun.runtime import defaults
from pytest_ocirun.runtime.root_plan import IDMAP, OVERLAY
from pytest_ocirun.runtime.seccomp_default import default_filter
from pytest_ocirun.runtime.validate import validate

LIMITS = Limits(memory=1 << 28, pids=50, cpus=1.5, disk=1 << 24)
ROOT = IDMapping(container_id=0, host_id=100000, size=65536)
ALONE = IDMapping(container_id=0, host_id=1000, size=1)


def image(**more: Any) -> Image:
    """An image that lies nowhere."""
    wanted: dict[str, Any] = {
        "reference": "x",
        "kind": "tarball",
        "digest": None,
        "rootfs": Path("/r"),
        "owners": "real",
    }
    return Image(**(wanted | more))


def built(mapping: IDMapping = ROOT, *, can_map: bool = True, **request: Any) -> Config:
    """The config of a request, which must be a valid one."""
    wanted: dict[str, Any] = {"image": image(), "limits": LIMITS, "env": {"A": "1"}}
    config = profile.build(Request(**(wanted | request)), mapping, default_filter(), lambda _path: can_map)
    validate(config)
    return config


def test_defaults_are_for_code_that_is_not_trusted() -> None:
    """All namespaces, no capability, no new privileges, a filter, masks."""
    config = built()
    sets = config.process.capabilities

    assert {each.type for each in config.linux.namespaces} == {*defaults.NAMESPACES, "user"}
    assert not any(each.path for each in config.linux.namespaces)
    assert sets is not None
    assert [sets.bounding, sets.effective, sets.permitted, sets.inheritable, sets.ambient] == [[]] * 5
    assert config.process.no_new_privileges is True
    assert config.linux.seccomp is not None
    assert config.linux.seccomp.default_action == "SCMP_ACT_ERRNO"
    assert set(defaults.MASKED_PATHS) <= set(config.linux.masked_paths)
    assert set(defaults.READONLY_PATHS) <= set(config.linux.readonly_paths)


def test_environment_is_the_requests_alone() -> None:
    """Nothing is added."""
    assert built(env={"B": "x=y"}).process.env == ["B=x=y"]


def test_limits_become_cgroup_values() -> None:
    """Each in its unit; None is no limit; disk bounds the overlay."""
    config = built()
    resources = config.linux.resources
    free = built(limits=Limits(memory=None, pids=None, cpus=None, disk=1 << 20))

    assert (resources.memory.limit, resources.pids.limit) == (1 << 28, 50)
    assert (resources.cpu.quota, resources.cpu.period) == (150000, 100000)
    assert config.annotations[OVERLAY] == "size=16777216,inodes=4096"
    assert free.linux.resources.memory.limit is None
    assert free.annotations[OVERLAY] == "size=1048576,inodes=1024"


@pytest.mark.parametrize(
    "owners, mapping, idmapped",
    [("real", ROOT, True), ("shifted", ROOT, False), ("caller", ALONE, False), ("real", ALONE, False)],
)
def test_owners_are_mapped_where_they_are_real(owners: str, mapping: IDMapping, idmapped: bool) -> None:
    """Shifted and the caller's own need no mapping."""
    assert (built(mapping, image=image(owners=owners)).annotations.get(IDMAP) == "root") is idmapped


@pytest.mark.parametrize("writable", [True, False])
def test_a_read_only_root_has_writable_places(writable: bool) -> None:
    """Of the bounded tmpfs, like everything else that can be written."""
    config = built(writable_root=writable)
    places = {mount.destination for mount in config.mounts if mount.type == "overlay"}

    assert config.root.readonly is not writable
    assert places == (set() if writable else {"/tmp", "/var/tmp", "/run", "/root"})


def test_no_mount_of_the_request_is_writable_unless_asked(tmp_path: Path) -> None:
    """And each is nosuid and nodev."""
    bind = Bind(source=Path("/s"), destination="/d")
    config = built(binds=(bind, Bind(source=Path("/w"), destination="/e", readonly=False)), overlays=(tmp_path,))
    options = {mount.destination: set(mount.options) for mount in config.mounts}

    assert options["/d"] >= {"bind", "ro", "nosuid", "nodev"}
    assert "rw" in options["/e"]
    assert options[str(tmp_path)] >= {f"lowerdir={tmp_path}", "nosuid", "nodev", "idmap"}


def test_no_cgroup_file_system_inside() -> None:
    """There is nothing in it for code that is not trusted."""
    assert [mount for mount in built().mounts if mount.type.startswith("cgroup")] == []


def test_mounts_come_parents_first(tmp_path: Path) -> None:
    """A bind below an overlay is not covered by it."""
    binds = (Bind(source=Path("/s"), destination=f"{tmp_path}/b/c"), Bind(source=Path("/s"), destination="/u"))
    places = [mount.destination for mount in built(binds=binds, overlays=(tmp_path,)).mounts]

    assert places.index(str(tmp_path)) < places.index(f"{tmp_path}/b/c")
    assert places.index("/dev") < places.index("/dev/shm")


def test_one_mapped_id_leaves_the_terminals_group_out() -> None:
    """Gid 5 does not exist for a plain user."""
    pts = {
        mapping.size: next(mount.options for mount in built(mapping).mounts if mount.type == "devpts")
        for mapping in (ROOT, ALONE)
    }

    assert ("gid=5" in pts[65536], "gid=5" in pts[1]) == (True, False)


@pytest.mark.parametrize("owner", [1, 5, 65535, 65536, 2**31])
def test_the_trees_owner_is_the_containers_root(owner: int) -> None:
    """Whoever owns it shows as root, root in its place, each id once, and none of the host's beyond the range."""
    rows = profile._swapped(owner, ROOT)
    inside = {row.container_id + step: row.host_id + step for row in rows for step in range(row.size)}

    assert inside[owner] == ROOT.host_id
    assert len(inside) == sum(row.size for row in rows) == ROOT.size
    assert sorted(inside.values()) == list(range(ROOT.host_id, ROOT.host_id + ROOT.size))
    assert owner >= ROOT.size or inside[0] == ROOT.host_id + owner


def test_a_file_system_that_cannot_be_mapped_is_bound_as_it_is(tmp_path: Path) -> None:
    """Its files show as nobody's."""
    for can_map in (True, False):
        mounts = built(can_map=can_map, overlays=(tmp_path,)).mounts

        assert ("idmap" in next(mount for mount in mounts if mount.type == "overlay").options) is can_map


def test_a_missing_source_is_named() -> None:
    """Before anything is made."""
    with pytest.raises(ConfigError, match="mount /no/such in the container: No such file"):
        built(overlays=(Path("/no/such"),))
