"""Every test here would hurt the machine, or the run, or both. Inside, each costs one red line that names the cause."""

import os
import time


def test_forks_without_end():
    while True:
        if os.fork() == 0:
            time.sleep(60)
            os._exit(0)


def test_eats_all_memory():
    hoard = []
    while True:
        hoard.append(b"x" * (1 << 24))


def test_hangs():
    time.sleep(3600)


def test_leaves_with_a_lie():
    os._exit(0)


def test_after_all_that():
    assert 1 + 1 == 2
