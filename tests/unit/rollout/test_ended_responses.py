"""Acceptance by response and by quarter, as the engine counted its drafts and as the trainer replays them."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from openrlhf_mtp.losses.replayed_acceptance import replay_acceptance
from openrlhf_mtp.rollout.ended_responses import EndedResponses, by_response_metrics
from openrlhf_mtp.runlog import metrics

DEPTHS = 3


def test_a_response_is_divided_by_where_its_drafts_begin():
    one = EndedResponses.of(tokens=9, accepted=[1, 0, 3, 0, 2])  # drafts after 1, 3, 4, 8 and 9 tokens
    assert one.responses == ((5, 6),)
    assert one.quarters == ((1, 1), (2, 3), (0, 0), (2, 2))


@given(st.lists(st.booleans(), min_size=1, max_size=40))
def test_an_engines_quarters_are_those_of_the_replay(anchors):
    """Certain drafts leave nothing to chance, so that both count the same drafts."""
    accept = torch.tensor(anchors, dtype=torch.float64)[:, None].expand(-1, DEPTHS)
    mask = torch.arange(len(anchors))[:, None] + torch.arange(DEPTHS) < len(anchors)
    replayed = replay_acceptance(accept, mask, torch.arange(len(anchors)))
    accepted, place = [], 0
    while place < len(anchors):
        accepted.append(min(DEPTHS, len(anchors) - place) if anchors[place] else 0)
        place += accepted[-1] + 1
    ended = EndedResponses.of(len(anchors) + 1, accepted)
    assert replayed.responses.tolist() == [list(one) for one in ended.responses]
    assert replayed.quarters.tolist() == [list(one) for one in ended.quarters]


def test_the_metrics_tell_slow_responses_from_a_mean():
    good, bad = EndedResponses.of(41, [3] * 10), EndedResponses.of(41, [0] * 40)
    row = by_response_metrics(EndedResponses.joined([good] * 19 + [bad]))
    assert row["spec/slow_responses"] == 0.05
    assert row["spec/acceptance_length_p10"] == 4.0
    assert row["spec/mean_acceptance_length/quarter_1"] == pytest.approx(1 + 19 * 9 / (19 * 3 + 10))
    metrics.validate(row)


def test_a_response_without_a_draft_counts_nowhere():
    assert by_response_metrics(EndedResponses.joined([EndedResponses.of(1, []), EndedResponses()])) == {}


def test_the_drafts_survive_the_trip_through_a_ray_dictionary():
    from dataclasses import asdict

    one = EndedResponses.of(9, [1, 0, 3, 0, 2])
    assert EndedResponses.from_dict(asdict(one)) == one
