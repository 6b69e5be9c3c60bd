"""Claims on ranges of host ids."""

import os
import threading
from pathlib import Path

import pytest

from pytest_ocirun.engine.idrange import COUNT, FIRST, SIZE, Ranges


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Ranges, Ranges]:
    """Two claimers, as of two processes: the locks belong to the open file."""
    return Ranges(str(tmp_path)), Ranges(str(tmp_path))


def test_claims_never_overlap(pair: tuple[Ranges, Ranges]) -> None:
    """Neither one's own nor another's, and the first range stays nobody's."""
    claimed = [each.claim() for _turn in range(10) for each in pair]

    assert len(set(claimed)) == 20
    assert all((first - FIRST) % SIZE == 0 and first >= FIRST + SIZE for first in claimed)
    assert max(claimed) + SIZE < 2**31


def test_a_returned_range_is_used_again(pair: tuple[Ranges, Ranges]) -> None:
    """By the same process; it keeps the claim."""
    ours, theirs = pair
    first = ours.claim()
    ours.give_back(first)

    assert theirs.claim() != first
    assert ours.claim() == first


def test_claims_end_with_their_holder(pair: tuple[Ranges, Ranges]) -> None:
    """The kernel gives them up when the file is closed, however that comes."""
    ours, theirs = pair
    first = ours.claim()
    ours.close()

    assert theirs.claim() == first


def test_claims_of_a_killed_process_are_free(tmp_path: Path) -> None:
    """The same across processes."""
    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        os.write(write, str(Ranges(str(tmp_path)).claim()).encode())
        os.kill(os.getpid(), 9)
    os.waitpid(pid, 0)
    claimed = int(os.read(read, 100))
    os.close(read)
    os.close(write)

    assert Ranges(str(tmp_path)).claim() == claimed


def test_threads_get_different_ranges(tmp_path: Path) -> None:
    """One claimer is safe for threads."""
    ranges = Ranges(str(tmp_path))
    claimed: list[int] = []
    threads = [
        threading.Thread(target=lambda: claimed.extend(ranges.claim() for _turn in range(20))) for _n in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(set(claimed)) == 160


def test_there_are_enough(tmp_path: Path) -> None:
    """A thousand containers at once, of one process, below the ids that the kernel keeps."""
    assert COUNT > 1000
    assert FIRST + COUNT * SIZE < 2**31
