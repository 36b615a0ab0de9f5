"""Engines on a GPU, with asynchronous scheduling and without: what vLLM does there and never on a CPU.

With it the next step is prepared while the GPU computes: drafts stay on the device, and their distributions are matched
to the next batch by request.
"""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("vllm")

from tests.engine import test_draft_parity as parity
from tests.engine import test_losslessness as losslessness
from tests.engine.tiny import in_engine_process

SCHEDULING = pytest.mark.parametrize(
    "asynchronous", [True, False], ids=["asynchronous scheduling", "synchronous scheduling"]
)
TOLERANCE = 1e-3
"""float32 kernels of two implementations on a GPU; a wrong slot, mask or step is off by tenths."""


@SCHEDULING
def test_the_engine_drafts_what_training_computes(asynchronous: bool, tmp_path: Path) -> None:
    changes = {"async_scheduling": asynchronous}
    measured = in_engine_process(parity.__file__, "measure_all", str(tmp_path), ["qwen2"], changes)
    assert isinstance(measured["qwen2"], dict), measured["qwen2"]
    result = parity.Parity(**measured["qwen2"])
    assert max(result.tv) <= TOLERANCE, result
    assert min(result.accepted, result.rejected) >= 5, result


@SCHEDULING
def test_drafted_samples_follow_the_policy(asynchronous: bool, tmp_path: Path) -> None:
    changes = {"async_scheduling": asynchronous}
    sampled = in_engine_process(
        losslessness.__file__, "measure", str(tmp_path), ["plain", "drafted"], changes
    )
    for sampling in losslessness.SAMPLINGS:
        values = losslessness.p_values(sampled[f"plain {sampling}"], sampled[f"drafted {sampling}"])
        assert min(values.values()) > losslessness.P_VALUE, (sampling, values)
        assert sampled[f"drafted {sampling}"]["engine_gap"] < 8 * TOLERANCE, "a sum of 8 log-probs"
