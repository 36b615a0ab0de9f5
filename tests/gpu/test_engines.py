"""Engines on a GPU, with both of vLLM's model runners, as a job runs them and at their plainest.

V2 is what a job gets there, V1 what it gets with VLLM_USE_V2_MODEL_RUNNER=0. A job's engines have two things that never
run on a CPU. With asynchronous scheduling the next step is prepared while the GPU computes: drafts stay on the device,
and V1 matches their distributions to the next batch by request. With CUDA graphs the draft's steps are recorded once,
for all depths.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("vllm")

from tests.engine import test_draft_parity as parity
from tests.engine import test_losslessness as losslessness
from tests.engine import test_v2_losslessness as v2_losslessness
from tests.engine.tiny import in_engine_process

RUNNER = pytest.mark.parametrize("v2_runner", [True, False], ids=["V2", "V1"])
WAYS: dict[str, dict[str, Any]] = {
    "as a job": {"async_scheduling": True, "enforce_eager": False},
    "synchronous and eager": {"async_scheduling": False, "enforce_eager": True},
}
WAY = pytest.mark.parametrize("changes", WAYS.values(), ids=WAYS)
CASES = ["qwen2", "qwen2_two_blocks"]
BLOCK_SAMPLES = 4800
TOLERANCE = 1e-3
"""float32 kernels of two implementations on a GPU; a wrong slot, mask or step is off by tenths. The engine's process
keeps Triton from TF32 (`tests.engine.tiny`)."""


@RUNNER
@WAY
def test_the_engine_drafts_what_training_computes(
    changes: dict[str, Any], v2_runner: bool, tmp_path: Path
) -> None:
    measured = in_engine_process(
        parity.__file__, "measure_all", str(tmp_path), CASES, changes, v2_runner=v2_runner
    )
    for case in CASES:
        assert isinstance(measured[case], dict), measured[case]
        result = parity.Parity(**measured[case])
        assert max(result.tv) <= TOLERANCE, (case, result)
        assert min(result.accepted, result.rejected) >= 5, (case, result)


@RUNNER
@WAY
def test_drafted_samples_follow_the_policy(changes: dict[str, Any], v2_runner: bool, tmp_path: Path) -> None:
    settings = ["plain", "drafted"]
    sampled = in_engine_process(
        losslessness.__file__, "measure", str(tmp_path), settings, changes, v2_runner=v2_runner
    )
    for sampling in losslessness.SAMPLINGS:
        values = losslessness.p_values(sampled[f"plain {sampling}"], sampled[f"drafted {sampling}"])
        assert min(values.values()) > losslessness.P_VALUE, (sampling, values)
        assert sampled[f"drafted {sampling}"]["engine_gap"] < 8 * TOLERANCE, "a sum of 8 log-probs"


@pytest.mark.timeout(1200)
def test_samples_that_are_verified_as_blocks_follow_the_policy(tmp_path: Path) -> None:
    sampled = in_engine_process(
        v2_losslessness.__file__, "measure", str(tmp_path), BLOCK_SAMPLES, timeout_s=1100, v2_runner=True
    )
    for setting, found in sampled.items():
        assert max(map(abs, found["counts"])) < v2_losslessness.LIMIT, setting
        assert max(map(abs, found["log_probs"])) < v2_losslessness.LIMIT, setting
