"""One run: a head, fresh or warmed, one pass over responses of its policy, its walk on held-out ones.

The head, the chain, the loss, the warm-up and the figures are the product's (`HeadTrainer`); the optimizer is AdamW
with the pre-RL stage's settings but for a rate that falls linearly to nothing. DeepSpeed and its processes are left
out: a run takes minutes, and the arms are many.
"""

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM

from limited_heads.losses import TopKTrainer
from limited_heads.samples import Samples
from openrlhf_mtp.config.atomic_files import write_atomically
from openrlhf_mtp.config.settings.objective import ObjectiveSettings
from openrlhf_mtp.config.settings.pretrain import PretrainOptim
from openrlhf_mtp.heads.formats.equip import init_head
from openrlhf_mtp.heads.formats.head_folder import load_head, save_head
from openrlhf_mtp.heads.head import MTPHead
from openrlhf_mtp.heads.head_config import HeadConfig
from openrlhf_mtp.runlog import metrics
from openrlhf_mtp.runlog.rows import encoded
from openrlhf_mtp.runlog.run_folder import write_command
from openrlhf_mtp.training.head_trainer import HeadTrainer
from openrlhf_mtp.training.plain_engine import PlainEngine
from openrlhf_mtp.training.trunk import Trunk

DEPTHS = 3
TOP_K = "top_k_ce"
REPORT_EVERY = 20


@dataclass(frozen=True)
class Recipe:
    """What a run does.

    Attributes:
        objective: a name of `mtp.objective`, or `TOP_K`.
        lr: peak learning rate.
        seed: of the head's random part and the order of the responses.
        anchors: to train on, each once; rounded down to whole steps.
        batch: responses of an optimizer step.
        temperature: of the policy, in training.
        warmup_share: share of the steps that train with KL, for an objective that a cold head does not learn from.
        settings: of the optimizer.
    """

    objective: str
    lr: float
    seed: int
    anchors: int
    batch: int = 4
    temperature: float = 1.0
    warmup_share: float = 0.05
    settings: PretrainOptim = field(default_factory=PretrainOptim)


def risen_and_fallen(warmup: int, steps: int) -> Callable[[int], float]:
    """The share of the peak rate at a step: a linear rise of at most a tenth of the steps, times a linear fall to 0."""
    rise = min(warmup, max(1, steps // 10))
    return lambda step: min(1.0, (step + 1) / rise) * max(0.0, (steps - step) / steps)


def fresh_head(model: Any, seed: int) -> MTPHead:
    """The head that `equip` makes for the policy, in float32."""
    layer = {name: tensor.float() for name, tensor in model.model.layers[-1].state_dict().items()}
    config = HeadConfig.from_trunk(model.config, depths=DEPTHS)
    return init_head(config, layer, model.model.norm.weight.detach().float(), seed=seed)


def trainer_of(recipe: Recipe, model: Any, head: MTPHead, steps: int) -> HeadTrainer:
    """The product's trainer with a recipe's objective and warm-up."""
    is_top_k = recipe.objective == TOP_K
    final = ObjectiveSettings(objective="kl" if is_top_k else recipe.objective)
    warmup = round(recipe.warmup_share * steps) if final.needs_warm_head else 0
    optim = recipe.settings.model_copy(update={"lr": recipe.lr})
    return (TopKTrainer if is_top_k else HeadTrainer)(
        engine=PlainEngine(head, optim, risen_and_fallen(optim.warmup_steps, steps)),
        head=head,
        trunk=Trunk.of(model),
        depths=DEPTHS,
        settings=final.model_copy(update={"kl_warmup_steps": warmup}),
        temperature=recipe.temperature,
        seed=recipe.seed,
    )


def train(
    recipe: Recipe, model: Any, samples: Samples, head: MTPHead | None = None
) -> Iterator[tuple[MTPHead, dict[str, float]]]:
    """Train a head in one pass, a fresh one by default; gives it and its metrics every few steps and after the last.

    Raises:
        ValueError: there are fewer responses than the recipe asks for.
    """
    steps = int(recipe.anchors / samples.anchors * len(samples) / recipe.batch)
    if steps * recipe.batch > len(samples):
        raise ValueError(
            f"got {samples.anchors} anchors of {len(samples)} responses, expected {recipe.anchors} for one pass"
        )
    head = head or fresh_head(model, recipe.seed)
    trainer = trainer_of(recipe, model, head, steps)
    order = torch.randperm(len(samples), generator=torch.Generator().manual_seed(recipe.seed))
    for step in range(1, steps + 1):
        batch = samples.batch(order[(step - 1) * recipe.batch : step * recipe.batch])
        trainer.accumulate(batch, float(batch.action_mask.sum()))
        trainer.step()
        if step % REPORT_EVERY == 0 or step == steps:
            yield head, {metrics.STEP: step, **trainer.drain()}


@torch.no_grad()
def measure(model: Any, head: MTPHead, samples: Samples, temperature: float) -> dict[str, float]:
    """The product's figures of a head on responses that were sampled at a temperature, all anchors."""
    watcher = HeadTrainer(
        engine=None,
        head=head,
        trunk=Trunk.of(model),
        depths=DEPTHS,
        settings=ObjectiveSettings(objective="kl"),
        temperature=temperature,
    )
    for rows in torch.arange(len(samples)).split(16):
        watcher.accumulate(samples.batch(rows), 1.0)
    return watcher.drain()


def figures(row: Mapping[str, float], suffix: str = "") -> dict[str, float]:
    """What the study reports of one measurement: names without the product's prefix.

    walked      E/k: accepted over drafted tokens along the path that an engine takes through the text
    reach_j     share of drafts that are accepted through depth j
    alpha_j     overlap at depth j, mean over all anchors
    entropy     of the policy, in nats a token
    """
    reach = [row[metrics.depth_metric(metrics.MTP_REACH, j)] for j in range(1, DEPTHS + 1)]
    found = {"walked": float(np.mean(reach)), "length": 1.0 + float(np.sum(reach))}
    found |= {f"reach_{j}": value for j, value in enumerate(reach, 1)}
    for j in range(1, DEPTHS + 1):
        found[f"alpha_{j}"] = row[metrics.depth_metric(metrics.MTP_ALPHA, j)]
        found[f"greedy_{j}"] = row[metrics.depth_metric(metrics.MTP_ALPHA_GREEDY, j)]
    found["entropy"] = row[metrics.MTP_ENTROPY]
    return {name + suffix: value for name, value in found.items()}


def slope(by_temperature: Mapping[float, Mapping[str, float]]) -> float:
    """Tokens of length per nat of entropy, by least squares over the temperatures."""
    entropy, length = ([each[name] for each in by_temperature.values()] for name in ("entropy", "length"))
    return float(np.polyfit(entropy, length, 1)[0])


def load_policy(folder: Path) -> Any:
    """A policy in float32, in evaluation mode, without gradients."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    return model.requires_grad_(False)


def run(
    recipe: Recipe,
    policy: Path,
    samples: Samples,
    held_out: Mapping[float, Samples],
    out: Path,
    *,
    start: Path | None = None,
    keep_head: bool = False,
) -> None:
    """Train and measure; leaves `metrics.jsonl` and `measured.json` in `out`. A run that was cut off starts over.

    Args:
        recipe: how.
        policy: folder of the policy.
        samples: to train on.
        held_out: by temperature, to measure on.
        out: folder of the run.
        start: folder of the head to begin with; a fresh one without it.
        keep_head: whether to leave the trained head in `out/head`.
    """
    out.mkdir(parents=True, exist_ok=True)
    write_command(out, sys.argv)
    model, started = load_policy(policy), time.monotonic()
    head = load_head(start, model.config, dtype=torch.float32, device="cpu") if start else None
    rows = []
    for trained, row in train(recipe, model, samples, head):
        head = trained
        rows.append(encoded(row))
        print(f"{out.parent.name}/{out.name}: {_line(row, started)}", file=sys.stderr, flush=True)
    write_atomically(out / "metrics.jsonl", "".join(rows))
    assert head is not None, "a run has a step"
    by_temperature = {
        temperature: figures(measure(model, head, responses, temperature))
        for temperature, responses in held_out.items()
    }
    if keep_head:
        save_head(out / "head", head)
    record = {
        "recipe": {name: value for name, value in asdict(recipe).items() if name != "settings"},
        "optim": recipe.settings.model_dump(),
        "seconds": round(time.monotonic() - started, 1),
        "held_out": {str(temperature): values for temperature, values in by_temperature.items()},
    }
    write_atomically(out / "measured.json", json.dumps(record, indent=1) + "\n")


def _line(row: Mapping[str, float], started: float) -> str:
    alphas = " ".join(f"{row[metrics.depth_metric(metrics.MTP_ALPHA, j)]:.3f}" for j in range(1, DEPTHS + 1))
    seconds = time.monotonic() - started
    return f"step {row[metrics.STEP]}, overlap {alphas}, {seconds:.0f} s"
