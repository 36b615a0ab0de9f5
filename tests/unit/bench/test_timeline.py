"""A whole rollout's figures, on one that is small enough to count by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openrlhf_mtp.bench.timeline import FIGURES, Emission, Step, Timeline, figures

# two responses of 2 and 6 tokens; the second has an end token in its second step and goes on
TIMELINE = Timeline(
    steps=[
        Step(1.0, (Emission(0, 1), Emission(1, 1))),
        Step(2.0, (Emission(0, 1), Emission(1, 2))),
        Step(2.5, (Emission(1, 2, after_end=True),)),
        Step(4.0, (Emission(1, 1, after_end=True),)),
    ],
    lengths=[2, 6],
    drafted=9,
    accepted=4,
)


def test_seconds_tokens_and_completions() -> None:
    assert TIMELINE.seconds == 4.0
    assert TIMELINE.tokens == 8
    assert TIMELINE.completions() == [2.0, 4.0]


def test_the_load_of_a_step_is_what_was_incomplete_when_it_began() -> None:
    assert list(TIMELINE.loads()) == [(1.0, 2), (1.0, 2), (0.5, 1), (1.5, 1)]
    assert TIMELINE.share_of_time(1) == pytest.approx(0.5)
    assert TIMELINE.share_of_time(4) == 1.0


def test_tokens_a_forward_leave_each_responses_first_token_out() -> None:
    # forwards after the first: 1 of response 0 with 1 token, 3 of response 1 with 2, 2 and 1
    assert TIMELINE.tokens_per_forward() == pytest.approx(6 / 4)
    assert TIMELINE.tokens_per_forward(after_end=False) == pytest.approx(3 / 2)
    assert TIMELINE.tokens_per_forward(after_end=True) == pytest.approx(3 / 2)
    assert TIMELINE.share_after_end() == pytest.approx(3 / 8)


def test_figures_have_the_names_that_are_explained() -> None:
    found = figures(TIMELINE)
    assert set(found) == set(FIGURES)
    assert found["seconds_per_token"] == pytest.approx(0.5)
    assert found["completion_p50"] == pytest.approx(3.0)
    assert found["completion_p95"] == pytest.approx(3.9)
    assert found["completion_max"] == 4.0
    assert found["tail_share"] == 1.0
    assert found["tail_seconds"] == 4.0
    assert found["acceptance_rate"] == pytest.approx(4 / 9)


def test_what_was_not_drafted_has_no_acceptance_rate_and_text_without_an_end_none_after_it() -> None:
    plain = Timeline([Step(1.0, (Emission(0, 1),)), Step(2.0, (Emission(0, 1),))], [2])
    found = figures(plain)
    assert found["tokens_per_forward"] == 1.0
    assert not {"acceptance_rate", "tokens_per_forward_after_end"} & set(found)


@given(st.lists(st.integers(1, 5), min_size=1, max_size=8))
def test_without_drafts_the_seconds_by_load_add_up_and_a_forward_gives_one_token(lengths: list[int]) -> None:
    steps = [
        Step(float(at), tuple(Emission(n, 1) for n, length in enumerate(lengths) if length >= at))
        for at in range(1, max(lengths) + 1)
    ]
    timeline = Timeline(steps, lengths)
    assert timeline.completions() == [float(length) for length in lengths]
    assert sum(seconds for seconds, _ in timeline.loads()) == pytest.approx(timeline.seconds)
    assert [live for _, live in timeline.loads()] == [
        sum(length >= at for length in lengths) for at in range(1, max(lengths) + 1)
    ]
    assert timeline.tokens_per_forward() in (None, 1.0)
