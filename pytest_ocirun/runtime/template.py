"""Containers that are alike but for their id and their host ids: the config of one stands for all.

A client makes a config once, and its zygote makes any number of containers of it. Must not know who asks, or why.
"""

from __future__ import annotations

import itertools

from pytest_ocirun.oci.runtime import Config, IDMapping, Mount

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeVar

    from pytest_ocirun.oci.codec import Document

    D = TypeVar("D", bound=Document)

_numbers = itertools.count(1)


class Template:
    """The config of one container, to make others of.

    Args:
        config: its config; not to be changed any more.
        first: the first host id of its range, or None if all containers have the same ids.
        size: how many ids the range has.
        holder: whether the holder runs instead of its program.
        without_cgroup: as ``Runtime.begin`` takes it.
    """

    __slots__ = ("config", "first", "holder", "number", "size", "without_cgroup")

    def __init__(
        self, config: Config, first: int | None, size: int, *, holder: bool = False, without_cgroup: bool = False
    ) -> None:
        self.number = next(_numbers)
        self.config = config
        self.first = first
        self.size = size
        self.holder = holder
        self.without_cgroup = without_cgroup

    def made_for(self, first: int | None) -> Config:
        """The config with the ids of another range: those mapped into the template's range move with it.

        Args:
            first: the first host id of the other range; None to keep the template's.
        """
        if first is None or self.first is None or first == self.first:
            return self.config
        shift = first - self.first
        linux = _changed(
            self.config.linux,
            uid_mappings=self._moved(self.config.linux.uid_mappings, shift),
            gid_mappings=self._moved(self.config.linux.gid_mappings, shift),
        )
        return _changed(self.config, linux=linux, mounts=[self._mount(mount, shift) for mount in self.config.mounts])

    def _mount(self, mount: Mount, shift: int) -> Mount:
        if not mount.uid_mappings and not mount.gid_mappings:
            return mount
        return _changed(
            mount,
            uid_mappings=self._moved(mount.uid_mappings, shift),
            gid_mappings=self._moved(mount.gid_mappings, shift),
        )

    def _moved(self, rows: list[IDMapping], shift: int) -> list[IDMapping]:
        first, end = self.first or 0, (self.first or 0) + self.size
        return [
            IDMapping(container_id=row.container_id, host_id=row.host_id + shift, size=row.size)
            if first <= row.host_id < end
            else row
            for row in rows
        ]


def _changed(document: D, **values: object) -> D:
    """A shallow copy with other values."""
    return type(document)(**{**vars(document), **values})
