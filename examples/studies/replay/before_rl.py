"""The heads that all arms start from: a stage before RL on the first policy's own responses.

    kl            KL from the first step to the last
    e2e_tv        KL for the first third, then e2e TV
    e2e_tv_again  the same from another seed: what chance alone makes of it

Equal steps, equal text, the rate falling linearly to a twentieth.
"""

import json
import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from openrlhf_mtp.config.head_contract.folder import HEAD_FOLDER
from openrlhf_mtp.config.settings.objective import ObjectiveSettings
from openrlhf_mtp.config.settings.pretrain import HeadOptim
from openrlhf_mtp.heads.formats.equip import equip
from openrlhf_mtp.heads.formats.head_folder import save_head
from replay.learner import DEPTHS, Learner, trunk_config
from replay.pool import batch_of

STARTS = ("kl", "e2e_tv", "e2e_tv_again")
SAVE_EVERY = 20


@dataclass(frozen=True)
class Stage:
    """Size of the stage: a pass is `batches` batches of `batch` responses of the pool."""

    batch: int
    batches: int
    passes: int
    rate: float = 2e-3
    held_out: int = 2
    """Batches at the pool's end that are never trained on."""

    @property
    def steps(self) -> int:
        """Updates."""
        return self.batches * self.passes


def order(stage: Stage, seed: int, step: int) -> int:
    """The batch that an update (from 0) trains on: a permutation a pass."""
    current, at = divmod(step, stage.batches)
    generator = torch.Generator().manual_seed(seed * 1009 + current)
    return int(torch.randperm(stage.batches, generator=generator)[at])


def train(out: Path, policy: Path, pool: Path, start: str, stage: Stage, seed: int) -> None:
    """Train a starting head, from where it was cut off, and write it to `out/head`."""
    if (out / "head").exists():
        return
    seed += 1000 if start.endswith("again") else 0
    fresh = out / "fresh"
    if not (fresh / HEAD_FOLDER).exists():
        # a policy that a run saved brings the run's head along
        shutil.rmtree(fresh, ignore_errors=True)
        shutil.copytree(policy, fresh, ignore=shutil.ignore_patterns(HEAD_FOLDER))
        equip(fresh, fresh, depths=DEPTHS, seed=seed)
    warmup = stage.steps if start == "kl" else stage.steps // 3
    settings = ObjectiveSettings(
        objective="kl" if start == "kl" else "e2e_tv", kl_warmup_steps=0 if start == "kl" else warmup
    )
    learner = Learner.load(fresh / HEAD_FOLDER, trunk_config(policy), settings, HeadOptim(lr=stage.rate))
    done = _resume(out, learner)
    started, first = time.monotonic(), done
    while done < stage.steps:
        learner.set_rate(stage.rate * max(0.05, 1.0 - done / stage.steps))
        learner.learn(batch_of(pool, order(stage, seed, done), stage.batch))
        done += 1
        if done % SAVE_EVERY == 0 or done == stage.steps:
            row = {"step": done, **learner.learned()}
            with (out / "steps.jsonl").open("a", encoding="utf-8") as log:
                log.write(json.dumps(row) + "\n")
            torch.save({"done": done, **learner.state()}, out / ".state.pt")
            (out / ".state.pt").replace(out / "state.pt")
            pace = (time.monotonic() - started) / (done - first)
            left = pace * (stage.steps - done) / 60
            print(f"{out}: {done} of {stage.steps}, about {left:.0f} min left", file=sys.stderr, flush=True)
    save_head(out / "head", learner.trainer.head)
    (out / "state.pt").unlink(missing_ok=True)


def _resume(out: Path, learner: Learner) -> int:
    kept = out / "state.pt"
    if not kept.exists():
        return 0
    state: dict[str, Any] = torch.load(kept, weights_only=False)
    learner.load_state(state)
    return int(state["done"])
