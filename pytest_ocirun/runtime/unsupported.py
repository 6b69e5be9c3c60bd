"""What this version does not act on yet, so refuses.

Responsible for: the one table that says so; when the runtime learns something, its line goes. Must not know:
what is valid (``runtime.validate``). A property that is merely ignored is worse than a refusal: who asked for
it believes that it holds.
"""

from __future__ import annotations

from pytest_ocirun.errors import Unsupported
from pytest_ocirun.oci.codec import Document, fields
from pytest_ocirun.runtime.mount_options import REFUSED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from pytest_ocirun.oci.runtime import Config, Mount

_ABSENT: tuple[object, ...] = (None, "", [], {})


def refuse_unsupported(config: Config) -> None:
    """Raise for the first property that would not be acted on.

    Args:
        config: a valid configuration.

    Raises:
        Unsupported: the message begins with the property's path.
    """
    for index, mount in enumerate(config.mounts):
        _refuse_mount(mount, f"$.mounts[{index}]")


def select(document: Document, attribute: str, path: str = "$") -> Iterator[tuple[str, object]]:
    """Yield the present values of an attribute such as ``process.rlimits[].soft``, each with its path.

    Args:
        document: where the first name is an attribute.
        attribute: names joined by dots; ``[]`` after one stands for each item of a list.
        path: where the document lies.
    """
    names, each, rest = attribute.partition("[]")
    value: Any = document
    for name in names.split("."):
        value = getattr(value, name)
        if value in _ABSENT:
            return
    place = _place(document, names, path)
    if not each:
        yield place, value
        return
    for index, item in enumerate(value):
        if rest:
            yield from select(item, rest[1:], f"{place}[{index}]")
        else:
            yield f"{place}[{index}]", item


def _place(document: Document, names: str, path: str) -> str:
    for name in names.split("."):
        path = f"{path}.{next(field.key for field in fields(type(document)) if field.name == name)}"
        document = getattr(document, name)
    return path


def _refuse_mount(mount: Mount, path: str) -> None:
    refused = sorted(set(mount.options).intersection(REFUSED))
    if refused:
        raise Unsupported(f"{path}.options: not supported for {mount.type or 'bind'} mounts: {', '.join(refused)}")
