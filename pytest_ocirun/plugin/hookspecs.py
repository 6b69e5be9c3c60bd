"""The hooks that pytest-ocirun calls. Other plugins of the host may implement them; the tests' tree cannot."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    import pytest


def pytest_ocirun_guest_arguments(config: pytest.Config, args: list[str]) -> None:
    """Look at, or change in place, the arguments of the pytest inside, before the first container starts.

    Args:
        config: the host's configuration.
        args: options only; what to collect is added per container.
    """


def pytest_ocirun_guest_died(config: pytest.Config, nodeid: str, cause: str) -> None:
    """A container ended before its work was done.

    Args:
        config: the host's configuration.
        nodeid: the test, or the file, that it was working on.
        cause: what the host found out, such as ``out of memory (limit 256m)``.
    """
