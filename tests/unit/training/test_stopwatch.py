"""Times are added up, and reset once they are read."""

import time

import pytest

from openrlhf_mtp.training.stopwatch import Stopwatch


def test_time_inside_the_context_counts_and_reading_resets_it():
    watch = Stopwatch()
    began = time.perf_counter()
    for _ in range(2):
        with watch.running():
            time.sleep(0.01)
        time.sleep(0.02)
    all_of_it = time.perf_counter() - began
    assert 0.02 <= watch.read() <= all_of_it - 0.04
    assert watch.read() == 0.0


def test_a_part_that_fails_is_timed_as_well():
    watch = Stopwatch()

    def failing() -> None:
        with watch.running():
            time.sleep(0.01)
            raise KeyError

    with pytest.raises(KeyError):
        failing()
    assert watch.read() >= 0.01
