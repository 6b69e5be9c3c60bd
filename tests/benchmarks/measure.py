"""Rows measured in turn, and the table that compares them. Knows nothing of what is measured.

A machine's load drifts by a factor of two within minutes, so figures of different runs cannot be compared. Every
row of a table is measured in the same minutes: a block of it, then a block of the next, round after round.
"""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence

from pytest_ocirun.errors import OcirunError

Times = Mapping[str, float]
"""Milliseconds of each phase of one sample, by name; ``total`` is the whole."""

TOTAL = "total"


class Row:
    """Something to measure.

    Args:
        name: what the table calls it.
        sample: does it once.
    """

    def __init__(self, name: str, sample: Callable[[], Times]) -> None:
        self.name = name
        self.sample = sample
        self.times: list[Times] = []

    def phase(self, name: str) -> list[float]:
        """Every sample's time of one phase, sorted."""
        return sorted(times[name] for times in self.times)

    def median(self) -> float:
        """The median of the whole."""
        return statistics.median(self.phase(TOTAL))


class Stopwatch:
    """Times of consecutive phases, in milliseconds."""

    def __init__(self) -> None:
        self._times: dict[str, float] = {}
        self._began = self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        """End a phase that began where the last one ended."""
        now = time.perf_counter()
        self._times[name] = (now - self._last) * 1e3
        self._last = now

    def stop(self) -> Times:
        """Every phase, and the whole up to the last lap."""
        return {**self._times, TOTAL: (self._last - self._began) * 1e3}


def interleave(rows: Sequence[Row], *, rounds: int, block: int, pause: float = 0.0) -> list[str]:
    """Measure every row ``rounds`` times ``block`` samples, after one of each that does not count.

    Args:
        rows: what to measure; the samples are added to each.
        rounds: how often to come back to each row.
        block: samples in a row of one row.
        pause: seconds of idleness before each sample.

    Returns:
        Why rows failed, a line each. A row that failed is not measured any further.
    """
    failed: dict[str, str] = {}
    for turn in range(rounds + 1):
        for row in rows:
            if row.name not in failed:
                try:
                    _block(row, block if turn else 0, pause)
                except (RuntimeError, AssertionError, OcirunError) as error:
                    failed[row.name] = f"FAILED {row.name}: {error}"
    return list(failed.values())


def _block(row: Row, samples: int, pause: float) -> None:
    if not samples:
        row.sample()
    for _ in range(samples):
        time.sleep(pause)
        row.times.append(row.sample())


def table(title: str, rows: Sequence[Row], *, base: Row) -> str:
    """Medians, 95th percentiles, least values, and each median as a multiple of the base's, and the reverse."""
    width = max(len(row.name) for row in rows)
    lines = [
        f"\n{title} (ms, {len(base.times)} samples each, interleaved)",
        f"{'':{width}}  median     p95     min   x {base.name}",
    ]
    for row in rows:
        times = row.phase(TOTAL)
        ratio = row.median() / base.median()
        lines.append(
            f"{row.name:{width}}  {row.median():6.2f}  {percentile(times, 0.95):6.2f}  {times[0]:6.2f}   "
            f"{ratio:.2f}" + (f" (1/{1 / ratio:.1f})" if ratio < 1 else "")
        )
    return "\n".join(lines)


def phases(title: str, rows: Sequence[Row]) -> str:
    """The median of every phase of every row that has phases."""
    lines = [f"\n{title}: medians of the phases (ms)"]
    for row in rows:
        names = [name for name in row.times[0] if name != TOTAL]
        if names:
            parts = ", ".join(f"{name} {statistics.median(row.phase(name)):.2f}" for name in names)
            lines.append(f"{row.name}: {parts}")
    return "\n".join(lines)


def by_phase(title: str, rows: Sequence[Row], *, base: Row) -> str:
    """A line for each phase: every row's median, its least, and in brackets the median as a multiple of the base's."""
    width = max(len(name) for name in base.times[0])
    lines = [f"\n{title} (median and least in ms, and x {base.name}; {len(base.times)} samples each, interleaved)"]
    lines.append(" " * width + "".join(f"{row.name:>22}" for row in rows))
    for name in base.times[0]:
        unit = statistics.median(base.phase(name))
        lines.append(f"{name:{width}}" + "".join(_cell(row, name, unit) for row in rows))
    return "\n".join(lines)


def _cell(row: Row, name: str, unit: float) -> str:
    if name not in row.times[0]:
        return f"{'-':>22}"
    times = row.phase(name)
    median = statistics.median(times)
    return f"{median:.2f} {times[0]:.2f} ({median / unit:.2f})".rjust(22)


def percentile(times: Sequence[float], part: float) -> float:
    """The sample below which ``part`` of the sorted ``times`` lie."""
    return times[min(int(len(times) * part), len(times) - 1)]
