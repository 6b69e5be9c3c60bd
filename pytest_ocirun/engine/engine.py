"""The engine: images and requests in, running containers out. One per client process.

It owns the zygotes (one or two build containers, one runs what joins them; without root one does both), the claims on
host ids and every container made through it; ``close`` leaves nothing of them. Knows no pytest.
"""

from __future__ import annotations

import itertools
import os
import threading
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, overload

from pytest_ocirun.engine import cleanup, interpreter, profile
from pytest_ocirun.engine.ahead import Ahead, Begun
from pytest_ocirun.engine.builders import Builders
from pytest_ocirun.engine.container import Container
from pytest_ocirun.engine.idrange import FIRST, SIZE, Ranges
from pytest_ocirun.errors import ConfigError, ContainerNotFound, OcirunError, ProtocolError
from pytest_ocirun.oci.runtime import IDMapping
from pytest_ocirun.runtime import stage, state
from pytest_ocirun.runtime.cgroups import detect
from pytest_ocirun.runtime.container import Runtime
from pytest_ocirun.runtime.seccomp_default import default_filter
from pytest_ocirun.runtime.spawner import ZygoteClient
from pytest_ocirun.runtime.stdio import Stdio
from pytest_ocirun.runtime.template import Template
from pytest_ocirun.runtime.validate_process import validate_process

if TYPE_CHECKING:
    from typing import Self

    from pytest_ocirun.engine.request import Limits, Request
    from pytest_ocirun.images.image import Image
    from pytest_ocirun.images.store import Store
    from pytest_ocirun.runtime.child import Child

__tracebackhide__ = True  # in a failed test's traceback the test's own lines are what matters

REQUIREMENTS = ("limits", "isolation")
_TEMPLATES = 4
_CONTROLLED = {"memory": "memory", "pids": "pids", "cpus": "cpu"}


class Engine:
    """See the module. Use ``Engine.open``.

    Args:
        store: where unpacked images lie, None for the user's default.
        root: the state root.
        require: ``limits``: a limit that cannot be set is an error; ``isolation``: containers without the limits that
            this host
            cannot set are accepted, and ``describe`` says so.
    """

    _numbers = itertools.count(1)  # one for all engines of a process, since its pid is in the ids

    def __init__(self, *, store: Path | None, root: str, require: str) -> None:
        state.ensure_root(root)
        self._root = root
        self._require = require
        self._store_path = store
        self._images: dict[str, Image] = {}
        self._store_made: Store | None = None
        self._containers: dict[str, Container] = {}
        self._privileged = os.geteuid() == 0
        self._manager = detect.manager()
        self._refusals = {key: why for key, why in self._manager.availability().items() if why is not None}
        self._builders = Builders(root)
        self._joiner = self._builders.first
        if stage.is_privileged():  # without root, only the user namespace that a container was made in can join it
            self._joiner = ZygoteClient(root)
            self._joiner.start()
        self._templates: list[tuple[Request, Template]] = []
        # The builder makes them by itself where it would choose the same place for their cgroups as we do.
        begin = self._order if self._privileged and self._manager.is_fixed else self._begin
        self._ahead = Ahead(begin, self._drop, lambda begun: self._give_back(begun.claimed))
        self._leaving: list[tuple[str, Child, int | None]] = []
        self._failures: list[OcirunError] = []
        self._mappable: dict[int, bool] = {}
        self._closed = False
        self._ranges = Ranges(root)
        self._lock = threading.Lock()
        self._seccomp = default_filter()
        self._runtime = Runtime(self._builders.first, root, joiner=self._joiner, manager=self._manager)
        cleanup.sweep(self._runtime)

    @classmethod
    def open(cls, *, store: Path | None = None, require: str = "limits") -> Self:
        """An engine on this user's state root; a zygote starts in the background, what killed runs left is removed.

        Raises:
            ConfigError: ``require`` is unknown.
            OcirunError: the state root cannot be used.
        """
        if require not in REQUIREMENTS:
            raise ConfigError(f"require {require!r}: expected one of {', '.join(REQUIREMENTS)}")
        return cls(store=store, root=state.default_root(), require=require)

    def image(self, reference: str) -> Image:
        """The image that ``reference`` names, unpacked if need be; the same object for the same reference.

        Raises:
            ImageError, Unsupported: it cannot be had.
        """
        with self._lock:
            if reference not in self._images:
                from pytest_ocirun.images.open import open_image

                self._images[reference] = open_image(self._store(), reference, shift_base=FIRST)
            return self._images[reference]

    def interpreter(self, image: Image) -> str:
        """The absolute path of a Python in ``image``.

        Raises:
            ImageError: it has none.
        """
        return interpreter.find(image)

    def launch(self, request: Request) -> Container:
        """Create and start a container.

        Raises:
            Unsupported: a limit or namespace cannot be had here.
            ConfigError, KernelRefused: it cannot be made as asked; nothing is left behind.
        """
        if self._closed:
            raise OcirunError("launch a container: the engine was closed")
        request = replace(request, limits=self._attainable(request.limits))
        self._part(wait=False)
        begun = self._ahead.take(request)
        container = self._finish(begun) if begun is not None else None
        if container is None:
            container = self._finish(self._begin(request), ahead=False)
        self._ahead.launched(request)
        return container

    def describe(self) -> list[str]:
        """What isolation this host gives, a line each, for the report's header."""
        ids = (
            f"host ids of its own ({SIZE} from {FIRST})"
            if self._privileged
            else "its root is you, uid " + str(os.geteuid())
        )
        lines = [f"each container: all namespaces new, {ids}, no capabilities, seccomp, no network but loopback"]
        missing = sorted(name for name, controller in _CONTROLLED.items() if controller in self._refusals)
        if missing and self._require == "isolation":
            reason = self._refusals[_CONTROLLED[missing[0]]].reason
            lines.append(f"WEAKER, accepted by require=isolation: no limit on {', '.join(missing)} ({reason})")
        return lines

    def close(self) -> None:
        """Delete every container, end the zygotes, let go of images and ids. A second time does nothing.

        Raises:
            OcirunError: something could not be removed; the rest has been.
        """
        if self._closed:
            return
        self._closed = True
        for container in list(self._containers.values()):
            container.delete()
        self._ahead.close()
        self._part(wait=True)
        for zygote in self._zygotes():
            zygote.close()
        self._manager.prune()
        for image in self._images.values():
            image.release()
        self._images.clear()
        self._ranges.close()
        if self._failures:
            raise self._failures[0]

    def _begin(self, request: Request) -> Begun:
        container_id = f"pytest-{os.getpid()}-{next(self._numbers)}"
        mapping, claimed = self._mapping(request.image)
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        try:
            config = profile.build(request, mapping, self._seccomp, self._can_map)
            validate_process(config.process, "container: process")
            given = request.fds
            extra = {number: fd for number, fd in given.items() if number > 2}
            creation = self._runtime.begin(
                container_id,
                f"{self._root}/{container_id}",
                config,
                Stdio(given.get(0, null), given.get(1, null), given.get(2, null), extra),
                holder=not request.args,
                start=True,
                without_cgroup=self._require == "isolation",
            )
        except BaseException:
            self._give_back(claimed)
            raise
        finally:
            os.close(null)
        return Begun(creation, config, claimed, self._prepare)

    def _prepare(self, container_id: str) -> None:
        """Have a spare wait in a container ahead. Without root it would be unfit: it may not set its groups."""
        if self._privileged:
            self._runtime.prepare_exec(container_id)

    def _order(self, request: Request) -> Begun:
        """As ``_begin`` for a holder, but all the work is the builder's."""
        container_id = f"pytest-{os.getpid()}-{next(self._numbers)}"
        mapping, claimed = self._mapping(request.image)
        try:
            template = self._template(request, mapping, claimed)
            bundle, maker = f"{self._root}/{container_id}", self._builders.choose()
            order = self._runtime.order(container_id, bundle, template, claimed, maker=maker)
        except BaseException:
            self._give_back(claimed)
            raise
        return Begun(order, order.config, claimed, self._prepare)

    def _template(self, request: Request, mapping: IDMapping, claimed: int | None) -> Template:
        for known, template in self._templates:
            if known == request:
                return template
        config = profile.build(request, mapping, self._seccomp, self._can_map)
        validate_process(config.process, "container: process")
        without_cgroup = self._require == "isolation"
        template = Template(config, claimed, mapping.size, holder=True, without_cgroup=without_cgroup)
        self._templates = [*self._templates[-_TEMPLATES + 1 :], (request, template)]
        return template

    @overload
    def _finish(self, begun: Begun, *, ahead: Literal[False]) -> Container: ...
    @overload
    def _finish(self, begun: Begun) -> Container | None: ...
    def _finish(self, begun: Begun, *, ahead: bool = True) -> Container | None:
        """The container that was begun; None if one begun ahead did not come to life, since a late one may."""
        try:
            child = begun.finish()
        except BaseException as error:
            self._give_back(begun.claimed)
            if ahead and isinstance(error, OcirunError):
                return None
            raise
        container_id = begun.creation.id
        container = Container(
            self._runtime,
            container_id,
            begun.config,
            child,
            released=lambda done, init: self._released(done, init, begun.claimed),
            idle=self._ahead.work,
        )
        self._containers[container_id] = container
        return container

    def _drop(self, begun: Begun) -> None:
        if begun.is_finished:
            self._runtime.remove(begun.creation.id)
            self._leaving.append((begun.creation.id, begun.finish(), begun.claimed))
        else:
            begun.creation.undo()
            self._give_back(begun.claimed)

    def _zygotes(self) -> list[ZygoteClient]:
        return list(dict.fromkeys([self._joiner, *self._builders.all()]))

    def _give_back(self, claimed: int | None) -> None:
        if claimed is not None:
            self._ranges.give_back(claimed)

    def _released(self, container: Container, init: Child, claimed: int | None) -> None:
        self._containers.pop(container.id, None)
        self._leaving.append((container.id, init, claimed))

    def _part(self, *, wait: bool) -> None:
        """Let go of the deleted containers that are removed, or with ``wait`` of all; their ids are free then.

        What could not be removed is told by ``close``: it is no fault of the launch in which it shows.
        """
        leaving, self._leaving = self._leaving, []
        for container_id, init, claimed in leaving:
            try:
                if wait:
                    init.wait_removed()
                elif not init.removed():
                    self._leaving.append((container_id, init, claimed))
                    continue
            except ProtocolError:
                self._remove(container_id)
            except OcirunError as error:
                self._failures.append(error)
            init.close()
            self._give_back(claimed)

    def _remove(self, container_id: str) -> None:
        """Remove what a zygote cannot any more: it was killed, and its containers with it."""
        try:
            self._runtime.delete(container_id, force=True)
        except ContainerNotFound:
            pass
        except OcirunError as error:
            self._failures.append(error)

    def _mapping(self, image: Image) -> tuple[IDMapping, int | None]:
        if not self._privileged:
            return IDMapping(container_id=0, host_id=os.geteuid(), size=1), None
        if image.owners == "shifted" and image.shift is not None:
            return IDMapping(container_id=0, host_id=image.shift, size=SIZE), None
        first = self._ranges.claim()
        return IDMapping(container_id=0, host_id=first, size=SIZE), first

    def _attainable(self, limits: Limits) -> Limits:
        dropped = set()
        for name, controller in _CONTROLLED.items():
            refusal = self._refusals.get(controller)
            value = getattr(limits, name)
            if refusal is None or value is None:
                continue
            if self._require != "isolation":
                error = refusal.error(f"limit {name} to {value}")
                error.hint = (
                    f"Either {refusal.hint}; or accept containers without such limits: --ocirun-require=isolation"
                )
                raise error
            dropped.add(name)
        return replace(
            limits,
            memory=None if "memory" in dropped else limits.memory,
            pids=None if "pids" in dropped else limits.pids,
            cpus=None if "cpus" in dropped else limits.cpus,
        )

    def _can_map(self, path: str) -> bool:
        try:
            device = os.stat(path).st_dev
        except OSError:
            return False  # the mount itself will say what is wrong
        if device not in self._mappable:
            self._mappable[device] = self._store().idmap_obstacle(Path(path)) is None
        return self._mappable[device]

    def _store(self) -> Store:
        if self._store_made is None:
            from pytest_ocirun.images.store import Store

            self._store_made = Store(self._store_path)
        return self._store_made
