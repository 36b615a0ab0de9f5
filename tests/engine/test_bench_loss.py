"""The measurement behind `bench loss`: each form in a process of its own, in turn, with its own peak memory."""

from __future__ import annotations

import pytest

from openrlhf_mtp.bench.loss import measure
from openrlhf_mtp.bench.loss_forms import Workload


def test_every_form_is_measured_in_turn_and_its_memory_is_its_own() -> None:
    workload = Workload(vocab=65_536, hidden=16, tokens=64, depths=3, repeats=2)
    seen = []
    ours, plain, speculators = measure(workload, lambda form, _: seen.append(form))
    assert seen == ["ours", "plain", "ours", "plain"]
    for result in (ours, plain):
        assert len(result.seconds) == 2
        assert min(result.seconds) > 0
    assert ours.loss == pytest.approx(plain.loss, rel=1e-5)
    assert ours.gradient_norm == pytest.approx(plain.gradient_norm, rel=1e-3)
    logits = workload.vocab * workload.tokens * workload.depths * 4
    # plain holds the logits, both probabilities and a gradient at once; ours one set of logits, a third more of
    # targets, and buffers
    assert plain.extra_bytes > 4 * logits
    assert logits < ours.extra_bytes < 3 * logits
    assert "needs a CUDA GPU" in speculators.problem
    assert not speculators.seconds
