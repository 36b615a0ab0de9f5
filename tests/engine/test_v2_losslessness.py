"""Samples that vLLM's V2 model runner drafts and verifies are samples of the policy, with block verification too.

Each sampled token is held against the policy's distribution after the tokens before it, computed by transformers: each
token's count less the sum of its probabilities is a sum of martingale differences, and so are the log-probs of the
sampled tokens less their expectations, at each position. In units of their standard deviations both are normal if the
samples are the policy's, whatever the lengths of the blocks. With 24 such values for each of four settings, one beyond
5.2 comes up once in 50,000 runs.

In Triton's interpreter a sample takes half a second, so that these tests are nightly, small, and see a distance in
total variation of some percent. Where vLLM's own block verification is off, it is by less (docs/measured.md); that it
uses a random number twice is held by `test_v2_runner.py`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.engine.tiny import FAMILIES, in_engine_process, start_engine, stop_engine, write_checkpoint

pytestmark = pytest.mark.nightly

SAMPLES = 160
"""At each temperature."""
NEW_TOKENS = 8
PROMPT = [2, 3, 4, 5, 6]
TEMPERATURES = (1.0, 0.7)
WAYS = ("standard", "block")
LIMIT = 5.2


def scores(policy: Any, sequences: list[list[int]], temperature: float) -> dict[str, list[float]]:
    """Deviations of the counts of tokens [V], and of log-probs [positions], in standard deviations."""
    import torch

    tokens = torch.tensor([PROMPT + sequence for sequence in sequences])
    with torch.no_grad():
        logits = policy(tokens).logits[:, len(PROMPT) - 1 : -1].double() / temperature
    log_probs = logits.log_softmax(-1)
    chosen, probs = tokens[:, len(PROMPT) :], log_probs.exp()
    counts = torch.nn.functional.one_hot(chosen, probs.shape[-1]).double()
    by_token = (counts - probs).sum((0, 1)) / (probs * (1 - probs)).sum((0, 1)).sqrt()
    own = log_probs.gather(-1, chosen[..., None])[..., 0]
    mean = (probs * log_probs).sum(-1)
    spread = (probs * log_probs.square()).sum(-1) - mean.square()
    by_position = (own - mean).sum(0) / spread.sum(0).sqrt()
    return {"counts": by_token.tolist(), "log_probs": by_position.tolist()}


def measure(root: str, samples: int) -> dict[str, Any]:
    """Scores, and accepted tokens a draft, of every way of verification; all temperatures are in one batch."""
    import torch
    from transformers import AutoModelForCausalLM
    from vllm import SamplingParams
    from vllm.inputs import TokensPrompt

    from openrlhf_mtp.rollout.ended_responses import EndedResponses

    folder = Path(root)
    write_checkpoint(folder, {**FAMILIES["qwen2"], "vocab_size": 16}, init_scale=0.5)
    policy = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    parameters = [
        SamplingParams(temperature=temperature, max_tokens=NEW_TOKENS, ignore_eos=True, detokenize=False)
        for temperature in TEMPERATURES
    ] * samples
    results: dict[str, Any] = {}
    for way in WAYS:
        engine = start_engine(folder, verification=way)
        prompts = [TokensPrompt(prompt_token_ids=PROMPT)] * len(parameters)
        requests = engine.generate(prompts, parameters, use_tqdm=False)
        stop_engine(engine)
        for number, temperature in enumerate(TEMPERATURES):
            outputs = [request.outputs[0] for request in requests[number :: len(TEMPERATURES)]]
            ended = EndedResponses.of_outputs(outputs)
            drafts = sum(count for count, _ in ended.responses)
            results[f"{way} {temperature}"] = {
                **scores(policy, [list(output.token_ids) for output in outputs], temperature),
                "drafts": drafts,
                "accepted": sum(ended.by_depth) / drafts,
            }
    return results


@pytest.fixture(scope="module")
def sampled(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = str(tmp_path_factory.mktemp("policy"))
    results: dict[str, Any] = in_engine_process(
        __file__, "measure", folder, SAMPLES, v2_runner=True, timeout_s=1500
    )
    return results


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_drafted_samples_follow_the_policy(way: str, temperature: float, sampled: dict[str, Any]) -> None:
    found = sampled[f"{way} {temperature}"]
    print(way, temperature, found)
    assert max(map(abs, found["counts"])) < LIMIT
    assert max(map(abs, found["log_probs"])) < LIMIT
    # else neither acceptance nor rejection was tried
    assert 0.2 < found["accepted"] < 2.8
