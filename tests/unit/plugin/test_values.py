"""What users write, parsed; what is wrong, named."""

from pathlib import Path

import pytest

from pytest_ocirun.errors import ConfigError
from pytest_ocirun.plugin import values


@pytest.mark.parametrize(
    "text, expected",
    [("512m", 512 << 20), ("2g", 2 << 30), ("1K", 1024), ("1GiB", 1 << 30), ("77", 77), (77, 77), (" 3mb ", 3 << 20)],
)
def test_size(text: object, expected: int) -> None:
    """Sizes are powers of 1024."""
    assert values.size("--x", text) == expected


@pytest.mark.parametrize("text", ["", "m", "-1", "1.5g", "1 g", "0", "1x", "٣m", True, None, 1.0, "9" * 20])
def test_no_size(text: object) -> None:
    """Anything else names the option and the value."""
    with pytest.raises(ConfigError, match=r"^--x: "):
        values.size("--x", text)


@pytest.mark.parametrize("size", [1, 1023, 1024, 1536, 512 << 20, 3 << 30])
def test_human_is_read_back(size: int) -> None:
    """What we print can be typed."""
    assert values.size("--x", values.human(size)) == size


@pytest.mark.parametrize("text", ["0", "-1", "1.0", "", "x", True, None, "1" * 12, "²"])
def test_no_count(text: object) -> None:
    """Counts are whole and positive."""
    with pytest.raises(ConfigError, match=r"^--x: "):
        values.count("--x", text)


@pytest.mark.parametrize("text", ["0", "-1", "nan", "inf", "", "x", True, None])
def test_no_number(text: object) -> None:
    """Numbers are finite and positive."""
    with pytest.raises(ConfigError, match=r"^--x: "):
        values.number("--x", text, "a number")


def test_mount(tmp_path: Path) -> None:
    """Read-only unless told otherwise."""
    assert values.mount("--x", f"{tmp_path}:/data") == values.Mount(
        source=str(tmp_path), destination="/data", readonly=True
    )
    assert values.mount("--x", f"{tmp_path}:/data/:ro").destination == "/data"
    assert not values.mount("--x", f"{tmp_path}:/data:rw").readonly


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":/x",
        "/tmp",
        "/tmp:x",
        "/tmp:/",
        "/tmp:/proc",
        "/tmp:/sys/x",
        "/tmp:/a/../proc",
        "/tmp:/x:rwx",
        "/no/such:/x",
    ],
)
def test_no_mount(text: str) -> None:
    """Where nothing may be mounted, nothing is."""
    with pytest.raises(ConfigError, match=r"^--x: "):
        values.mount("--x", text)


def test_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a value, or with the host's."""
    monkeypatch.setenv("OCIRUN_TEST_VALUE", "from the host")

    assert values.variable("--x", "A=b=c") == ("A", "b=c")
    assert values.variable("--x", "A=") == ("A", "")
    assert values.variable("--x", "OCIRUN_TEST_VALUE") == ("OCIRUN_TEST_VALUE", "from the host")


@pytest.mark.parametrize("text", ["", "=x", "1A=x", "A B=c", "OCIRUN_TEST_NOT_SET", "A=\0"])
def test_no_variable(text: str) -> None:
    """A name is a name."""
    with pytest.raises(ConfigError, match=r"^--x: "):
        values.variable("--x", text)
