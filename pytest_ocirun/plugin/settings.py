"""Settings: option over ini key over default, one frozen object. Raises ConfigError; the session makes it a UsageError.

The marker joins in for fixture containers only: see ``container_settings``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from pytest_ocirun.errors import ConfigError, Unsupported
from pytest_ocirun.plugin import values

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

_MEMORY = "1g"
_DISK = 512 * 1024 * 1024
_MARKER_ARGUMENTS = ("image", "memory", "pids", "cpus", "disk", "env", "mount")
_LEAST_MEMORY = 16 * 1024 * 1024
_LEAST_DISK = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    """What one container is made of."""

    image: str | None
    memory: int
    pids: int
    cpus: float | None
    disk: int
    mounts: tuple[values.Mount, ...]
    env: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything that the options and the ini file say."""

    box: Box
    inside: bool
    timeout: float
    output: int
    tree: str
    args: tuple[str, ...]
    require: str
    store: Path | None


class _Source:
    """Looks a setting up, and remembers how the user would name it."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config

    def once(self, name: str) -> tuple[str, Any]:
        """Return what to call the setting, and its value or None."""
        value = self._config.getoption(f"ocirun_{name}")
        if value is not None:
            return f"--ocirun-{name}", value
        return f"ocirun_{name}", self._config.getini(f"ocirun_{name}") or None

    def each(self, name: str) -> list[tuple[str, str]]:
        """Return the ini file's values, then the command line's."""
        found = [(f"ocirun_{name}", value) for value in self._config.getini(f"ocirun_{name}") or []]
        return found + [(f"--ocirun-{name}", value) for value in self._config.getoption(f"ocirun_{name}") or []]


def resolve(config: pytest.Config) -> Settings:
    """Return the settings of this run.

    Raises:
        ConfigError: a value is wrong, or two contradict each other.
        Unsupported: a value that a later version may know.
    """
    source = _Source(config)
    image, inside = _where(source)
    box = _box(source, image)
    if inside and image is None:
        raise ConfigError(
            "ocirun: the tests are to run inside a container, but of which image is not said",
            hint="Give --ocirun-image IMAGE; --ocirun-image host needs no image at all.",
        )
    scope_name, scope = source.once("scope")
    if scope not in {None, "module"}:
        values.choice(scope_name, scope, ("function", "class", "module", "package", "session"))
        raise Unsupported(f"{scope_name}: {scope!r} is not supported yet; one container per test file (module) is")
    timeout_name, timeout = source.once("timeout")
    output_name, output = source.once("output")
    tree_name, tree = source.once("tree")
    return Settings(
        box=box,
        inside=inside,
        timeout=values.number(timeout_name, timeout or 300, "a positive number of seconds"),
        output=_output(output_name, output or "16m"),
        tree=values.choice(tree_name, tree or "overlay", ("overlay", "ro")),
        args=tuple(word for name, value in source.each("args") for word in values.words(name, value)),
        require=source.once("require")[1] or "limits",
        store=_path(config, source),
    )


def _where(source: _Source) -> tuple[str | None, bool]:
    image_name, image = source.once("image")
    run_name, run = source.once("run")
    if run is not None:
        values.choice(run_name, run, ("inside", "host"))
    typed = image_name.startswith("--")
    if isinstance(image, list):
        if len(image) > 1:
            raise Unsupported(f"{image_name}: one image at a time is supported yet, got {' and '.join(image)}")
        image = image[0]
        if not image:
            raise ConfigError(f"{image_name}: '' is no image")
    if typed and run == "host" and not run_name.startswith("--"):
        raise ConfigError(
            f"--ocirun-image {image} asks to run the tests inside, the ini file says {run_name} = host",
            hint="Add --ocirun-run inside, or --ocirun-run host.",
        )
    return image, run == "inside" or (run is None and typed)


def _box(source: _Source, image: str | None) -> Box:
    memory_name, memory = source.once("memory")
    pids_name, pids = source.once("pids")
    cpus_name, cpus = source.once("cpus")
    memory = values.size(memory_name, memory or _MEMORY, lowest=_LEAST_MEMORY)
    return Box(
        image=image,
        memory=memory,
        pids=values.count(pids_name, pids or 512),
        cpus=None if cpus is None else values.number(cpus_name, cpus, "a positive number of processors"),
        disk=_disk(*source.once("disk"), memory),
        mounts=tuple(values.mount(name, value) for name, value in source.each("mount")),
        env=tuple(values.variable(name, value) for name, value in source.each("env")),
    )


def _disk(name: str, value: object, memory: int) -> int:
    """What is written counts as memory too: a disk that is as large would only ever be out of memory."""
    if value is None:
        return min(_DISK, memory // 2)
    disk = values.size(name, value, lowest=_LEAST_DISK)
    if disk >= memory:
        raise ConfigError(f"{name}: {value!r} must be below the memory limit, which is {values.human(memory)}")
    return disk


def _output(name: str, value: object) -> int:
    output = values.size(name, value, lowest=1024)
    if output > 16 * 1024 * 1024:
        raise ConfigError(f"{name}: {value!r} is too much; 16m is the most that one report can carry")
    return output


def _path(config: pytest.Config, source: _Source) -> Path | None:
    _, store = source.once("store")
    return None if store is None else config.invocation_params.dir / store


def check_marker(mark: pytest.Mark) -> None:
    """Refuse what ``@pytest.mark.ocirun`` does not take.

    Raises:
        ConfigError: a positional argument, or one of no known name.
    """
    unknown = [repr(argument) for argument in mark.args]
    unknown += [name for name in mark.kwargs if name not in _MARKER_ARGUMENTS]
    if unknown:
        raise ConfigError(
            f"@pytest.mark.ocirun does not take {', '.join(unknown)}",
            hint=f"It takes {', '.join(_MARKER_ARGUMENTS)}, by name.",
        )


def container_settings(base: Box, overrides: dict[str, Any], origin: str) -> Box:
    """Return the box with some of its settings replaced.

    Args:
        base: what the options and the ini file say.
        overrides: by name; None leaves a setting alone.
        origin: what to call the place they come from, in an error.

    Raises:
        ConfigError: an unknown name or a wrong value.
    """
    given = {name: value for name, value in overrides.items() if value is not None}
    unknown = [name for name in given if name not in _MARKER_ARGUMENTS]
    if unknown:
        raise ConfigError(
            f"{origin} does not take {', '.join(unknown)}", hint=f"It takes {', '.join(_MARKER_ARGUMENTS)}, by name."
        )

    def name(setting: str) -> str:
        return f"{origin}, {setting}"

    memory = values.size(name("memory"), given["memory"], lowest=_LEAST_MEMORY) if "memory" in given else base.memory
    disk = _disk(name("disk"), given["disk"], memory) if "disk" in given else min(base.disk, _disk("", None, memory))
    return replace(
        base,
        image=_image(name("image"), given["image"]) if "image" in given else base.image,
        memory=memory,
        disk=disk,
        pids=values.count(name("pids"), given["pids"]) if "pids" in given else base.pids,
        cpus=values.number(name("cpus"), given["cpus"], "a positive number") if "cpus" in given else base.cpus,
        env=base.env + _env(name("env"), given.get("env", {})),
        mounts=base.mounts + tuple(values.mount(name("mount"), one) for one in _texts(given.get("mount", ()))),
    )


def _image(name: str, value: object) -> str:
    if not isinstance(value, str) or not value:
        raise ConfigError(f"{name}: {value!r} is no image")
    return value


def _env(name: str, value: object) -> tuple[tuple[str, str], ...]:
    if not isinstance(value, dict):
        raise ConfigError(f"{name}: {value!r} is no mapping of names to values")
    return tuple(values.variable(name, f"{key}={content}") for key, content in value.items())


def _texts(value: Any) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value)
