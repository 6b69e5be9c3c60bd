"""What containers there are and how they are: the state documents that users see.

Responsible for reading without getting in anybody's way: no lock is taken, since a document is replaced as
one act and a status follows from the kernel. Must not know how containers are made. Sources: runtime-spec
runtime.md "State"; rootfs, created and owner as runc adds them.
"""

from __future__ import annotations

import os

from pytest_ocirun.errors import ContainerNotFound
from pytest_ocirun.runtime import state

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def one(root: str, container_id: str) -> dict[str, Any]:
    """The state of one container.

    Raises:
        ConfigError: a bad id.
        ContainerNotFound: there is none.
    """
    with state.look(root, container_id) as directory:
        document = directory.read()
        status = directory.status(document)
        uid = os.fstat(directory.fd).st_uid
        if not document["pid"] and not os.fstat(directory.fd).st_nlink:
            raise state.not_found(root, container_id)
    shown: dict[str, Any] = {
        "ociVersion": document.get("ociVersion", ""),
        "id": container_id,
        "pid": document["pid"] if status in state.ALIVE else 0,
        "status": status,
    }
    shown |= {name: document.get(name, "") for name in ("bundle", "rootfs", "created")}
    if document.get("annotations"):
        shown["annotations"] = document["annotations"]
    return {**shown, "owner": _name(uid)}


def every(root: str) -> list[dict[str, Any]]:
    """The states of all containers, by id; what vanishes meanwhile is left out."""
    found = []
    for container_id in state.ids(root):
        try:
            found.append(one(root, container_id))
        except ContainerNotFound:
            continue
    return found


def _name(uid: int) -> str:
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
