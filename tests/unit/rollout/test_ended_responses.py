"""Acceptance by response and by quarter, as the engine counted its drafts and as the trainer replays them."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from openrlhf_mtp.losses.replayed_acceptance import replay_acceptance
from openrlhf_mtp.rollout.ended_responses import EndedResponses, acceptance_metrics
from openrlhf_mtp.runlog import metrics

DEPTHS = 3


def of(tokens, accepted):
    return EndedResponses.of(tokens, accepted, [DEPTHS] * len(accepted), depths=DEPTHS)


def test_acceptance_is_reported_over_all_drafts_and_per_depth():
    row = acceptance_metrics(of(26, [1] * 3 + [2] * 3 + [3] * 2 + [0] * 2))
    assert {name: value for name, value in row.items() if "quarter" not in name} == {
        "spec/acceptance_rate": 0.5,
        "spec/acceptance_rate/depth_1": 0.8,
        "spec/acceptance_rate/depth_2": 0.5,
        "spec/acceptance_rate/depth_3": 0.2,
        "spec/mean_acceptance_length": 2.5,
        "spec/drafts": 10.0,
        "spec/acceptance_length_p10": 2.5,
        "spec/slow_responses": 0.0,
    }


def test_the_rates_by_depth_sum_to_the_mean_acceptance_length():
    row = acceptance_metrics(of(26, [1] * 3 + [2] * 3 + [3] * 2 + [0] * 2))
    by_depth = [value for name, value in row.items() if "/depth_" in name]
    assert 1.0 + sum(by_depth) == pytest.approx(row["spec/mean_acceptance_length"])


def test_a_draft_that_was_cut_short_counts_what_was_drafted_of_it():
    """At the context's end the engine verifies fewer tokens; an n-gram proposes what it has."""
    ended = EndedResponses.of(9, [3, 1, 1], [3, 2, 1], depths=3)
    assert acceptance_metrics(ended)["spec/acceptance_rate"] == pytest.approx(5 / 6)


def test_a_response_is_divided_by_where_its_drafts_begin():
    one = of(tokens=9, accepted=[1, 0, 3, 0])  # drafts after 1, 3, 4 and 8 tokens
    assert one.responses == ((4, 4),)
    assert one.quarters == ((1, 1), (2, 3), (0, 0), (1, 0))


def test_what_is_accepted_beyond_the_end_of_a_response_is_rejected():
    """vLLM counts a draft's accepted tokens before it cuts the response at its end token or its limit."""
    one = of(tokens=9, accepted=[1, 0, 3, 3])  # the last begins after 8 tokens: one is left
    assert one.responses == ((4, 5),)
    assert one.quarters == ((1, 1), (2, 3), (0, 0), (1, 1))
    assert one.by_depth == (3, 1, 1)
    assert one.drafted == 12


@given(st.lists(st.booleans(), min_size=1, max_size=40))
def test_an_engines_drafts_are_those_of_the_replay(anchors):
    """Certain drafts leave nothing to chance, so that both count the same drafts."""
    accept = torch.tensor(anchors, dtype=torch.float64)[:, None].expand(-1, DEPTHS)
    mask = torch.arange(len(anchors))[:, None] + torch.arange(DEPTHS) < len(anchors)
    replayed = replay_acceptance(accept, mask, torch.arange(len(anchors)))
    accepted, place = [], 0
    while place < len(anchors):
        accepted.append(
            DEPTHS if anchors[place] else 0
        )  # as the engine does, whatever is left of the response
        place += accepted[-1] + 1
    ended = of(len(anchors) + 1, accepted)
    assert replayed.responses.tolist() == [list(one) for one in ended.responses]
    assert replayed.quarters.tolist() == [list(one) for one in ended.quarters]
    assert replayed.reached.tolist() == list(ended.by_depth)
    row = acceptance_metrics(ended)
    assert row["spec/drafts"] == replayed.drafts
    assert row["spec/mean_acceptance_length"] == pytest.approx(
        1 + (replayed.reached.sum() / replayed.drafts).item()
    )


@given(st.lists(st.integers(0, DEPTHS), min_size=1, max_size=40), st.integers(0, DEPTHS))
def test_drafts_and_their_accepted_tokens_are_the_response(accepted, beyond):
    """All tokens but the first come from a draft, and the last draft gives none of the target's own if it was cut."""
    tokens = 1 + sum(accepted) + len(accepted) - min(beyond, accepted[-1])
    ((drafts, inside),) = of(tokens, accepted).responses
    assert drafts + inside == (tokens if beyond and accepted[-1] else tokens - 1)


def test_the_metrics_tell_slow_responses_from_a_mean():
    good, bad = of(41, [3] * 10), of(41, [0] * 40)
    row = acceptance_metrics(EndedResponses.joined([good] * 19 + [bad]))
    assert row["spec/slow_responses"] == 0.05
    assert row["spec/acceptance_length_p10"] == 4.0
    assert row["spec/mean_acceptance_length/quarter_1"] == pytest.approx(1 + 19 * 9 / (19 * 3 + 10))
    metrics.validate(row)


def test_a_response_without_a_draft_counts_nowhere():
    assert acceptance_metrics(EndedResponses.joined([of(1, []), EndedResponses()])) == {}


def test_the_drafts_survive_the_trip_through_a_ray_dictionary():
    from dataclasses import asdict

    one = of(9, [1, 0, 3, 2])
    assert EndedResponses.from_dict(asdict(one)) == one
