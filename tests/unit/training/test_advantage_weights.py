"""Weights of samples over an optimizer step of several micro-batches."""

from types import SimpleNamespace

import pytest
import torch

from openrlhf_mtp.config.settings.regime import AdvantageSettings
from openrlhf_mtp.runlog import metrics
from openrlhf_mtp.training.advantage_weights import AdvantageMetrics, advantages_of, step_weights


def experience(*advantages, tokens=4):
    column = torch.tensor(advantages)[:, None]
    mask = torch.zeros(len(advantages), 6, dtype=torch.bool)
    mask[:, -tokens:] = True
    return SimpleNamespace(advantages=column * mask, action_mask=mask, info={})


def by_token(experience):
    return experience.action_mask.sum(1)


def test_the_normalizer_spans_the_whole_step():
    micro_batches = [experience(-1.0, 2.0, tokens=2), experience(0.5)]
    weights = step_weights(AdvantageSettings(weighting="sigmoid", temperature=0.5), micro_batches, by_token)
    each = [weights(advantages_of(batch)) for batch in micro_batches]
    total = sum(float((w * e.action_mask.sum(1)).sum()) for w, e in zip(each, micro_batches, strict=True))
    assert total == pytest.approx(sum(int(e.action_mask.sum()) for e in micro_batches))
    assert each[0][1] > each[1][0] > each[0][0]


def positive(micro_batches, counts):
    return step_weights(AdvantageSettings(weighting="positive"), micro_batches, counts)


def test_the_mean_is_over_what_the_objective_counts_not_over_tokens():
    batch = experience(1.0, -1.0)
    counts = torch.tensor([1.0, 7.0])  # a short response that is good, a long one that is bad
    weights = positive([batch], lambda _: counts)
    assert weights(advantages_of(batch)).tolist() == [8.0, 0.0]


def test_a_good_response_too_short_to_be_counted_leaves_all_others_their_weight():
    batch = experience(1.0, -1.0)
    weights = positive([batch], lambda _: torch.tensor([0.0, 7.0]))
    assert weights(advantages_of(batch)).tolist() == [1.0, 1.0]
    kept = AdvantageMetrics()
    kept.add(weights, [batch])
    assert kept.drain()["mtp/advantage_fallback"] == 1.0


def test_a_group_of_equal_rewards_is_neutral_even_if_whitening_has_moved_it():
    batch = experience(0.4, -0.4, 2.0)
    batch.info["group_reward_std"] = torch.tensor([0.0, 1e-9, 0.5])
    neutral, also_neutral, best = positive([batch], by_token)(advantages_of(batch)).tolist()
    assert neutral == also_neutral == best / 2


def test_the_largest_weight_and_the_share_of_fallbacks_are_metrics():
    kept = AdvantageMetrics()
    for micro_batches in ([experience(-1.0, 1.0)], [experience(-1.0, -2.0)]):
        kept.add(positive(micro_batches, by_token), micro_batches)
    row = kept.drain()
    assert row == {
        "mtp/advantage_weight_max": 2.0,
        "mtp/advantage_effective_share": (0.5 + 1.0) / 2,
        "mtp/advantage_fallback": 0.5,
    }
    metrics.validate(row)
    assert set(kept.drain().values()) == {0.0}


def test_weighting_is_off_by_default():
    assert not AdvantageSettings().is_on
