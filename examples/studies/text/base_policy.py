"""Teach a text policy from scratch on the King James Version.

    python examples/studies/text/base_policy.py --out runs/studies/text/policy_1 --seed 1

Hardware: one CPU core, no GPU, float32 (bfloat16 products take 1.2 to 3 times as long at these sizes on a core with
AVX-512). Minutes: about 15 on an idle core. Result: a Hugging Face folder of 4.1 million parameters with its tokenizer,
and `teaching.jsonl` with the loss on training and held-out text in nats a token. After an interrupt it continues.
"""

import argparse
import random
import sys
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import PreTrainedTokenizerFast, Qwen2ForCausalLM

if __package__ is None:
    sys.path.insert(0, str(Path(__file__).parents[1]))

from text.corpus import paragraphs, split
from text.policy import Shape, build_policy
from text.teaching import Batch, Plan, teach
from text.tokenizer import train_bpe

WINDOW, BATCH = 256, 16
EXAM_WINDOWS = 64


def stream_of(tokenizer: PreTrainedTokenizerFast, lines: list[str]) -> Tensor:
    """All paragraphs in one row of tokens, each ended by `<eos>`: [N]."""
    pages = tokenizer(lines, add_special_tokens=False)["input_ids"]
    return torch.tensor([token for page in pages for token in (*page, tokenizer.eos_token_id)])


def windows(stream: Tensor, seed: int, epoch: int) -> Tensor:
    """The stream in windows that begin at a random offset, in random order: [N] -> [M, T]."""
    rng = random.Random(f"{seed}/{epoch}")
    cut = stream[rng.randrange(WINDOW) :]
    cut = cut[: len(cut) // WINDOW * WINDOW].view(-1, WINDOW)
    order = list(range(len(cut)))
    rng.shuffle(order)
    return cut[order]


def batch_at(step: int, *, stream: Tensor, seed: int) -> Batch:
    """Batch number `step` of as many epochs as it takes."""
    each = (len(stream) - WINDOW) // WINDOW // BATCH
    epoch, at = divmod(step, each)
    ids = windows(stream, seed, epoch)[at * BATCH : (at + 1) * BATCH]
    return ids, ids


@torch.no_grad()
def held_out_loss(model: Qwen2ForCausalLM, stream: Tensor) -> dict[str, float]:
    """Mean loss over the first windows of the held-out text, in nats a token."""
    ids = stream[: len(stream) // WINDOW * WINDOW].view(-1, WINDOW)[:EXAM_WINDOWS]
    losses = [
        cross_entropy(model(part).logits[:, :-1].flatten(0, 1), part[:, 1:].flatten())
        for part in ids.split(BATCH)
    ]
    return {"held_out": float(torch.stack(losses).mean())}


def make(out: Path, *, seed: int, steps: int, shape: Shape, lines: int | None = None) -> None:
    """Teach on the book, or on its first `lines` paragraphs; write the policy and its tokenizer into `out`."""
    train, held_out = split(paragraphs()[:lines])
    tokenizer = train_bpe(train, vocabulary=shape.vocabulary, max_length=shape.context)
    torch.manual_seed(seed)
    model = build_policy(shape, tokenizer)
    examine = partial(held_out_loss, stream=stream_of(tokenizer, held_out))
    lessons = partial(batch_at, stream=stream_of(tokenizer, train), seed=seed)
    teach(model, lessons, Plan(steps=steps), out, examine=examine)
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for the policy")
    parser.add_argument("--seed", type=int, default=1, help="of the weights and the order of the text")
    parser.add_argument(
        "--steps", type=int, default=500, help=f"batches of {BATCH} windows of {WINDOW} tokens"
    )
    parser.add_argument("--layers", type=int, default=Shape.layers)
    args = parser.parse_args()
    make(args.out, seed=args.seed, steps=args.steps, shape=Shape(layers=args.layers))


if __name__ == "__main__":
    main()
