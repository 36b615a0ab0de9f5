"""`python -m tests.engine.block_gain [MODEL]`: how many drafts both ways of verification accept, by vLLM's V2 runner.

The same prompts with standard and with block verification, at temperature 1; MODEL is by default the quickstart's. A
GPU is not needed: without one vLLM's kernels run in Triton's interpreter, a tenth of a second for each draft of a small
model.
"""

from __future__ import annotations

import argparse
import os
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from openrlhf_mtp.rollout.environment import V2_RUNNER
from tests.engine.interpreter import interpret_on_cpu

WAYS = ("standard", "block")


def respond(subject: Any, way: str, responses: int, tokens: int) -> Any:
    """The drafts of all responses by one way of verification, as `EndedResponses`."""
    import torch
    from vllm import SamplingParams
    from vllm.inputs import TokensPrompt

    from openrlhf_mtp.bench.rollout_engine import running_engine
    from openrlhf_mtp.bench.rollout_subject import make_workload, settings_for
    from openrlhf_mtp.rollout.ended_responses import EndedResponses

    mtp = settings_for(subject, on_cpu=not torch.cuda.is_available(), dtype="float32")
    rollout = mtp.rollout.model_copy(update={"rejection_sample_method": way})
    workload = make_workload(subject, max_new_tokens=tokens, repeats=1)
    parameters = SamplingParams(
        temperature=1.0, max_tokens=tokens, stop_token_ids=list(workload.stop_token_ids), detokenize=False
    )
    prompts = [
        TokensPrompt(prompt_token_ids=list(prompt)) for prompt in islice(cycle(workload.prompts), responses)
    ]
    with running_engine(subject.policy, mtp.model_copy(update={"rollout": rollout}), workload) as engine:
        requests = engine.generate(prompts, parameters, use_tqdm=False)
        return EndedResponses.of_outputs([request.outputs[0] for request in requests])


def main() -> None:
    """Measure both ways and print a line for each."""
    parser = argparse.ArgumentParser(prog="python -m tests.engine.block_gain", description=__doc__)
    parser.add_argument("model", nargs="?", help="a policy's folder; by default what the quickstart left")
    parser.add_argument("--head", type=Path, help="the head's folder; by default mtp in the policy's")
    parser.add_argument("--prompts", type=Path, help="JSON lines with an input each")
    parser.add_argument("--responses", type=int, default=192)
    parser.add_argument("--tokens", type=int, default=48, help="of the longest response")
    given = parser.parse_args()
    os.environ[V2_RUNNER] = "1"
    interpret_on_cpu()
    import torch

    from openrlhf_mtp.bench.rollout_engine import prepare_process
    from openrlhf_mtp.bench.rollout_subject import Subject
    from openrlhf_mtp.training.pretrain.temperature_sweep import length_of

    prepare_process(on_cpu=not torch.cuda.is_available())
    subject = Subject.find(given.model, given.head, given.prompts)
    print(
        "| verification | drafts | accepted tokens of a draft | through depth 1, 2, ... |\n|---|---|---|---|"
    )
    for way in WAYS:
        ended = respond(subject, way, given.responses, given.tokens)
        length, error = length_of(ended.responses)
        drafts = sum(count for count, _ in ended.responses)
        depths = ", ".join(f"{through / drafts:.3f}" for through in ended.by_depth)
        print(f"| {way} | {drafts} | {length - 1:.3f} ± {error:.3f} | {depths} |", flush=True)


if __name__ == "__main__":
    main()
