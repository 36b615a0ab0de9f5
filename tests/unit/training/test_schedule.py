"""Which objective at which head step: by step, by measured overlap, and across a checkpoint."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openrlhf_mtp.config.settings.objective import ObjectiveSettings
from openrlhf_mtp.training.schedule import Schedule

KL = {"kl": 1.0}


def schedule(**settings):
    return Schedule(ObjectiveSettings(objective="e2e_tv", **settings))


def test_without_a_warm_up_the_objective_is_there_from_the_first_step():
    assert schedule().at(0) == {"e2e_tv": 1.0}


def test_the_warm_up_ends_by_step():
    by_step = schedule(kl_warmup_steps=3)
    assert [by_step.at(step) for step in range(5)] == [KL, KL, KL, {"e2e_tv": 1.0}, {"e2e_tv": 1.0}]


def test_the_passage_from_kl_is_linear_and_its_weights_sum_to_one():
    blended = schedule(kl_warmup_steps=2, blend_steps=3)
    shares = [blended.at(step).get("e2e_tv", 0.0) for step in range(7)]
    assert shares == pytest.approx([0.0, 0.0, 0.25, 0.5, 0.75, 1.0, 1.0])
    assert all(sum(blended.at(step).values()) == pytest.approx(1.0) for step in range(7))


def test_measured_overlap_ends_the_warm_up_early():
    measured = schedule(kl_warmup_steps=100, kl_until_alpha=0.5)
    for step, alpha in enumerate([0.1, 0.4, 0.55]):
        assert measured.at(step) == KL
        assert measured.watches(step)
        measured.record(step, alpha)
    assert measured.at(3) == {"e2e_tv": 1.0}
    assert not measured.watches(3)


def test_the_warm_up_never_comes_back_and_is_never_longer_than_allowed():
    measured = schedule(kl_warmup_steps=4, kl_until_alpha=0.5)
    for step in range(4):
        measured.record(step, 0.0)
    assert measured.at(4) == {"e2e_tv": 1.0}
    measured.record(4, 0.9)
    assert measured.warmup_steps == 4


def test_a_mixture_keeps_its_weights():
    mixed = Schedule(
        ObjectiveSettings(objective={"kl": 0.3, "e2e_tv": 0.7}, kl_warmup_steps=1, blend_steps=1)
    )
    assert mixed.at(1) == pytest.approx({"e2e_tv": 0.35, "kl": 0.65})
    assert mixed.at(2) == {"kl": 0.3, "e2e_tv": 0.7}


@given(st.integers(0, 10), st.lists(st.floats(0, 1), min_size=10, max_size=10))
def test_a_resumed_schedule_continues_as_the_first_would_have(cut, alphas):
    def fresh():
        return schedule(kl_warmup_steps=8, kl_until_alpha=0.6, blend_steps=2)

    whole, first = fresh(), fresh()
    for step in range(cut):
        whole.record(step, alphas[step])
        first.record(step, alphas[step])
    second = fresh()
    second.load_state(first.state())
    for step in range(cut, 10):
        assert second.at(step) == whole.at(step)
        whole.record(step, alphas[step])
        second.record(step, alphas[step])
