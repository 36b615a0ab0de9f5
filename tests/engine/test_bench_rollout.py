"""The measurement behind `bench rollout`, on a tiny random model: what it counts, not how fast it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.engine.tiny import DEPTHS, FAMILIES, in_engine_process, write_checkpoint


def measure(root: str) -> dict[str, Any]:
    """Both settings at batch 1 and 2, as plain values."""
    from openrlhf_mtp.bench.rollout import compare
    from openrlhf_mtp.bench.rollout_engine import Workload, prepare_process
    from openrlhf_mtp.config.settings.mtp import MTPSettings

    prepare_process(on_cpu=True)
    write_checkpoint(Path(root), FAMILIES["qwen2"])
    settings = MTPSettings.model_validate(
        {"depths": DEPTHS, "rollout": {"dtype": "float32", "kv_cache_gib": 0.25, "max_num_seqs": 2}}
    )
    reported = []
    workload = Workload([[1, 2, 3], [4, 5, 6, 7]], 12, [], batches=(1, 2), repeats=2)
    rows = compare(Path(root), settings, workload, reported.append)
    return {
        "reported": [(speed.batch, bool(speed.acceptance)) for speed in reported],
        "plain": [(row.plain.tok_s, row.plain.acceptance) for row in rows],
        "drafted": [(row.drafted.tok_s, row.drafted.acceptance) for row in rows],
    }


def test_both_settings_are_measured_in_turn_in_one_process(tmp_path: Path) -> None:
    result = in_engine_process(__file__, "measure", str(tmp_path))
    assert result["reported"] == [[1, False], [2, False], [1, True], [2, True]]
    for tok_s, acceptance in result["plain"]:
        assert len(tok_s) == 2
        assert min(tok_s) > 0
        assert acceptance == {}, "drafts were counted although nothing drafts"
    for tok_s, acceptance in result["drafted"]:
        assert len(tok_s) == 2
        # a random head is hardly ever right, and 12 tokens a sequence must come from somewhere
        assert 1.0 <= acceptance["spec/mean_acceptance_length"] < DEPTHS
        # two repeats of eight responses (or of eight in pairs) of 12 tokens, the first of which is not drafted
        tokens = acceptance["spec/drafts"] * acceptance["spec/mean_acceptance_length"]
        # and nothing beyond the end; the last draft of a response may give no token of the target's own
        assert 2 * 8 * 11 <= tokens <= 2 * 8 * 12
