"""How many more drafts block verification accepts, replayed on the held-out responses of a `pretrain` run.

    python scripts/block_gain.py RUN POLICY [--threads 1]

Given the text, the trainer knows how likely an engine accepted each draft by either way of verification
(openrlhf_mtp/losses/replayed_acceptance.py). So both are compared on the same responses, with little noise and without
an engine.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

RESPONSES = 128
BATCH = 8


def replays(run: Path, policy: Path, responses: int) -> list[Any]:
    """Drafts and accepted tokens of each response, [R, 2], by standard and by block verification."""
    import torch

    from openrlhf_mtp.config.settings.objective import ObjectiveSettings
    from openrlhf_mtp.heads.formats.head_folder import load_head
    from openrlhf_mtp.losses.targets import from_hidden
    from openrlhf_mtp.training.head_batch import HeadBatch
    from openrlhf_mtp.training.head_trainer import HeadTrainer
    from openrlhf_mtp.training.observed_policy import ObservedPolicy
    from openrlhf_mtp.training.pretrain.batches import collate
    from openrlhf_mtp.training.pretrain.responses import read_responses, split_by_prompt

    actor = ObservedPolicy(str(policy), attn_implementation="sdpa", param_dtype="fp32")
    actor.requires_grad_(False).eval()
    trunk = actor.trunk()
    head = load_head(str(run / "head"), trunk.config, dtype=torch.float32, device="cpu")
    trainers = [
        HeadTrainer(
            engine=None,
            head=head,
            trunk=trunk,
            depths=head.config.depths,
            settings=ObjectiveSettings(kl_warmup_steps=0),
            temperature=1.0,
            verifies_blocks=blocks,
        )
        for blocks in (False, True)
    ]
    _, held_out = split_by_prompt(list(read_responses(run / "responses")), 0.1)
    long = [one for one in held_out if len(one.response_ids) > head.config.depths + 1][:responses]
    weight, counts = trunk.output_head.weight.detach(), [[], []]
    for start in range(0, len(long), BATCH):
        batch = collate(long[start : start + BATCH], 0)
        with torch.no_grad():
            hidden = actor.hidden_states(batch.sequences, batch.attention_mask)[0]
            targets = from_hidden(hidden, weight, 1.0, trunk.config.vocab_size)
            rows = HeadBatch(batch.sequences, batch.attention_mask, batch.action_mask, hidden, targets)
            output = trainers[0].loss(rows)
        for kept, trainer in zip(counts, trainers, strict=True):
            kept.append(trainer.replay(output).responses)
    return [torch.cat(kept).numpy() for kept in counts]


def gain(standard: Any, block: Any) -> tuple[float, float, float, float]:
    """Accepted tokens of a draft by each way, their difference, and its standard error over responses."""
    means, off = [], 0.0
    for drafts, accepted in (standard.T, block.T):
        means.append(float(accepted.sum() / drafts.sum()))
        off = (accepted - means[-1] * drafts) / drafts.sum() - off
    return *means, means[1] - means[0], float((off**2).sum() ** 0.5)


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("run", type=Path, help="the folder of a pretrain run")
    parser.add_argument("policy", type=Path, help="the policy that it was made for")
    parser.add_argument("--responses", type=int, default=RESPONSES)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    from openrlhf_mtp.upstream.processes import prepare_process

    prepare_process()
    import torch

    torch.set_num_threads(given.threads)
    counts = replays(given.run, given.policy, given.responses)
    standard, block, more, error = gain(*counts)
    print("| responses | drafts | standard | block | more |\n|---|---|---|---|---|")
    drafts = f"{counts[0][:, 0].sum():.0f}"
    print(f"| {len(counts[0])} | {drafts} | {standard:.3f} | {block:.3f} | {more:+.3f} ± {error:.3f} |")


if __name__ == "__main__":
    main()
