"""Who may map which ids: reading subuid(5), and whether a config wants any."""

import pytest

from pytest_ocirun.runtime.subids import ranges, wanted

FILE = """
alice:100000:65536
1000:300000:10
bob:1:2
alice:165536:4
alice:165530:4
alice:x:5
alice:7
:5:5
alice:900000:0
"""


def test_ranges_of_a_user() -> None:
    """By name and by number; neighbours are one, what overlaps or makes no sense is left out."""
    assert ranges(FILE, 1000, "alice") == [(100000, 65540), (300000, 10)]
    assert ranges(FILE, 1000, "") == [(300000, 10)]
    assert ranges(FILE, 5, "carol") == []


@pytest.mark.parametrize(
    "linux, answer",
    [
        ({}, False),
        (None, False),
        ({"uidMappings": [{"containerID": 0, "hostID": 7, "size": 1}]}, False),
        ({"uidMappings": [{"containerID": 0, "hostID": 7, "size": 2}]}, True),
        ({"uidMappings": [{"containerID": 0, "hostID": 8, "size": 1}]}, True),
        ({"gidMappings": [{"containerID": 0, "hostID": 9, "size": 1}]}, True),
        ({"gidMappings": [{"containerID": 0, "hostID": 8, "size": 1}]}, False),
        ({"gidMappings": 5, "uidMappings": [5]}, False),
    ],
)
def test_wanted(linux: object, answer: bool) -> None:
    """Only one's own ids can be mapped without help; nonsense is for ``validate`` to refuse."""
    assert wanted({"linux": linux}, 7, 8) is answer
    assert wanted([], 7, 8) is False
