"""Nothing of the tests' tree runs on the host."""

from pathlib import Path

import pytest

from tests.plugin.conftest import Runner

_CANARY = """
import os
if not os.path.exists("/.ocirun"):
    open({path!r}, "a").write(__name__ + " ")
"""


@pytest.fixture
def canary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file outside the tree that code of the tree writes to when it runs outside a container."""
    return tmp_path_factory.mktemp("canary") / "sang"


@pytest.fixture(autouse=True)
def _tree(pytester: pytest.Pytester, canary: Path) -> None:
    sing = _CANARY.format(path=str(canary))
    pytester.makeconftest(sing)
    pytester.makepyfile(test_plain=sing + "\ndef test_plain(): pass", helper=sing)
    package = pytester.mkpydir("pkg")
    for name in ("__init__.py", "conftest.py"):
        (package / name).write_text(sing)
    (package / "test_in_package.py").write_text(sing + "\ndef test_in_package(): pass")


def test_the_canary_can_sing(plain: Runner, canary: Path) -> None:
    """In a plain run it does: conftest, package and modules."""
    assert plain().status == 0

    assert set(canary.read_text().split()) >= {"conftest", "pkg", "pkg.conftest", "test_plain"}


@pytest.mark.parametrize(
    "arguments, status",
    [
        ((), 0),
        (("--collect-only",), 0),
        (("pkg/test_in_package.py::test_in_package", "--doctest-modules"), 0),
        (("-o", "pythonpath=.", "-k", "plain"), 0),
        (("--lf", "-m", "not nothing"), 0),
        (("--import-mode=importlib",), 0),
        (("--fixtures",), 4),
        (("--fixtures-per-test",), 4),
        (("--setup-plan",), 4),
        (("--pyargs", "pkg"), 4),
    ],
)
def test_nothing_is_imported_on_the_host(inside: Runner, canary: Path, arguments: tuple[str, ...], status: int) -> None:
    """Whatever the options, and through whichever door."""
    outcome = inside(*arguments)

    assert outcome.status == status, outcome.raw
    assert not canary.exists(), canary.read_text()


@pytest.mark.parametrize("door", ["--fixtures", "--fixtures-per-test"])
def test_the_second_door_is_shut(inside: Runner, door: str) -> None:
    """These collect by another way; they are refused by name."""
    refused = inside(door)

    refused.has(f"{door} does not work for tests inside containers")
    assert refused.status == pytest.ExitCode.USAGE_ERROR


def test_marks_are_not_evaluated_on_the_host(pytester: pytest.Pytester, inside: Runner, canary: Path) -> None:
    """A string condition is Python; it runs inside only."""
    expression = f"__import__('os').path.exists('/.ocirun') or open({str(canary)!r}, 'a').write('x')"
    pytester.makepyfile(
        test_marks=f"""
        import pytest
        @pytest.mark.skipif({expression!r}, reason="r")
        @pytest.mark.flaky(reruns=1, condition={expression!r})
        @pytest.mark.xfail({expression!r}, reason="r")
        def test_it(): pass
        """
    )

    inside("test_marks.py", "-m", "skipif or xfail").has("1 skipped")

    assert not canary.exists()


def test_the_hosts_secrets_are_not_there(
    pytester: pytest.Pytester, inside: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither its environment, nor its homes, nor its socket to the guest."""
    monkeypatch.setenv("MY_TOKEN", "secret")
    pytester.makepyfile(
        test_secrets="""
        import os, socket
        def test_environment(): assert "MY_TOKEN" not in os.environ
        def test_shadow(): assert not os.path.exists("/etc/shadow") or not os.access("/etc/shadow", os.R_OK)
        def test_socket():
            names = ["/proc/self/fd/" + fd for fd in os.listdir("/proc/self/fd")]
            kinds = [os.readlink(name) for name in names if os.path.lexists(name)]
            assert sum(kind.startswith("socket:") for kind in kinds) <= 1
        def test_agent():
            import pytest
            with pytest.raises(PermissionError): os.readlink("/proc/1/fd/3")
            with pytest.raises(PermissionError): open("/proc/1/mem", "rb")
        """
    )

    assert inside("test_secrets.py").status == 0
    assert inside("test_secrets.py", "--ocirun-env=MY_TOKEN", "-k", "environment").status == 1
