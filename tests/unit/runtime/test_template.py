"""Templates: the config of one container with the host ids of another."""

from pytest_ocirun.oci.process import Process, User
from pytest_ocirun.oci.runtime import Config, IDMapping, Linux, Mount, Root
from pytest_ocirun.runtime.template import Template

FIRST, SIZE = 1_000_000, 65_536


def mapping(container: int, host: int, size: int) -> IDMapping:
    """One row."""
    return IDMapping(container_id=container, host_id=host, size=size)


def config() -> Config:
    """A config with a mapped mount, and one that maps ids that are not the container's."""
    maps = [mapping(0, FIRST, SIZE)]
    swapped = [mapping(1000, FIRST, 1), mapping(0, FIRST + 1000, 1), mapping(2000, 5, 1)]
    return Config(
        oci_version="1.2.0",
        root=Root(path="/r"),
        hostname="box",
        process=Process(user=User(uid=0, gid=0), args=["true"], cwd="/"),
        mounts=[
            Mount(destination="/plain", type="tmpfs"),
            Mount(destination="/mapped", type="bind", uid_mappings=swapped, gid_mappings=swapped),
        ],
        linux=Linux(uid_mappings=maps, gid_mappings=maps),
    )


def test_the_ids_move_and_nothing_else_does() -> None:
    """Rows in the container's range move by as much as the range; others, and the template, stay as they are."""
    made = Template(config(), FIRST, SIZE).made_for(FIRST + 3 * SIZE)
    moved = [mapping(1000, FIRST + 3 * SIZE, 1), mapping(0, FIRST + 3 * SIZE + 1000, 1), mapping(2000, 5, 1)]
    expected = config()
    expected.linux.uid_mappings = expected.linux.gid_mappings = [mapping(0, FIRST + 3 * SIZE, SIZE)]
    expected.mounts[1].uid_mappings = expected.mounts[1].gid_mappings = moved

    assert made == expected


def test_a_template_keeps_its_own() -> None:
    """Making others changes nothing in it; its own range, or none, gives its own config."""
    template = Template(config(), FIRST, SIZE)
    template.made_for(FIRST + SIZE)

    assert template.config == config()
    assert template.made_for(FIRST) is template.config
    assert template.made_for(None) is template.config
    assert Template(config(), None, SIZE).made_for(FIRST + SIZE) == config()
