"""Engines of policies with linear attention: rounds into them, and drafts with their own heads.

vLLM's CPU build runs linear attention in bfloat16 with heads of 128 alone, so trainer and engine agree within rounding.
"""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import Any

import pytest

from tests.contract.test_native_loaders import stand_in_for_torchvision
from tests.engine.test_losslessness import BATCH, P_VALUE, p_values, sample
from tests.engine.test_sync_round import LocalEngine, response_gaps, round_undone
from tests.engine.tiny import DEPTHS, SIZES, in_engine_process, start_engine, stop_engine
from tests.natives import write_native_checkpoint
from tests.patience import seconds

pytestmark = pytest.mark.nightly

FAMILIES = ["qwen3_next", "qwen3_5"]
WIDE = {"linear_key_head_dim": 128, "linear_value_head_dim": 128}
DTYPE = "bfloat16"
STATES = ("conv1d.weight", "A_log", "dt_bias", "in_proj_ba")
"""Endings of what a stale tensor is tried on; the last is the engine's own name."""
GAP = 0.05
"""Mean gap in nats of bfloat16 against float32, 0.005 to 0.02 measured; one update makes it 0.4."""


def write(folder: Path, family: str, **sizes: Any) -> Path:
    """A checkpoint with a native head in `source`, equipped in `policy`; the head's folder."""
    from openrlhf_mtp.heads.formats.equip import equip

    if family == "qwen3_5":  # vLLM's module of it imports torchvision
        stand_in_for_torchvision(folder / "stand_in")
    write_native_checkpoint(folder / "source", family, {**SIZES, "initializer_range": 0.05, **sizes}, **WIDE)
    return equip(folder / "source", folder / "policy", depths=DEPTHS)


class HybridJob:
    """Trainer copies of a policy and its own head in float32, an engine in bfloat16, and a sync between them."""

    def __init__(self, folder: Path, family: str) -> None:
        from openrlhf_mtp.config.settings.mtp import SyncSettings
        from openrlhf_mtp.sync.opening import open_sync
        from openrlhf_mtp.training.weight_source import head_source, policy_source
        from tests.engine.test_native_heads import Chain

        head_dir = write(folder, family)
        self.chain = Chain(folder / "policy", head_dir)
        self.llm = start_engine(folder / "policy", dtype=DTYPE)
        self.worker = self.llm.llm_engine.model_executor.driver_worker.worker
        settings = SyncSettings.model_validate({"bucket_mib": 1, "timeout_s": seconds(30)})
        policy = policy_source(self.chain.policy, DTYPE, sharded=False)
        head = head_source(self.chain.head, DTYPE, SIZES["num_hidden_layers"])
        self.sync = open_sync([LocalEngine(self.llm)], settings, policy, head)

    def train(self) -> None:
        """An update that no tensor survives unchanged."""
        import torch

        with torch.no_grad():
            for module in (self.chain.policy, self.chain.head):
                for parameter in module.parameters():
                    parameter += 0.02 * torch.randn_like(parameter)

    def gap(self) -> float:
        """The mean difference between the engine's log-probs of a response and the trainer's."""
        found = response_gaps(self.llm, self.chain.policy)
        return sum(found) / len(found)

    def stale(self, ending: str) -> str:
        """The error of a round after which a tensor of the first layer's linear attention is the one before it."""
        import torch

        layer = self.worker.model_runner.get_model().model.layers[0].linear_attn
        projection = getattr(layer, ending, None) if ending.startswith("in_proj") else None
        if projection is not None:
            held: Any = projection
            before: Any = projection.cpu_linear
        else:
            held = layer.get_parameter(ending)
            before = held.detach().clone()

        def undo() -> None:
            if projection is not None:
                held.cpu_linear = before
            else:
                with torch.no_grad():
                    held.copy_(before)

        return round_undone(self, undo)


def rounds(folder: Path, family: str) -> dict[str, Any]:
    """Two rounds into one engine, and what is found when a tensor is stale."""
    job = HybridJob(folder, family)
    job.sync.round()
    job.train()
    found: dict[str, Any] = {"before": job.gap()}
    found |= {"verified": job.sync.round().verified, "after": job.gap()}
    found["stale"] = {ending: job.stale(ending) for ending in STATES}
    job.sync.round()
    found["last"] = job.gap()
    job.sync.close()
    stop_engine(job.llm)
    return found


def samples(folder: Path, family: str) -> dict[str, Any]:
    """Sequences and their log-probs with drafts and without, the head's weights read from the checkpoint."""
    write(folder, family, vocab_size=32, initializer_range=0.08)
    found: dict[str, Any] = {}
    for speculate in (False, True):
        drafts = {"method": "mtp", "num_speculative_tokens": DEPTHS, "draft_sample_method": "probabilistic"}
        engine = start_engine(
            folder / "policy",
            speculate=speculate,
            dtype=DTYPE,
            max_num_seqs=BATCH,
            speculative_config=drafts if speculate else None,
        )
        sequences, log_probs = sample(engine, 1.0, 1.0)
        found["drafted" if speculate else "plain"] = {"sequences": sequences, "log_probs": log_probs}
        counters = {m.name: m.value for m in engine.get_metrics() if hasattr(m, "value")}
        found["accepted"] = counters.get("vllm:spec_decode_num_accepted_tokens")
        found["proposed"] = counters.get("vllm:spec_decode_num_draft_tokens")
        stop_engine(engine)
    return found


def measure(root: str, function: str, family: str) -> Any:
    """One of the two above, or a traceback."""
    measured = {"rounds": rounds, "samples": samples}[function]
    try:
        return measured(Path(root), family)
    except BaseException:  # a failed pytest.raises, too
        return traceback.format_exc()


@pytest.mark.parametrize("family", FAMILIES)
def test_policy_and_head_arrive_and_a_stale_state_is_found(family: str, tmp_path: Path) -> None:
    found = in_engine_process(__file__, "measure", str(tmp_path), "rounds", family)
    assert isinstance(found, dict), found
    print(family, found)
    assert found["verified"]
    assert found["before"] > 4 * GAP
    assert found["after"] < GAP
    assert found["last"] < GAP
    for ending, error in found["stale"].items():
        lines = error.splitlines()[1:]
        assert lines
        names = ("in_proj_b", "in_proj_a") if ending == "in_proj_ba" else (ending,)
        assert all(any(f"layers.0.linear_attn.{name}" in line for name in names) for line in lines), error


@pytest.mark.parametrize("family", FAMILIES)
def test_drafted_samples_follow_a_policy_with_linear_attention(family: str, tmp_path: Path) -> None:
    found = in_engine_process(__file__, "measure", str(tmp_path), "samples", family, timeout_s=900)
    assert isinstance(found, dict), found
    values = p_values(found["plain"], found["drafted"])
    print(family, values, found["accepted"], found["proposed"])
    assert min(values.values()) > P_VALUE, values
    assert 0.1 * found["proposed"] < found["accepted"] < 0.9 * found["proposed"]
