"""The time left: right on a machine of any speed once it is known, never below nothing, never nonsense before."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openrlhf_mtp.cli.progress.estimate import Estimate, Part

PARTS = [Part("start", 40.0), Part("work", 60.0), Part("report", 20.0)]


class Machine:
    """Goes through the parts `slower` times slower than usual; the clock moves as it works."""

    def __init__(self, slower, parts=PARTS):
        self.slower, self.parts, self.now = slower, parts, 1000.0
        self.estimate = Estimate(parts, clock=lambda: self.now)

    def spend(self, usual_s):
        self.now += usual_s * self.slower

    def true_left(self, usual_left):
        return usual_left * self.slower


@given(st.floats(0.3, 20.0))
def test_after_one_part_the_estimate_errs_at_most_half_as_much_as_the_usual(slower):
    machine = Machine(slower)
    machine.spend(40.0)
    machine.estimate.move(1)
    usual, true = 80.0, machine.true_left(80.0)
    assert abs(machine.estimate.left_s() - true) <= abs(usual - true) / 2


@given(st.floats(0.3, 20.0))
def test_a_part_that_counts_says_its_own_time(slower):
    machine = Machine(slower)
    machine.spend(40.0)
    machine.estimate.move(1)
    machine.estimate.count(1, 41)  # its start is not its rate
    for step in range(2, 22):
        machine.spend(1.5)
        machine.estimate.count(step, 41)
    assert machine.estimate.left_s() == pytest.approx(machine.true_left(30.0 + 20.0), rel=0.4)


@given(st.lists(st.tuples(st.floats(0.0, 500.0), st.booleans()), max_size=12))
def test_no_course_of_a_run_gives_a_time_below_nothing_or_above_the_whole(course):
    machine = Machine(1.0)
    for seconds, moves in course:
        machine.now += seconds
        if moves and machine.estimate.part is not None:
            machine.estimate.move(1)
        left, total = machine.estimate.left_s(), machine.estimate.total_s()
        assert 0.0 <= left <= total
        text = re.fullmatch(r"(?:under a minute|about (\d+) min) left of (\d+)", str(machine.estimate))
        assert text
        assert int(text[1] or 0) <= int(text[2])


@given(st.floats(1.0, 100.0))
def test_a_part_that_takes_ever_longer_makes_the_whole_longer(slower):
    machine = Machine(1.0)
    totals = []
    for _ in range(20):
        machine.now += 20.0 * slower
        totals.append(machine.estimate.total_s())
    assert totals == sorted(totals)
    assert totals[-1] > 400.0 * slower


def test_a_first_part_of_two_seconds_says_little():
    machine = Machine(1.0, [Part("copy", 2.0), *PARTS])
    machine.now += 12.0  # six times its usual time
    machine.estimate.move(1)
    assert machine.estimate.left_s() < 1.5 * 120.0


def test_stages_that_stand_do_not_count():
    machine = Machine(1.0)
    machine.estimate.skip(2)
    assert machine.estimate.part == PARTS[2]
    assert machine.estimate.left_s() == pytest.approx(20.0)


def test_words():
    machine = Machine(1.0, [Part("start", 100.0), Part("work", 200.0)])
    assert str(machine.estimate) == "about 5 min left of 5"
    machine.spend(100.0)
    machine.estimate.move(1)
    assert str(machine.estimate) == "about 3 min left of 5"
    machine.spend(170.0)
    assert str(machine.estimate) == "under a minute left of 5"
    machine.estimate.move(1)
    assert machine.estimate.left_s() == 0.0
