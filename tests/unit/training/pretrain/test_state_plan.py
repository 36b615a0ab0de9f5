"""What is stored: nothing that is read once, nothing that does not fit, and a refusal with both numbers."""

from __future__ import annotations

from typing import Any

import pytest

from openrlhf_mtp.config.settings.pretrain import PretrainSettings
from openrlhf_mtp.training.pretrain.responses import Response
from openrlhf_mtp.training.pretrain.state_plan import GIB, StatePlan, plan_states

TRAINING = [Response(n, (1,) * 4, (2,) * 6) for n in range(20)]
HELD_OUT = [Response(n, (1,) * 4, (2,) * 6) for n in range(20, 24)]
TOKEN = 1 << 20
TRAINING_BYTES, HELD_OUT_BYTES = 200 * TOKEN, 40 * TOKEN


def plan(free: int = 100 * GIB, **settings: Any) -> StatePlan:
    chosen = {"batch_size": 8, "micro_batch_size": 4, "eval_steps": 2, **settings}
    return plan_states(
        PretrainSettings.model_validate(chosen), TRAINING, HELD_OUT, token_bytes=TOKEN, free=free
    )


def test_several_passes_and_evaluations_are_stored() -> None:
    both = plan(epochs=3)
    assert (both.training, both.held_out, both.nbytes) == (True, True, TRAINING_BYTES + HELD_OUT_BYTES)
    assert both.refused is None


def test_a_single_pass_stores_what_is_evaluated_again_and_nothing_else() -> None:
    assert plan(epochs=1, eval_steps=1).held_out
    assert not plan(epochs=1, eval_steps=1).training
    assert plan(epochs=1, eval_steps=50) == StatePlan(False, False, 0, "every response is read once")
    assert not plan(epochs=3, max_steps=2, eval_steps=2).stores


def test_zero_stores_nothing() -> None:
    assert plan(epochs=3, state_cache_gib=0) == StatePlan(
        False, False, 0, "mtp.pretrain.state_cache_gib is 0"
    )


@pytest.mark.parametrize(
    ("free", "given", "training", "held_out"),
    [
        (2 * (TRAINING_BYTES + HELD_OUT_BYTES), None, True, True),
        (2 * (TRAINING_BYTES + HELD_OUT_BYTES) - 2, None, False, True),
        (2 * HELD_OUT_BYTES - 2, None, False, False),
        (0, 1.0, True, True),
        (100 * GIB, 0.1, False, True),
    ],
)
def test_room_is_half_of_the_free_disk_or_what_was_given(free, given, training, held_out) -> None:
    found = plan(free=free, epochs=3, state_cache_gib=given)
    assert (found.training, found.held_out) == (training, held_out)
    assert (found.refused is None) == training
    if found.refused is not None:
        assert "0.234 GiB do not fit" in found.refused
        assert "mtp.pretrain.state_cache_gib" in found.refused
