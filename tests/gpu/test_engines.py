"""Engines on a GPU, with both of vLLM's model runners, with asynchronous scheduling and without.

V2 is what a job gets there, V1 what it gets with VLLM_USE_V2_MODEL_RUNNER=0. Asynchronous scheduling never runs on a
CPU: with it the next step is prepared while the GPU computes. Drafts stay on the device, and V1 matches their
distributions to the next batch by request.
"""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("vllm")

from tests.engine import test_draft_parity as parity
from tests.engine import test_losslessness as losslessness
from tests.engine import test_v2_losslessness as v2_losslessness
from tests.engine.tiny import in_engine_process

RUNNER = pytest.mark.parametrize("v2_runner", [True, False], ids=["V2", "V1"])
SCHEDULING = pytest.mark.parametrize(
    "asynchronous", [True, False], ids=["asynchronous scheduling", "synchronous scheduling"]
)
BLOCK_SAMPLES = 4800
TOLERANCE = 1e-3
"""float32 kernels of two implementations on a GPU; a wrong slot, mask or step is off by tenths."""


@RUNNER
@SCHEDULING
@pytest.mark.parametrize("case", ["qwen2", "qwen2_two_blocks"])
def test_the_engine_drafts_what_training_computes(
    case: str, asynchronous: bool, v2_runner: bool, tmp_path: Path
) -> None:
    changes = {"async_scheduling": asynchronous}
    measured = in_engine_process(
        parity.__file__, "measure_all", str(tmp_path), [case], changes, v2_runner=v2_runner
    )
    assert isinstance(measured[case], dict), measured[case]
    result = parity.Parity(**measured[case])
    assert max(result.tv) <= TOLERANCE, result
    assert min(result.accepted, result.rejected) >= 5, result


@RUNNER
@SCHEDULING
def test_drafted_samples_follow_the_policy(asynchronous: bool, v2_runner: bool, tmp_path: Path) -> None:
    changes = {"async_scheduling": asynchronous}
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
