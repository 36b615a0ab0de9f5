"""Progress of a generation: tokens tell what ended responses do not yet, and no word claims more than is known."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openrlhf_mtp.runlog.generation_progress import GenerationProgress
from openrlhf_mtp.runlog.time_left import in_words


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def progress(responses: int = 100, limit: int = 20_000) -> tuple[GenerationProgress, Clock]:
    clock = Clock()
    one = GenerationProgress(clock=clock)
    one.expect(responses, limit)
    return one, clock


def seen(one: GenerationProgress, clock: Clock, at: float, tokens: int, ended: int) -> str:
    clock.now = at
    one.see(tokens, ended)
    return str(one)


def test_before_any_response_ends_tokens_say_rate_and_a_bound() -> None:
    one, clock = progress()
    assert seen(one, clock, 40.0, 0, 0) == "0/100 responses, no token after 40 s"
    assert seen(one, clock, 45.0, 500, 0) == "0/100 responses, 500 tokens"
    assert seen(one, clock, 55.0, 1500, 0) == (
        "0/100 responses, 1500 tokens at 100 a second, at most 3 min left at this rate"
    )


def test_enough_ended_responses_give_an_estimate() -> None:
    one, clock = progress()
    seen(one, clock, 0.0, 1, 0)
    # 50 tokens for each of 20 responses that ended: the other 80 have 4,000 to go
    assert seen(one, clock, 10.0, 1001, 20).endswith("at 100 a second, about 40 s left at this rate")


def test_the_rate_is_that_of_the_last_minute() -> None:
    one, clock = progress()
    for second in range(200):
        seen(one, clock, float(second), 100 * min(second, 100) + 10 * max(0, second - 100) + 1, 0)
    assert one.rate() == pytest.approx(10.0, rel=0.01)


def test_without_a_known_number_of_responses_no_time_left_is_said() -> None:
    clock = Clock()
    one = GenerationProgress("requests", clock)
    seen(one, clock, 0.0, 10, 1)
    assert seen(one, clock, 10.0, 1010, 30) == "30 requests, 1010 tokens at 100 a second"


def test_responses_that_are_asked_for_later_count_from_then_on() -> None:
    one, clock = progress(4, 400)
    seen(one, clock, 0.0, 1, 0)
    seen(one, clock, 10.0, 201, 4)
    one.expect(4, 400)
    assert str(one) == "4/8 responses, 201 tokens at 20 a second, at most 20 s left at this rate"


def test_an_end_leaves_nothing() -> None:
    one, clock = progress()
    seen(one, clock, 0.0, 1, 0)
    assert seen(one, clock, 10.0, 5001, 100).endswith("about 0 s left at this rate")


@given(
    st.integers(1, 50).flatmap(
        lambda n: st.lists(st.tuples(st.integers(1, 30), st.integers(0, 30)), min_size=n, max_size=n)
    )
)
def test_no_estimate_is_below_zero_or_above_what_the_limits_allow(lengths: list[tuple[int, int]]) -> None:
    """Pairs: a response's length in the end, and how much of it is there."""
    one, clock = progress(len(lengths), 30 * len(lengths))
    tokens = sum(min(length, done) for length, done in lengths)
    ended = sum(done >= length for length, done in lengths)
    seen(one, clock, 1.0, tokens, ended)
    left = one.tokens_left()
    assert left is not None
    still_open = len(lengths) - ended
    assert 0 <= left[0] <= 30 * still_open
    if not left[1]:  # a bound holds
        assert left[0] >= sum(max(0, length - done) for length, done in lengths)


@pytest.mark.parametrize(("seconds", "words"), [(0, "0 s"), (119, "119 s"), (120, "2 min"), (7200, "2.0 h")])
def test_durations_in_words(seconds: float, words: str) -> None:
    assert in_words(seconds) == words
