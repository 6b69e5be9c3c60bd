"""Removing what killed runs left: containers whose maker is dead, and which were to end with it.

A zygote cleans up by itself when its client dies; this is for the case that both were killed. A container that somebody
made to stay (``ocirun create``, ``ocirun run -d``) is nobody's remains.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_ocirun.errors import OcirunError
from pytest_ocirun.runtime import state

if TYPE_CHECKING:
    from pytest_ocirun.runtime.container import Runtime


def sweep(runtime: Runtime) -> list[str]:
    """Delete every container that its dead maker left behind; the ids of those deleted.

    A container that cannot be removed is left for the next sweep: it is not this run's to fail over.
    """
    removed = []
    for container_id in state.ids(runtime.root):
        try:
            if runtime.is_orphan(container_id):
                runtime.delete(container_id, force=True)
                removed.append(container_id)
        except (OcirunError, OSError):
            continue
    return removed
