"""The host's collection tree: pytest nodes that stand for the guest's, with ordinary names and node ids.

They hold names and marks that came over the wire, checked; they never import, evaluate or open what they stand for.
An item asks its guest (``runs.Run``) for each phase, so whoever drives pytest's runtest protocol drives the guest.
"""

from __future__ import annotations

import functools
import keyword
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from _pytest.nodes import Node as _Node

    from pytest_ocirun.plugin.runs import Run
else:
    _Node = object

# Marks that pytest, or a well-known plugin, would act upon on the host: they have been acted upon inside. They are
# there to be matched by -m, and never handed to who asks for them by name.
_INERT = frozenset(
    {"skip", "skipif", "xfail", "usefixtures", "parametrize", "filterwarnings", "timeout", "asyncio", "anyio"}
)
_MISSPELT = frozenset({"parameterize", "parametrise", "parameterise"})


class GuestNode(_Node):
    """What every one of our nodes has in common."""

    guest_class: str = ""
    obj: object

    def __repr__(self) -> str:
        return f"<{self.guest_class} {self.name}>"

    def iter_markers_with_node(self, name: str | None = None) -> Iterator[tuple[Any, pytest.Mark]]:
        """As pytest does, but nobody finds an inert mark by its name."""
        return iter(()) if name in _INERT else super().iter_markers_with_node(name)

    def adopt(self, data: dict[str, Any]) -> None:
        """Take over the guest's marks and keywords."""
        self.guest_class = data["class"]
        if data["doc"] and self.config.option.collectonly:
            self.obj = SimpleNamespace(__doc__=data["doc"])
        self.extra_keyword_matches.update(data["keywords"])
        for mark in data["markers"]:
            made = _mark(self.config, mark)
            if made is not None:
                self.own_markers.append(made)
                self.keywords[made.name] = made


class Collected(GuestNode):
    """A node whose children came with it."""

    def collect(self) -> list[Any]:
        """Refuse to look again."""
        raise pytest.UsageError(f"ocirun: {self.nodeid} was collected inside; it is not collected again here")


class GuestDirectory(Collected, pytest.Directory):
    """A directory or package."""


class GuestFile(Collected, pytest.File):
    """A test file; its set-up and tear-down bound the use of its container."""

    run: Run

    def teardown(self) -> None:
        """Let the container go once none of its items is left."""
        self.run.leave()


class GuestCollector(Collected, pytest.Collector):
    """A class, or whatever else collects inside a file."""


class GuestItem(GuestNode, pytest.Item):
    """A test."""

    run: Run
    index: int

    @functools.cached_property
    def location(self) -> tuple[str, int | None, str]:
        """The guest's own location of the test: its path is relative to the root directory already."""
        return self._location

    _location: tuple[str, int | None, str]

    def reportinfo(self) -> tuple[Path, int | None, str]:
        """As ``location``, with the file's whole path."""
        return self.path, self._location[1], self._location[2]

    def adopt(self, data: dict[str, Any]) -> None:
        """Take over marks, keywords and location."""
        super().adopt(data)
        self._location = data["location"]

    def setup(self) -> None:
        """Start the test inside and wait until it is set up."""
        self.run.setup(self)

    def runtest(self) -> None:
        """Wait for the call."""
        self.run.call(self)


def _mark(config: pytest.Config, data: dict[str, Any]) -> pytest.Mark | None:
    """Return the mark, registered first: it was checked inside, against the tree's own list.

    An inert mark keeps its name only.
    """
    name = data["name"]
    if not name.isidentifier() or keyword.iskeyword(name) or name.startswith("_") or name in _MISSPELT:
        return None
    config.addinivalue_line("markers", f"{name}: registered inside")
    decorator = getattr(pytest.mark, name)
    if name == "flaky":
        return _flaky(decorator, data["args"], data["kwargs"])
    if name in _INERT:
        return decorator.mark  # type: ignore[no-any-return]  # MarkGenerator's attributes are Any
    return decorator.with_args(*data["args"], **data["kwargs"]).mark  # type: ignore[no-any-return]  # the same


def _flaky(decorator: pytest.MarkDecorator, args: list[Any], kwargs: dict[str, Any]) -> pytest.Mark:
    """The host re-runs tests, so it needs to know how often; a condition would be evaluated here, and is dropped."""
    numbers = {name: kwargs[name] for name in ("reruns", "reruns_delay") if type(kwargs.get(name)) in {int, float}}
    if args and type(args[0]) is int:
        numbers["reruns"] = args[0]
    return decorator.with_args(**numbers).mark


def build(parent: pytest.Collector, data: dict[str, Any], nodeid: str) -> Any:
    """Return the node for one entry of a guest's answer.

    Args:
        parent: where it belongs.
        data: the entry, checked by the schema.
        nodeid: its node id on the host.
    """
    kind, name = data["kind"], data["name"]
    node: Any
    if kind == "directory":
        node = GuestDirectory.from_parent(parent, path=Path(data["path"]), name=name, nodeid=nodeid)
    elif kind == "file":
        node = GuestFile.from_parent(parent, path=Path(data["path"]), name=name, nodeid=nodeid)
    elif kind == "collector":
        node = GuestCollector.from_parent(parent, name=name, nodeid=nodeid)
    else:
        node = GuestItem.from_parent(parent, name=name, nodeid=nodeid)
    node.adopt(data)
    return node
