"""Rounds into engines that draft with vLLM's own draft model: native names, router biases, shared matrices.

Trainer and engine share a process. The draft begins without weights. After a round that changes every tensor, router
biases included, the engine's log-probs are the trainer's policy's, and each proposal is the trainer's chain's.
"""

from __future__ import annotations

import copy
import traceback
from pathlib import Path
from typing import Any

import pytest

from tests.engine.test_draft_parity import TOLERANCE
from tests.engine.test_native_heads import Chain, Parity, measure
from tests.engine.test_sync_round import LocalEngine, response_gaps, round_undone
from tests.engine.tiny import DEPTHS, SIZES, in_engine_process, start_engine, stop_engine
from tests.natives import write_native_checkpoint
from tests.patience import seconds

FAMILIES = ["glm4_moe", "deepseek_v3"]
RECORDER = "tests.engine.draft_recorder.RecordingMTPExtension"
HEADS_BIAS = "model.layers.2.mlp.gate.e_score_correction_bias"
POLICYS_BIAS = "model.layers.1.mlp.gate.e_score_correction_bias"


class NativeJob:
    """Trainer copies of a policy and its own head, an engine, and a sync between them."""

    def __init__(self, folder: Path, layout: str) -> None:
        from openrlhf_mtp.config.settings.mtp import SyncSettings
        from openrlhf_mtp.heads.formats.equip import equip
        from openrlhf_mtp.training.weight_source import head_source, policy_source

        write_native_checkpoint(folder / "source", layout, SIZES)
        head_dir = equip(folder / "source", folder / "policy", depths=DEPTHS)
        self.chain = Chain(folder / "policy", head_dir)
        self.llm = start_engine(folder / "policy", worker_extension_cls=RECORDER)
        self.worker = self.llm.llm_engine.model_executor.driver_worker.worker
        self.settings = SyncSettings.model_validate({"bucket_mib": 1, "timeout_s": seconds(30)})
        self.policy = policy_source(self.chain.policy, "float32", sharded=False)
        self.head = head_source(self.chain.head, "float32", SIZES["num_hidden_layers"])
        self.sync: Any = None

    def open(self) -> None:
        """Connect trainer and engine."""
        from openrlhf_mtp.sync.opening import open_sync

        self.sync = open_sync([LocalEngine(self.llm)], self.settings, self.policy, self.head)

    def train(self) -> None:
        """An update that no tensor survives unchanged, and that gives tokens to other experts."""
        import torch

        with torch.no_grad():
            for module in (self.chain.policy, self.chain.head):
                for parameter in module.parameters():
                    parameter += 0.05 * torch.randn_like(parameter)
                for name, buffer in module.named_buffers():
                    if name.endswith("e_score_correction_bias"):
                        buffer += 0.5 * torch.randn_like(buffer)

    def gap(self) -> float:
        """The largest difference between the engine's log-probs of a response and the trainer's."""
        return max(response_gaps(self.llm, self.chain.policy))

    def stale_bias(self, part: str) -> str:
        """The error of a round after which a router has the bias that it had before."""
        import torch

        models = {"policy": self.worker.model_runner.get_model(), "head": self.worker.get_draft_model()}
        (bias,) = {
            parameter
            for name, parameter in models[part].named_parameters()
            if name.endswith("gate.e_score_correction_bias")
        }
        before = bias.detach().clone()

        def undo() -> None:
            with torch.no_grad():
                bias.copy_(before)

        return round_undone(self, undo)

    def unshared(self) -> str:
        """The error where the draft has an embedding of its own, which nobody would renew."""
        from openrlhf_mtp.sync.errors import ManifestMismatch

        inner = self.worker.get_draft_model().model
        shared = inner.embed_tokens
        inner.embed_tokens = copy.deepcopy(shared)
        with pytest.raises(ManifestMismatch) as mismatch:
            self.open()
        inner.embed_tokens = shared
        return str(mismatch.value)


def rounds(folder: Path, layout: str) -> dict[str, Any]:
    """Two rounds into one engine, and what is found when it is not right."""
    job = NativeJob(folder, layout)
    found: dict[str, Any] = {"unshared": job.unshared()}
    job.open()
    job.sync.round()
    job.train()
    found["before"] = job.gap()
    report = job.sync.round()
    found |= {"verified": report.verified, "after": job.gap()}
    parity: Parity = measure(job.llm, job.chain)
    found |= {"tv": parity.tv, "accepted": parity.accepted, "rejected": parity.rejected}
    found["stale"] = {part: job.stale_bias(part) for part in ("policy", "head")}
    job.train()
    job.sync.round()
    found["last"] = job.gap()
    job.sync.close()
    stop_engine(job.llm)
    return found


def measure_families(root: str, families: list[str]) -> dict[str, Any]:
    """Each family's figures, or a traceback."""
    results: dict[str, Any] = {}
    for family in families:
        try:
            results[family] = rounds(Path(root) / family, family)
        except Exception:
            results[family] = traceback.format_exc()
    return results


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    root = str(tmp_path_factory.mktemp("native"))
    return in_engine_process(__file__, "measure_families", root, FAMILIES)  # type: ignore[no-any-return]


@pytest.mark.parametrize("family", FAMILIES)
def test_policy_and_native_head_arrive_and_every_proposal_is_the_trainers(
    family: str, measured: dict[str, Any]
) -> None:
    found = measured[family]
    assert isinstance(found, dict), found
    print(family, found)
    assert found["verified"]
    assert found["before"] > 100 * TOLERANCE
    assert found["after"] < TOLERANCE
    assert found["last"] < TOLERANCE
    assert max(found["tv"]) < TOLERANCE
    assert found["accepted"] >= 5
    assert found["rejected"] >= 5


@pytest.mark.parametrize("family", FAMILIES)
def test_a_stale_router_bias_and_an_embedding_of_the_drafts_own_are_found(
    family: str, measured: dict[str, Any]
) -> None:
    found = measured[family]
    assert isinstance(found, dict), found
    for part, name in (("policy", POLICYS_BIAS), ("head", HEADS_BIAS)):
        (line,) = found["stale"][part].splitlines()[1:]
        assert f"engine 0 {part}: {name}" in line
    assert "engine 0 head: model.embed_tokens.weight: missing in the trainer" in found["unshared"]
