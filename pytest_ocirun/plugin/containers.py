"""Containers for tests that run on the host: one engine per session, settings from marker, fixture and ini file."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_ocirun.errors import ConfigError
from pytest_ocirun.plugin import settings

if TYPE_CHECKING:
    from pytest_ocirun.engine.container import Container
    from pytest_ocirun.engine.engine import Engine

_ENGINE: pytest.StashKey[Engine] = pytest.StashKey()
_SETTINGS: pytest.StashKey[settings.Settings | None] = pytest.StashKey()
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def engine_of(config: pytest.Config, chosen: settings.Settings) -> Engine:
    """Return the session's engine; it is opened by the first who asks, and closed with the configuration."""
    if _ENGINE not in config.stash:
        from pytest_ocirun.engine.engine import Engine

        engine = config.stash[_ENGINE] = Engine.open(store=chosen.store, require=chosen.require)
        config.add_cleanup(engine.close)
    return config.stash[_ENGINE]


class Factory:
    """Makes one test's containers and deletes them all at the end.

    Args:
        config: the session's configuration.
        node: the test; its closest marker ``ocirun`` sets the defaults.
        image: what the fixture ``ocirun_image`` says.
    """

    def __init__(self, config: pytest.Config, node: pytest.Item, image: str | None) -> None:
        self._config = config
        self._settings = config.stash.setdefault(_SETTINGS, None) or settings.resolve(config)
        config.stash[_SETTINGS] = self._settings
        self._stack = ExitStack()
        box = settings.container_settings(self._settings.box, {"image": image}, "the fixture ocirun_image")
        for mark in reversed(list(node.iter_markers("ocirun"))):
            settings.check_marker(mark)
            box = settings.container_settings(box, dict(mark.kwargs), "@pytest.mark.ocirun")
        self._box = box

    def __call__(self, **overrides: Any) -> Container:
        """Return a started container with an idle process as pid 1.

        Args:
            overrides: what differs from the test's settings: image, memory, pids, cpus, disk, env, mount.

        Raises:
            ConfigError: no image is configured, or a setting is wrong.
            OcirunError: the engine could not make it.
        """
        from pytest_ocirun.engine.request import Bind, Limits, Request

        box = settings.container_settings(self._box, overrides, "ocirun_container_factory")
        if box.image is None:
            raise ConfigError(
                "ocirun_container: no image is configured",
                hint="Set ocirun_image in the ini file, override the fixture ocirun_image, "
                'or mark the test: @pytest.mark.ocirun(image="host").',
            )
        engine = engine_of(self._config, self._settings)
        request = Request(
            image=engine.image(box.image),
            env={"PATH": _PATH, "HOME": "/root", **dict(box.env)},
            limits=Limits(memory=box.memory, pids=box.pids, cpus=box.cpus, disk=box.disk),
            binds=tuple(
                Bind(source=Path(one.source), destination=one.destination, readonly=one.readonly) for one in box.mounts
            ),
        )
        container = engine.launch(request)
        self._stack.callback(container.delete)
        return container

    def close(self) -> None:
        """Delete every container that was made."""
        self._stack.close()
