"""That every benchmark runs. How long it takes is printed (``pytest -s``), and nobody's verdict."""

import os

import pytest

from tests.benchmarks.__main__ import SECTIONS, main
from tests.benchmarks.measure import Row, interleave, table
from tests.requires import requires

ROUNDS = os.environ.get("OCIRUN_BENCH_ROUNDS", "1")
BLOCK = os.environ.get("OCIRUN_BENCH_BLOCK", "2")


@requires("root", "cgroup", "userns", "idmap", "seccomp", "busybox", "runc", "crun", "bubblewrap")
@pytest.mark.slow
@pytest.mark.parametrize("section", SECTIONS)
def test_section_runs(section: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Every row of the table could be measured."""
    status = main([section, "--rounds", ROUNDS, "--block", BLOCK])

    text = capsys.readouterr().out
    with capsys.disabled():
        print(text)
    assert status == 0, text
    assert SECTIONS[section].title in text


def test_failing_row_is_named_and_left_out() -> None:
    """One that cannot be measured does not cost the others their figures."""

    def fails() -> dict[str, float]:
        raise RuntimeError("no such program")

    good, bad = Row("good", lambda: {"total": 2.0}), Row("bad", fails)

    assert interleave([bad, good], rounds=2, block=3) == ["FAILED bad: no such program"]
    assert (len(good.times), len(bad.times)) == (6, 0)


def test_table_compares_medians() -> None:
    """With the base, both ways round."""
    slow, fast = Row("slow", dict), Row("fast", dict)
    slow.times = [{"total": value} for value in (9.0, 10.0, 30.0)]
    fast.times = [{"total": value} for value in (1.0, 2.0, 3.0)]

    lines = table("title", [fast, slow], base=slow).splitlines()

    assert lines[3].split() == ["fast", "2.00", "3.00", "1.00", "0.20", "(1/5.0)"]
    assert lines[4].split() == ["slow", "10.00", "30.00", "9.00", "1.00"]
