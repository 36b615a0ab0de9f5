"""Responses of the first policy to its training prompts: for the stage before RL, and for the control "held still".

Sampled with transformers, a file of `CHUNK` responses with their states at a time, so that an interrupt costs little.
"""

import sys
import time
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path

import torch
from transformers import AutoTokenizer, PreTrainedModel
from worked.problems import Problem, problems
from worked.reward import grade

from openrlhf_mtp.runlog.rollouts import RecordedResponse
from replay.states import Step, load_policy, load_step, save_step, see

CHUNK = 128


def sample(
    policy: PreTrainedModel, tokenizer: object, seed: int, count: int, tokens: int
) -> list[RecordedResponse]:
    """A response at temperature 1 to each of `count` training problems of a seed."""
    chosen = list(islice(problems(seed, held_out=False), count))
    return answer(policy, tokenizer, chosen, seed, tokens)


Grade = Callable[[str, str], float]
"""A response's reward, from its text and the problem's label."""


@torch.no_grad()
def answer(
    policy: PreTrainedModel,
    tokenizer: object,
    chosen: Sequence[Problem],
    seed: int,
    tokens: int,
    reward: Grade = grade,
) -> list[RecordedResponse]:
    """A response at temperature 1 to each of the problems, which may repeat; graded, with an advantage of 0."""
    torch.manual_seed(seed)
    inputs = tokenizer([each.prompt for each in chosen], padding=True, return_tensors="pt")  # type: ignore[operator]
    left = inputs["input_ids"].shape[1]
    written = policy.generate(
        input_ids=inputs["input_ids"],
        attention_mask=inputs["attention_mask"],
        do_sample=True,
        temperature=1.0,
        top_k=0,
        max_new_tokens=tokens,
    )
    found = []
    for row, problem, mask in zip(written.tolist(), chosen, inputs["attention_mask"], strict=True):
        prompt = row[left - int(mask.sum()) : left]
        response = _until(row[left:], policy.config.eos_token_id)
        text = tokenizer.decode(response, skip_special_tokens=True)  # type: ignore[attr-defined]
        ids = (*prompt, *response)
        spans = ((len(prompt), len(ids)),)
        found.append(RecordedResponse(problem.prompt, text, ids, spans, reward(text, problem.label), 0.0))
    return found


def _until(tokens: list[int], end: int) -> list[int]:
    """The tokens up to and including the first `end`."""
    return tokens[: tokens.index(end) + 1] if end in tokens else tokens


def fill(folder: Path, policy: Path, *, seed: int, responses: int, tokens: int) -> None:
    """Sample what is missing of a pool of so many responses."""
    chunks = -(-responses // CHUNK)
    missing = [at for at in range(chunks) if not chunk_file(folder, at).exists()]
    if not missing:
        return
    model, tokenizer = load_policy(policy), AutoTokenizer.from_pretrained(policy)
    for at in missing:
        started = time.monotonic()
        sampled = sample(model, tokenizer, seed * 100_003 + at, min(CHUNK, responses), tokens)
        save_step(chunk_file(folder, at), see(sampled, model, None))
        print(
            f"{folder.name}: {at + 1} of {chunks}, {time.monotonic() - started:.0f} s",
            file=sys.stderr,
            flush=True,
        )


def chunk_file(folder: Path, at: int) -> Path:
    """The file of chunk number `at`."""
    return folder / f"chunk_{at:04d}.safetensors"


def batch_of(folder: Path, number: int, size: int) -> Step:
    """Batch number `number` of `size` responses, in the pool's order; batches divide chunks."""
    each = max(1, CHUNK // size)
    chunk, part = divmod(number, each)
    step = load_step(chunk_file(folder, chunk))
    return step.rows(torch.arange(part * size, min((part + 1) * size, len(step.sequences))))
