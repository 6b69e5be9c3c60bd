"""Ids as the spawner knows them."""

import pytest

from pytest_ocirun.runtime import idmap
from pytest_ocirun.runtime.stage import OUTER


@pytest.fixture
def mapped(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in an outer namespace that maps its 0 to uid 1000 and 1 to 5 to 100000."""
    monkeypatch.setenv(OUTER, "1")
    monkeypatch.setattr(idmap, "_own_maps", {"uid": [(0, 1000, 1), (1, 100000, 5)], "gid": [(0, 0, 1 << 32)]})


@pytest.mark.parametrize("host, own", [(1000, 0), (100000, 1), (100004, 5)])
def test_host_id_has_another_name_in_the_spawners_namespace(mapped: None, host: int, own: int) -> None:
    """Looked up in the namespace's own map."""
    assert idmap.translate("uid", host) == own


@pytest.mark.parametrize("host", [0, 999, 1001, 100005])
def test_id_that_the_user_does_not_have(mapped: None, host: int) -> None:
    """No other id stands in for it."""
    with pytest.raises(PermissionError, match=f"uid {host} is not among the ids"):
        idmap.translate("uid", host)


def test_ids_are_those_of_whoever_runs_us(mapped: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an outer namespace of our making a config means the ids of the namespace that we are in."""
    monkeypatch.delenv(OUTER)

    assert [idmap.translate("uid", number) for number in (0, 1000, 7)] == [0, 1000, 7]


def test_own_map_is_read_from_the_kernel() -> None:
    """Three numbers a row."""
    with open("/proc/self/uid_map", encoding="ascii") as file:
        rows = [tuple(map(int, line.split())) for line in file]

    assert idmap.own_map("uid") == rows
