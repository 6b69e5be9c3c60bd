"""Where a container's hooks stand among the steps of its plan. Pure, as ``plan`` is; imported only with hooks.

The hooks of create come when every mount is made and before anything is masked or read-only: they are there to add
mounts and files. While they run, the root file system is attached over its own path and not in the spawner's working
directory, since hooks look for it there (they enter the mount namespace of the state's pid).
"""

from __future__ import annotations

import os

from pytest_ocirun.oci.codec import encode
from pytest_ocirun.runtime.hook_points import state_for_hooks
from pytest_ocirun.runtime.root_plan import root_path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pytest_ocirun.oci.runtime import Config, Hook
    from pytest_ocirun.runtime.plan import Surroundings
    from pytest_ocirun.runtime.steps import Step

_AFTER_THE_MOUNTS = ("read_only", "mask", "make_place", "root_read_only", "pivot")
_STARTED = ("wait_start", "ready")


def with_hooks(steps: list[Step], config: Config, around: Surroundings) -> list[Step]:
    """Add a config's hooks to the enter steps of its container.

    Args:
        steps: of a config without hooks.
        config: the config.
        around: as the plan was made with.
    """
    hooks = config.hooks
    document = {
        "ociVersion": config.oci_version,
        "id": around.id,
        "bundle": around.bundle,
        "annotations": config.annotations,
    }
    creating: list[Step] = [["await_hooks"]] if hooks.prestart or hooks.create_runtime else []
    if hooks.create_container:
        creating += _run("createContainer", hooks.create_container, state_for_hooks(document, "creating"))
    starting: list[Step] = []
    if hooks.start_container:
        loaded = around.filter_flags is None or around.filter_listens or not config.process.no_new_privileges
        state = state_for_hooks(document, "created")
        starting = _run("startContainer", hooks.start_container, state, filtered=not loaded)
    names = [step[0] for step in steps]
    inside = next(index for index, name in enumerate(names) if name in _AFTER_THE_MOUNTS)
    start = 1 + max(names.index(name) for name in _STARTED if name in names)
    mount = config.linux.namespace("mount")
    place: list[Step] = []
    if creating and mount is not None and not mount.path:
        place = [["open_path", "place", root_path(config, around.bundle), os.O_PATH | os.O_DIRECTORY]]
    return [*place, *steps[:inside], *creating, *steps[inside:start], *starting, *steps[start:]]


def _run(kind: str, hooks: list[Hook], state: dict[str, Any], *, filtered: bool = False) -> list[Step]:
    return [["default_signals"], ["run_hooks", kind, [encode(hook) for hook in hooks], state, filtered]]
