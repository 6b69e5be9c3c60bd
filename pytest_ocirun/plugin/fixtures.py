"""The fixtures ``ocirun_image``, ``ocirun_container`` and ``ocirun_container_factory``, thin over ``containers``.

Loaded in every session that has the plugin, so it imports nothing but pytest.
"""

from __future__ import annotations

import pytest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Generator

    from pytest_ocirun.engine.container import Container
    from pytest_ocirun.plugin.containers import Factory


@pytest.fixture
def ocirun_image() -> str | None:
    """The image of `ocirun_container`: override it in a module or conftest; None leaves it to the ini file.

    A marker, `@pytest.mark.ocirun(image=...)`, wins over it.
    """
    return None


@pytest.fixture
def ocirun_container_factory(
    request: pytest.FixtureRequest, ocirun_image: str | None
) -> Generator[Factory, None, None]:
    """Make containers: `ocirun_container_factory(image=..., memory="256m", ...)`.

    Each is a context manager too; whatever is left is deleted after the test.
    """
    from pytest_ocirun.plugin.containers import Factory

    factory = Factory(request.config, request.node, ocirun_image)
    try:
        yield factory
    finally:
        factory.close()


@pytest.fixture
def ocirun_container(ocirun_container_factory: Factory) -> Container:
    """A fresh, isolated container for this test; `ocirun_container.exec([...])` runs a command in it."""
    return ocirun_container_factory()
