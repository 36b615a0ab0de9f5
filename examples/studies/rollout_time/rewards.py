"""Rewards of responses that end by themselves, sampled by an engine without drafts and by one with them.

    python examples/studies/rollout_time/rewards.py POLICY --head HEAD --out FILE --problems 500 --samples 4 --seed 11

Held-out problems of `worked`, temperature 1. The small policy itself: its rewards are those of its stand-in.
"""

import argparse
import json
import sys
from itertools import islice
from pathlib import Path
from typing import Any

if __package__ is None:
    sys.path.insert(0, str(Path(__file__).parents[1]))

from worked.problems import Problem, problems
from worked.reward import grade

TOKENS = 112
"""Of a response at most, as in study 6's job."""
LIVE = 64


def sample(engine: Any, tokenizer: Any, chosen: list[Problem], samples: int) -> list[float]:
    """Rewards of all responses, problem by problem."""
    from vllm import SamplingParams
    from vllm.inputs import TokensPrompt

    parameters = SamplingParams(
        n=1, temperature=1.0, max_tokens=TOKENS, detokenize=False, stop_token_ids=[tokenizer.eos_token_id]
    )
    asked = [each for each in chosen for _ in range(samples)]
    prompts = [TokensPrompt(prompt_token_ids=tokenizer(each.prompt)["input_ids"]) for each in asked]
    outputs = engine.generate(prompts, parameters, use_tqdm=False)
    texts = (tokenizer.decode(each.outputs[0].token_ids, skip_special_tokens=True) for each in outputs)
    return [grade(text, problem.label) for text, problem in zip(texts, asked, strict=True)]


def measure(policy: Path, head: Path, count: int, samples: int, seed: int) -> dict[str, list[float]]:
    """Rewards without drafts (`none`) and with the head's (`online`), on the same problems."""
    from openrlhf_mtp.bench.rollout_engine import prepare_process, start_engine, stop_engines

    prepare_process(on_cpu=True)
    from transformers import AutoTokenizer

    from openrlhf_mtp.bench.drafting import Drafting
    from openrlhf_mtp.bench.rollout_subject import Subject, settings_for
    from openrlhf_mtp.config.head_contract import Sampling

    tokenizer = AutoTokenizer.from_pretrained(policy)
    chosen = list(islice(problems(seed, held_out=True), count))
    mtp = settings_for(Subject(policy, head, None), on_cpu=True, dtype="float32")
    rollout = mtp.rollout.model_copy(update={"max_num_seqs": LIVE, "kv_cache_gib": 0.5})
    mtp = mtp.model_copy(update={"rollout": rollout})
    longest = max(len(tokenizer(each.prompt)["input_ids"]) for each in chosen) + TOKENS
    found = {}
    for arm in (Drafting("none", "none"), Drafting("online", "head", head)):
        overrides = arm.overrides(mtp, str(policy), Sampling(max_len=longest))
        engine = start_engine(policy, overrides, max_model_len=longest + mtp.depths + 1)
        found[arm.name] = sample(engine, tokenizer, chosen, samples)
        stop_engines(engine)
    return found


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("policy", type=Path)
    parser.add_argument("--head", type=Path, required=True, help="the head that drafts")
    parser.add_argument("--out", type=Path, required=True, help="JSON file for the rewards")
    parser.add_argument("--problems", type=int, default=500)
    parser.add_argument("--samples", type=int, default=4, help="responses to a problem")
    parser.add_argument("--seed", type=int, default=1, help="of the problems")
    args = parser.parse_args()
    found = measure(args.policy, args.head, args.problems, args.samples, args.seed)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(found) + "\n", encoding="utf-8")
    for name, rewards in found.items():
        print(f"{name}: {sum(rewards) / len(rewards):.4f}, {len(rewards)} responses")


if __name__ == "__main__":
    main()
