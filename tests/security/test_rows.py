"""Every known failure of a container runtime that could be ours has a test that names it."""

from pathlib import Path

import pytest

_HERE = Path(__file__).parent

_RUNTIMES = """
2016-3697 2016-9962 2019-5736 2019-16884 2019-19921 2021-30465 2021-43784 2022-29162 2022-24769 2023-25809 2023-27561
2023-28642 2024-21626 2024-45310 2025-31133 2025-52565 2025-52881 2026-41579
2019-18837 2022-27650 2025-24965 2026-30892 2026-47766 2015-1335 2016-8649 2022-47952 2017-5226 2019-7303 2020-5291
2014-8989
"""
"""Of runc; of crun, LXC, bubblewrap, snapd and the kernel's user namespaces. Those of youki are runc's."""

_ENGINES = """
2015-3630 2015-3631 2019-14271 2021-21284 2021-41091 2021-41103 2022-36109 2023-25173 2024-23652 2020-15257 2024-40635
2025-47291 2020-14370 2021-3602 2021-20206 2022-1227 2022-2989 2022-2990 2024-3056 2024-9676 2021-4024 2017-1002102
"""
"""Of Docker, containerd, podman and Kubernetes, as far as they lie in what a runtime does."""

_KERNEL = "2022-0492 2022-0185 2020-14386"
"""That the default filter puts out of reach; ``test_known_failures`` tries the calls of more."""


@pytest.mark.parametrize("number", [*_RUNTIMES.split(), *_ENGINES.split(), *_KERNEL.split()])
def test_a_known_failure_has_a_test(number: str) -> None:
    """In this folder, by its number in a test's docstring."""
    named = [
        path.name
        for path in _HERE.glob("test_*.py")
        if path.name != Path(__file__).name and f"CVE-{number}" in path.read_text(encoding="utf-8")
    ]

    assert named
