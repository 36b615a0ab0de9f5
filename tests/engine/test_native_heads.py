"""Heads under native names, served by stock vLLM: our plugin is not loaded, the model classes are vLLM's own.

A checkpoint with its own head is equipped, the head is changed as training would change it, and policy and head are
exported under native names. vLLM serves the export by `method: mtp`, in float32; each of its proposals is compared with
the chain that training computes, as in `test_draft_parity`.

One thing is not vLLM's own here: without CUDA the sampler's garbage at temperatures above 0 is repaired
(`upstream.vllm.sampling`). Qwen3-Next's trunk has full attention in every layer: its linear attention has no float32
kernel on a CPU, and the head has none. DeepSeek-V3's positions are turned by vLLM's plain form, since the operator of
its CPU build takes the heads of a latent query for one (`test_the_cpu_operator_turns_one_head_of_a_latent_query`).
Qwen3.5 is not here; see docs/formats.md.
"""

from __future__ import annotations

import os
import random
import traceback
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from tests.engine.test_draft_parity import NEW_TOKENS, PROMPT_LENGTHS, TOLERANCE, Parity, replay
from tests.engine.tiny import DEPTHS, SIZES, in_engine_process, start_engine, stop_engine
from tests.natives import write_native_checkpoint

WITH_PLUGIN = "mimo with our draft class"
STOCK = ["mimo", "qwen3_next", "glm4_moe", "deepseek_v3"]
_OWN_ROTATION = {"custom_ops": ["all", "-rotary_embedding"]}
_FULL_ATTENTION = {"layer_types": ["full_attention"] * SIZES["num_hidden_layers"]}


def export_changed(root: Path, layout: str, format: str) -> Path:
    """A checkpoint whose own head was taken over, changed and written back."""
    import torch

    from openrlhf_mtp.heads.formats.equip import equip
    from openrlhf_mtp.heads.formats.export import export
    from openrlhf_mtp.heads.formats.head_folder import load_head, save_head
    from openrlhf_mtp.heads.formats.native import read_trunk_config

    full_attention = _FULL_ATTENTION if layout == "qwen3_next" else {}
    write_native_checkpoint(root / "source", layout, SIZES, **full_attention)
    head_dir = equip(root / "source", root / "equipped", depths=DEPTHS)
    head = load_head(head_dir, read_trunk_config(root / "equipped"), dtype=torch.float32, device="cpu")
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.mul_(1 + 0.1 * torch.randn_like(parameter))
    save_head(head_dir, head)
    export(root / "equipped", head_dir, root / "exported", format)
    return head_dir


def stock_engine(folder: Path, compilation: dict[str, Any] | None = None) -> Any:
    """vLLM with nothing of ours in it but the recorder of drafts.

    Args:
        folder: the export.
        compilation: vLLM's `compilation_config`.
    """
    from vllm import LLM

    from openrlhf_mtp.upstream.patching import install
    from openrlhf_mtp.upstream.vllm import sampling

    install([sampling.PATCH])
    return LLM(
        str(folder),
        dtype="float32",
        skip_tokenizer_init=True,
        enforce_eager=True,
        max_model_len=128,
        max_num_seqs=8,
        kv_cache_memory_bytes=2**28,
        enable_prefix_caching=False,
        seed=1,
        compilation_config=compilation,
        speculative_config={
            "method": "mtp",
            "num_speculative_tokens": DEPTHS,
            "draft_sample_method": "probabilistic",
        },
        worker_extension_cls="tests.engine.draft_recorder.RecordingExtension",
    )


class Chain:
    """Policy and head as training holds them."""

    def __init__(self, policy_dir: Path, head_dir: Path) -> None:
        import torch
        from transformers import AutoModelForCausalLM

        from openrlhf_mtp.heads.formats.head_folder import load_head

        self.policy = AutoModelForCausalLM.from_pretrained(policy_dir, dtype=torch.float32).eval()
        self.head = load_head(head_dir, self.policy.config, dtype=torch.float32, device="cpu")
        self.policy.model.norm.register_forward_pre_hook(self._keep_unnormed)

    def _keep_unnormed(self, module: Any, inputs: Any) -> None:
        self.unnormed = inputs[0]

    def distributions(self, known: list[int], drafts: list[int]) -> Any:
        """q^1 ... q^k [k, V] at the last anchor of `known[:-1]`, with the engine's drafts as deeper inputs."""
        import torch

        tokens, length = torch.tensor([known + drafts]), len(known) - 1
        positions = torch.arange(length)[None]
        with torch.no_grad():
            hidden = self.policy.model(tokens[:, :length]).last_hidden_state
            if self.head.config.wiring.reads_unnormed:
                hidden = self.unnormed
            table = self.policy.model.embed_tokens
            embeddings = [table(tokens[:, j : j + length]) for j in range(1, DEPTHS + 1)]
            states = self.head(hidden, embeddings, positions, torch.ones_like(positions), DEPTHS)
            return torch.stack([self.policy.lm_head(z[0, -1]).softmax(-1) for z in states])


def measure(engine: Any, chain: Chain) -> Parity:
    """Generate and compare every proposal."""
    import torch
    from vllm import SamplingParams
    from vllm.inputs import TokensPrompt

    engine.collective_rpc("mtp_record_drafts")
    draw = random.Random(0)
    prompts = [[draw.randrange(256) for _ in range(length)] for length in PROMPT_LENGTHS]
    requests = engine.generate(
        [TokensPrompt(prompt_token_ids=prompt) for prompt in prompts],
        SamplingParams(temperature=1.0, max_tokens=NEW_TOKENS, ignore_eos=True, detokenize=False),
        use_tqdm=False,
    )
    recorded = engine.collective_rpc("mtp_recorded_drafts")[0]
    worst, by_request = torch.zeros(DEPTHS), []
    for request, prompt in zip(requests, prompts, strict=True):
        (own,) = (drafts for name, drafts in recorded.items() if name.split("-")[0] == request.request_id)
        counts = []
        for known, drafts, probabilities, count in replay(prompt, list(request.outputs[0].token_ids), own):
            tv = 0.5 * (chain.distributions(known, drafts) - torch.tensor(probabilities)).abs().sum(-1)
            worst = torch.maximum(worst, tv)
            counts.append(count)
        by_request.append([len(counts), sum(counts)])
    responses = [list(request.outputs[0].token_ids) for request in requests]
    total, accepted = (sum(counts) for counts in zip(*by_request, strict=True))
    return Parity(worst.tolist(), total, accepted, DEPTHS * total - accepted, responses, by_request)


def with_our_class(folder: Path) -> Parity:
    """The same head, merged and drafted by our class: its parity is that of the stock engine's."""
    head_dir = export_changed(folder, "mimo", "merged")
    engine = start_engine(
        folder / "exported", worker_extension_cls="tests.engine.draft_recorder.RecordingMTPExtension"
    )
    result = measure(engine, Chain(folder / "exported", head_dir))
    stop_engine(engine)
    return result


def with_stock_vllm(folder: Path, layout: str) -> Parity:
    """A native export in an engine of its own."""
    head_dir = export_changed(folder, layout, "native")
    engine = stock_engine(folder / "exported", _OWN_ROTATION if layout == "deepseek_v3" else None)
    result = measure(engine, Chain(folder / "exported", head_dir))
    stop_engine(engine)
    return result


def measure_cases(root: str, cases: list[str]) -> dict[str, Any]:
    """Cases in one process, with our plugin or without: their figures, or a traceback."""
    if WITH_PLUGIN not in cases:
        os.environ["VLLM_PLUGINS"] = ""
        os.environ["TORCH_COMPILE_DISABLE"] = (
            "1"  # the plugin leaves the sampler's functions uncompiled on a CPU
        )
    results: dict[str, Any] = {}
    for case in cases:
        folder = Path(root) / case
        try:
            result = with_our_class(folder) if case == WITH_PLUGIN else with_stock_vllm(folder, case)
            results[case] = asdict(result)
        except Exception:
            results[case] = traceback.format_exc()
    return results


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    root = str(tmp_path_factory.mktemp("native"))
    stock: dict[str, Any] = in_engine_process(__file__, "measure_cases", root, STOCK)
    return stock | in_engine_process(__file__, "measure_cases", root, [WITH_PLUGIN])


@pytest.mark.parametrize("case", [*STOCK, WITH_PLUGIN])
def test_the_engine_drafts_what_training_computes(case: str, measured: dict[str, Any]) -> None:
    assert isinstance(measured[case], dict), measured[case]
    result = Parity(**measured[case])
    print(case, result)
    assert max(result.tv) <= TOLERANCE, result
    # else only one half of the cache rule was exercised
    assert result.accepted >= 5, result
    assert result.rejected >= 5, result
