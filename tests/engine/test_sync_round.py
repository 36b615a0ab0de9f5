"""A round into a real vLLM engine with a draft: it computes with the new policy and head, and every fault is found.

Each case runs in a process of its own, trainer and engine together; the engine's calls run in a thread, as a Ray
actor's would.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.engine.tiny import FAMILIES, in_engine_process, start_engine, write_checkpoint
from tests.patience import seconds

PROMPT_LENGTH = 48
# float32 on both sides: rounding of two implementations, 4e-6 was the largest seen
TOLERANCE = 1e-4
SIX_LAYERS = {"num_hidden_layers": 6}


class LocalEngine:
    """`sync.engines.Engine` over an in-process LLM, calling what the rollout actor calls."""

    def __init__(self, llm: Any) -> None:
        self.llm = llm
        self.calls: list[str] = []
        self._pool = ThreadPoolExecutor(1)

    def _rpc(self, method: str, *args: Any) -> Any:
        self.calls.append(method)
        return self.llm.collective_rpc(method, args=args)

    def sync_manifest(self) -> Future[Any]:
        return self._pool.submit(lambda: self._rpc("mtp_manifest")[0])

    def sync_init(self, init_info: dict[str, Any]) -> Future[Any]:
        return self._pool.submit(self._rpc, "init_weight_transfer_engine", init_info)

    def sync_round(self, plan: dict[str, Any]) -> Future[Any]:
        return self._pool.submit(self._rpc, "mtp_sync_round", plan)


class Job:
    """Trainer copies of policy and head, one engine, and an open sync between them."""

    def __init__(self, folder: Path, workers: int = 1) -> None:
        import torch
        from transformers import AutoModelForCausalLM

        from openrlhf_mtp.config.mtp import SyncSettings
        from openrlhf_mtp.heads.checkpoint import load_head, named_tensors
        from openrlhf_mtp.sync.trainer import WeightSync

        self.policy = AutoModelForCausalLM.from_pretrained(folder).eval()
        self.head = load_head(folder / "mtp", self.policy.config, dtype=torch.float32, device="cpu")
        several = {"tensor_parallel_size": workers, "distributed_executor_backend": "mp"}
        self.llm = start_engine(folder, **(several if workers > 1 else {}))
        self.engine = LocalEngine(self.llm)
        self.settings = SyncSettings(bucket_mib=1, timeout_s=seconds(30))
        self.head_source = _source(lambda: named_tensors(self.head))
        policy_source = _source(self.policy.named_parameters)
        self.sync = WeightSync([self.engine], self.settings, policy_source, self.head_source)

    def train(self) -> None:
        """An update that no tensor survives unchanged."""
        import torch

        with torch.no_grad():
            for parameter in [*self.policy.parameters(), *self.head.parameters()]:
                parameter += 0.05 * torch.randn_like(parameter)

    def gap(self) -> float:
        """Largest difference between the engine's prompt log-probs and the trainer's."""
        import torch
        from vllm import SamplingParams
        from vllm.inputs import TokensPrompt

        tokens = torch.randint(0, 256, (PROMPT_LENGTH,), generator=torch.Generator().manual_seed(1))
        sampling = SamplingParams(max_tokens=1, prompt_logprobs=0, detokenize=False)
        prompt = TokensPrompt(prompt_token_ids=tokens.tolist())
        (output,) = self.llm.generate([prompt], sampling, use_tqdm=False)
        entries = zip(tokens[1:].tolist(), output.prompt_logprobs[1:], strict=True)
        engine = torch.tensor([logprobs[token].logprob for token, logprobs in entries])
        with torch.no_grad():
            trainer = self.policy(tokens[None]).logits[0, :-1].log_softmax(-1)
        return float((engine - trainer.gather(-1, tokens[1:, None])[:, 0]).abs().max())

    def failure(self) -> str:
        """The text of the error that the next round ends with."""
        from openrlhf_mtp.sync.errors import SyncError

        with pytest.raises(SyncError) as error:
            self.sync.round()
        return str(error.value)

    def worker(self) -> Any:
        return self.llm.llm_engine.model_executor.driver_worker.worker

    def keep_packed(self, layers: list[Any]) -> None:
        """From now on a finished update leaves these layers with the packed weights they have now."""
        packed = [layer.cpu_linear for layer in layers]
        transfer = self.worker().weight_transfer_engine
        finish = transfer.finish_weight_update

        def finish_and_forget() -> None:
            finish()
            for layer, old in zip(layers, packed, strict=True):
                layer.cpu_linear = old

        transfer.finish_weight_update = finish_and_forget


def _source(parameters: Callable[[], Any]) -> Any:
    from openrlhf_mtp.sync.manifest import Manifest, TensorSpec
    from openrlhf_mtp.sync.source import WeightSource

    specs = tuple(TensorSpec(name, tuple(p.shape), "float32") for name, p in parameters())
    return WeightSource(Manifest(specs), parameters)


def sync_twice(folder: str, workers: int) -> dict[str, Any]:
    """Two rounds after two updates; what was measured before and after, and what it took."""
    job = Job(Path(folder), workers)
    job.sync.open()
    gaps, reports = [job.gap()], []
    for _ in range(2):
        job.train()
        gaps.append(job.gap())
        job.engine.calls.clear()
        reports.append(job.sync.round())
        gaps.append(job.gap())
    first, second = reports
    return {
        "gaps": gaps,
        "calls": job.engine.calls,
        "rpc_calls": second.rpc_calls,
        "buckets": second.buckets,
        "verified": (first.verified, second.verified),
        "tensors": len(list(job.policy.parameters())) + len(list(job.head.parameters())),
    }


@pytest.mark.parametrize(
    ("family", "changes", "workers"),
    [
        pytest.param("qwen2", {}, 1, id="qwen2"),
        pytest.param("qwen2_tied", SIX_LAYERS, 1, id="qwen2, tied, 6 layers"),
        pytest.param("qwen2_tied", {}, 2, id="qwen2, tied, 2 workers"),
        pytest.param("qwen3", {}, 1, id="qwen3"),
        pytest.param("llama", {}, 1, id="llama"),
        pytest.param("mistral", {}, 1, id="mistral"),
    ],
)
def test_after_a_round_the_engine_computes_what_the_trainer_does(
    family: str, changes: dict[str, Any], workers: int, tmp_path: Path
):
    """Verification passes, and the prompt's log-probs, stale before, agree; the number of calls is constant."""
    write_checkpoint(tmp_path, {**FAMILIES[family], **changes})
    found = in_engine_process(__file__, "sync_twice", str(tmp_path), workers)
    start, stale, synced, stale_again, synced_again = found["gaps"]
    assert max(start, synced, synced_again) < TOLERANCE
    assert min(stale, stale_again) > 0.1
    assert found["verified"] == [True, True]
    assert found["rpc_calls"] == 1
    assert found["calls"] == ["mtp_sync_round"]
    assert found["buckets"] < found["tensors"] / 2


def find_stale_copies(folder: str) -> dict[str, Any]:
    """Layers that keep their old packed weights through a round, as if processing had skipped them."""
    job = Job(Path(folder))
    job.sync.open()
    job.sync.round()
    target, draft = job.worker().model_runner.get_model(), job.worker().get_draft_model()
    layers = [
        target.model.layers[1].self_attn.qkv_proj,
        target.lm_head,
        draft.model.blocks[0].layer.mlp.down_proj,
    ]
    elements = [layer.weight.numel() for layer in layers]
    job.keep_packed(layers)
    job.train()
    return {"elements": elements, "failure": job.failure()}


def test_a_stale_packed_copy_is_found_and_named_in_policy_tied_output_head_and_draft(tmp_path: Path):
    write_checkpoint(tmp_path, FAMILIES["qwen2_tied"])
    found = in_engine_process(__file__, "find_stale_copies", str(tmp_path))
    # the linear layers' parameters are empty, so that no look at parameters could have found this
    assert found["elements"][0] == found["elements"][2] == 0
    assert found["failure"].splitlines()[1:] == [
        "  engine 0 policy: model.embed_tokens.weight (layer lm_head.weight, worker 0)",
        *(
            f"  engine 0 policy: model.layers.1.self_attn.{name}_proj.weight"
            " (layer model.layers.1.self_attn.qkv_proj.weight, worker 0)"
            for name in "kqv"
        ),
        "  engine 0 head: model.blocks.0.layer.mlp.down_proj.weight"
        " (layer model.blocks.0.layer.mlp.down_proj.weight, worker 0)",
    ]


def refuse_and_damage(folder: str) -> dict[str, Any]:
    """A sync whose trainer holds other tensors, then one whose head is damaged on the way."""
    from openrlhf_mtp.sync.buckets import plan
    from openrlhf_mtp.sync.errors import ManifestMismatch
    from openrlhf_mtp.sync.trainer import WeightSync

    job = Job(Path(folder))
    wrong = [(n.replace("norm.weight", "ln.weight"), p) for n, p in job.policy.named_parameters()]
    wrong[0] = (wrong[0][0], wrong[0][1][:-1])
    bad = WeightSync([job.engine], job.settings, _source(lambda: wrong[:-1]), None)
    with pytest.raises(ManifestMismatch) as mismatch:
        bad.open()
    job.sync.open()
    job.sync.round()
    broadcast = job.sync._broadcaster.broadcast
    name = "model.blocks.0.proj.weight"
    bucket = plan(job.head_source.manifest.tensors, job.settings.bucket_mib * 2**20)[0]
    offset = next(slot.offset for slot in bucket.slots if slot.spec.name == name)

    def damage(buffer: Any, place: str, *args: Any) -> None:
        if place == "round 2 head bucket 1/1":
            buffer[offset + 5] ^= 1
        broadcast(buffer, place, *args)

    job.sync._broadcaster.broadcast = damage
    return {"mismatch": str(mismatch.value), "failure": job.failure()}


def test_other_tensors_are_listed_before_the_first_byte_and_damage_in_transit_is_named(tmp_path: Path):
    write_checkpoint(tmp_path, FAMILIES["qwen2"])
    found = in_engine_process(__file__, "refuse_and_damage", str(tmp_path))
    norms = [f"layers.{n}.{norm}_layer" for n in range(2) for norm in ("input", "post_attention")] + [""]
    expected = {"lm_head.weight: missing in the trainer"}
    expected |= {f"model.{norm}norm.weight: missing in the trainer" for norm in norms}
    expected |= {f"model.{norm}ln.weight: missing in the engine" for norm in norms}
    expected.add("model.embed_tokens.weight: shape [255, 128] in the trainer, [256, 128] in the engine")
    expected.add("  engine 0: drafts with a head that the trainer does not send")
    assert {
        line.removeprefix("  engine 0 policy: ") for line in found["mismatch"].splitlines()[1:]
    } == expected
    assert found["failure"].endswith(
        "round 2 head bucket 1/1: damaged in transit: model.blocks.0.proj.weight"
    )
