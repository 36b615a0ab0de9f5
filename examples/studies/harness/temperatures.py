"""A head's acceptance length by temperature, on the held-out prompts of its run, with policy and head held still.

The product does this at the end of `pretrain` for sampled drafts (`mtp.pretrain.temperature_sweep`); here it is in
plain PyTorch, at more temperatures and for greedy drafts as well, for any finished run.
"""

import json
from pathlib import Path

import numpy as np
import torch
import yaml
from transformers import AutoModelForCausalLM

from harness import acceptance
from harness.study import Place, Values
from openrlhf_mtp.training.pretrain.responses import Response, read_responses, split_by_prompt

FACTORS = (0.7, 0.85, 1.0, 1.15, 1.3)
KEPT = "temperatures_study.json"


def slopes(place: Place) -> Values:
    """Tokens of walked length per nat over the temperatures, by way to draft, and the range of entropy."""
    points = of_run(place)
    entropy = [point["entropy"] for point in points]
    values: Values = {"entropy_low": min(entropy), "entropy_high": max(entropy)}
    for way in ("sampled", "greedy"):
        lengths = [point[f"{way}/walked_length"] for point in points]
        values[f"{way}/slope"] = float(np.polyfit(entropy, lengths, 1)[0])
    return values


def of_run(place: Place) -> list[Values]:
    """`acceptance.summary` at each temperature, measured once and kept in the run's folder."""
    kept = place.folder / KEPT
    if not kept.exists():
        job = yaml.safe_load((place.folder / "run.yaml").read_text(encoding="utf-8"))
        settings = job["mtp"]["pretrain"]
        own = settings["temperature"] or job["rollout"].get("temperature", 1.0)
        responses = list(read_responses(place.folder / "responses"))
        _, held_out = split_by_prompt(responses, settings["holdout_fraction"])
        policy = Path(job["actor"]["model_name_or_path"])
        points = []
        for factor in FACTORS:
            sampled = sample(policy, held_out, own * factor, job["rollout"]["max_new_tokens"], place.seed)
            measured = acceptance.acceptance(
                policy, place.folder / "head", sampled, depths=job["mtp"]["depths"], temperature=own * factor
            )
            points.append({"temperature": own * factor, **acceptance.summary(measured)})
        kept.write_text(json.dumps(points) + "\n", encoding="utf-8")
    found: list[Values] = json.loads(kept.read_text(encoding="utf-8"))
    return found


@torch.no_grad()
def sample(
    policy: Path, prompts: list[Response], temperature: float, new_tokens: int, seed: int
) -> list[Response]:
    """A new response of the policy to each response's prompt; the prompts are of one length."""
    model = AutoModelForCausalLM.from_pretrained(policy, dtype=torch.float32).eval()
    torch.manual_seed(seed)
    ids = torch.tensor([response.prompt_ids for response in prompts])
    output = model.generate(
        ids, do_sample=True, temperature=temperature, top_k=0, top_p=1.0, max_new_tokens=new_tokens
    )
    end = model.generation_config.eos_token_id
    ends = {end} if isinstance(end, int) else set(end or [])
    return [
        Response(response.prompt, response.prompt_ids, upto_end(row.tolist(), ends))
        for response, row in zip(prompts, output[:, ids.shape[1] :], strict=True)
    ]


def upto_end(tokens: list[int], ends: set[int]) -> tuple[int, ...]:
    """The tokens up to the first that ends a response, which is kept.

    >>> upto_end([5, 6, 1, 0, 0], {1})
    (5, 6, 1)
    """
    stop = next((at + 1 for at, token in enumerate(tokens) if token in ends), len(tokens))
    return tuple(tokens[:stop])
