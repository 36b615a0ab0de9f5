"""How should the projection of a fresh head start? Trains a small policy, then heads from several starts.

    python docs/head_start.py --out runs/head_start

Writes the table of docs/head_start.md. CPU, one core: about five minutes for the policy, which is kept, then half a
minute a row and seed on an idle machine.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import Tensor
from transformers import Qwen2Config, Qwen2ForCausalLM

from openrlhf_mtp.config.settings.objective import ObjectiveSettings
from openrlhf_mtp.heads.formats.equip import init_head
from openrlhf_mtp.heads.head import MTPHead
from openrlhf_mtp.heads.head_config import HeadConfig
from openrlhf_mtp.losses.mtp_loss import MTPLossOutput
from openrlhf_mtp.training.head_batch import HeadBatch
from openrlhf_mtp.training.head_trainer import HeadTrainer
from openrlhf_mtp.training.trunk import Trunk

DEPTHS = 3
CHARACTERS = "0123456789+=;c\n"
END = CHARACTERS.index("\n")
SEEDS = (0, 1)
SHOWN = (0, 10, 25, 50, 100)


def problem(generator: torch.Generator) -> str:
    """Three-digit addition, worked digit by digit from the right: `123+989=2c1;1c1;1c1;1112`."""
    a, b = torch.randint(0, 1000, (2,), generator=generator).tolist()
    steps, carry = [], 0
    for place in (1, 10, 100):
        total = a // place % 10 + b // place % 10 + carry
        carry = total // 10
        steps.append(f"{total % 10}c{carry}")
    return f"{a}+{b}={';'.join(steps)};{a + b}\n"


def batch(size: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Tokens, action mask (what follows `=`) and attention mask, right-padded: [size, T] each."""
    texts = [problem(generator) for _ in range(size)]
    length = max(map(len, texts))
    tokens, actions, attention = (torch.zeros(size, length, dtype=torch.long) for _ in range(3))
    for row, text in enumerate(texts):
        tokens[row, : len(text)] = torch.tensor([CHARACTERS.index(c) for c in text])
        attention[row, : len(text)] = 1
        actions[row, text.index("=") + 1 : len(text)] = 1
    return tokens, actions, attention


def train_policy(folder: Path, steps: int) -> Qwen2ForCausalLM:
    """A 0.8M-parameter policy taught on the problems, read from `folder` when it is there."""
    if folder.exists():
        return Qwen2ForCausalLM.from_pretrained(folder)
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=len(CHARACTERS),
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        tie_word_embeddings=True,
    )
    model = Qwen2ForCausalLM(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1.5e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1.5e-3, total_steps=steps)
    generator = torch.Generator().manual_seed(1)
    for step in range(steps):
        tokens, actions, attention = batch(64, generator)
        labels = tokens.masked_fill(actions == 0, -100)
        loss = model(tokens, attention_mask=attention, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 100 == 0:
            print(f"policy step {step}: loss {loss.item():.4f}", flush=True)
    model.save_pretrained(folder)
    return model


def head_loss(
    model: Qwen2ForCausalLM, head: MTPHead, objective: str, generator: torch.Generator
) -> MTPLossOutput:
    """Loss of a head on fresh problems at temperature 1."""
    tokens, actions, attention = batch(64, generator)
    with torch.no_grad():
        hidden = model.model(tokens, attention_mask=attention).last_hidden_state
    trainer = HeadTrainer(
        engine=None,
        head=head,
        trunk=Trunk.of(model),
        depths=DEPTHS,
        settings=ObjectiveSettings(objective=objective, kl_warmup_steps=0),
        temperature=1.0,
    )
    return trainer.loss(HeadBatch(tokens, attention, actions, hidden))


def first_steps(model: Qwen2ForCausalLM, head: MTPHead, kl_steps: int) -> list[float]:
    """Expected length (1 + E) of a head at the steps `SHOWN`, trained with the pre-RL defaults (KL, then e2e TV)."""
    optimizer = torch.optim.AdamW(head.parameters(), lr=1e-3, betas=(0.9, 0.95), weight_decay=0.0)
    warmup = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda s: min(1.0, (s + 1) / 21))
    generator = torch.Generator().manual_seed(2)
    lengths = []
    for step in range(SHOWN[-1] + 1):
        objective = "kl" if step < kl_steps else "e2e_tv"
        output = head_loss(model, head, objective, generator)
        if step in SHOWN:
            lengths.append((output.sums.length_sum / output.sums.depth_count[0]).item())
        optimizer.zero_grad()
        (output.loss_sum / output.sums.loss_count).backward()
        torch.nn.utils.clip_grad_norm_(head.parameters(), 1.0)
        optimizer.step()
        warmup.step()
    return lengths


def noise(width: int, seed: int) -> Tensor:
    """A random projection [H, 2H] whose output has RMS 1 for normed inputs."""
    return torch.randn(width, 2 * width, generator=torch.Generator().manual_seed(seed)) / (2 * width) ** 0.5


def main() -> None:
    """Print one row a start."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="folder that keeps the trained policy")
    parser.add_argument("--policy-steps", type=int, default=1000)
    arguments = parser.parse_args()
    model = train_policy(arguments.out / "policy", arguments.policy_steps).eval()
    width = model.config.hidden_size
    eye, zero = torch.eye(width), torch.zeros(width, width)
    starts: dict[str, list[Tensor]] = {
        **{
            f"random, RMS {rms}": [rms * noise(width, s) for s in SEEDS]
            for rms in (0.01, 0.03, 0.1, 0.3, 1.0)
        },
        "[I; 0]": [torch.cat([eye, zero], 1)],
        "[0; I]": [torch.cat([zero, eye], 1)],
        "[I; I] / 2": [torch.cat([eye, eye], 1) / 2],
        "[I; I] / 10": [torch.cat([eye, eye], 1) / 10],
    }
    config = HeadConfig.from_trunk(model.config, depths=DEPTHS)
    copied, norm = model.model.layers[-1].state_dict(), model.model.norm.weight.detach()
    fresh = Qwen2ForCausalLM(model.config).model.layers[-1].state_dict()
    runs = [(f"{name}; layer copied", copied, projections) for name, projections in starts.items()]
    runs += [("random, RMS 0.03; layer fresh", fresh, starts["random, RMS 0.03"])]
    print("| start | " + " | ".join(f"step {s}" for s in SHOWN) + " |\n" + "|---" * (len(SHOWN) + 1) + "|")
    for name, layer, projections in runs:
        rows = []
        for projection in projections:
            head = init_head(config, layer, norm)
            head.blocks[0].proj.weight.data.copy_(projection)
            rows.append(first_steps(model, head, kl_steps=50))
        cells = [" / ".join(f"{length:.2f}" for length in column) for column in zip(*rows, strict=True)]
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
