"""The paths: each an ordinary `openrlhf-mtp train` run that keeps its rollouts and the policy of every step.

The head drafts in the run too, so that the engine's counters are there to compare the replay with: it is frozen on some
paths and trained with e2e TV on others, and the replay of the same arm must come to the same length.
"""

import json
import shutil
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml
from harness.logged import run_logged
from harness.runs import PROGRAM
from harness.study import STUDIES

from openrlhf_mtp.config.run_files import SUMMARY
from openrlhf_mtp.runlog import metrics
from openrlhf_mtp.runlog.rollouts import read_rollouts, recorded_steps
from openrlhf_mtp.runlog.run import read_run
from replay.states import load_policy, load_step, save_step, see

JOB = STUDIES / "replay" / "job.yaml"
KEEP_EVERY = 10
"""Policies of these steps stay, for later studies."""
SECOND_OF_A_PAIR = (1, 11, 31, 51)
"""Policies after these updates stay too: with the one before each, it is a checkpoint of the study `occ_gradients`."""

REGIMES: Mapping[str, Sequence[str]] = {
    "falls": (),
    "rises": ("actor.entropy_coef=0.01", "actor.eps_clip_low_high=[0.2,0.28]"),
    "holds": ("algo.kl.init_coef=0.05", "algo.kl.use_loss=true", "algo.kl.estimator=k3"),
}
"""What the policy's entropy is meant to do, and the settings for it. Whether it does is in the result."""


@dataclass(frozen=True)
class Recording:
    """One path: which base policy, what its entropy is meant to do, the run's seed, and what the live head does."""

    policy: int
    regime: str
    seed: int
    live: str

    @property
    def name(self) -> str:
        """Its folder."""
        return f"policy_{self.policy}_{self.regime}_{self.seed}"


PATHS: Sequence[Recording] = (
    Recording(1, "falls", 11, "detach"),
    Recording(2, "falls", 21, "frozen"),
    Recording(1, "rises", 12, "frozen"),
    Recording(2, "rises", 22, "detach"),
    Recording(1, "holds", 13, "detach"),
    Recording(2, "holds", 23, "frozen"),
)
"""Six paths over two base policies: the pairs that every contrast is over."""


def record(
    path: Recording, out: Path, *, head: Path, policy: Path, data: Path, overrides: Sequence[str]
) -> None:
    """Run the path, from its last checkpoint if it was cut off.

    Raises:
        RuntimeError: the run ended with an error.
    """
    if (out / SUMMARY).exists():
        return
    resume = any(out.glob("checkpoints/**/latest"))
    out.mkdir(parents=True, exist_ok=True)
    settings = [
        f"actor.model_name_or_path={policy.absolute()}",
        f"mtp.head={head.absolute()}",
        f"data.prompt_dataset={(data / 'train.jsonl').absolute()}",
        f"eval.dataset={(data / 'eval.jsonl').absolute()}",
        f"reward.remote_url={STUDIES / 'worked' / 'reward.py'}",
        f"train.seed={path.seed}",
        f"mtp.regime={path.live}",
        *REGIMES[path.regime],
        *overrides,
    ]
    command = [*PROGRAM, "train", str(JOB), "--out", str(out.absolute()), *settings]
    how = "--resume" if resume else "--overwrite"
    code = run_logged([*command, how], out / "record.log", {"OMP_NUM_THREADS": "1"})
    if code:
        raise RuntimeError(f"{path.name} ended with exit code {code}: see {out / 'record.log'}")


def policy_after(run: Path, updates: int) -> Path:
    """The recorded policy after so many updates; 0 is the one that the run began with."""
    if updates:
        return run / "checkpoints" / f"global_step{updates}_hf"
    job = yaml.safe_load((run / "run.yaml").read_text(encoding="utf-8"))
    return Path(job["actor"]["model_name_or_path"])


def step_file(states: Path, step: int) -> Path:
    """The states of an RL step (from 1)."""
    return states / f"step_{step:06d}.safetensors"


def extract(run: Path, states: Path, keep: Collection[int] = ()) -> None:
    """Compute the states of every step, and how far the policy moved; then delete the policies.

    Those after a multiple of `KEEP_EVERY` updates stay, and those after a number in `keep`.

    `states/drift.jsonl` has a line a step: KL of the step's policy to the next one along its own text, KL to the first
    policy, and entropy, in nats a token.
    """
    steps = recorded_steps(run)
    own, first = None, None
    for step in steps:
        if step_file(states, step).exists():
            own = None
            continue
        first = first or load_policy(policy_after(run, 0))
        own = own or load_policy(policy_after(run, step - 1))
        ahead = load_policy(policy_after(run, step))
        seen = see(read_rollouts(run, step), own, ahead)
        assert seen.ahead is not None, "there is a policy after every step"
        origin = see(read_rollouts(run, step), first, None).own
        p = seen.log_probs(seen.own)
        row = {
            "step": step,
            "kl_step": seen.divergence(seen.own, seen.ahead),
            "kl_start": seen.divergence(seen.own, origin),
            "entropy": float(-(p.exp() * p).sum(-1).mean()),
            "tokens": seen.tokens,
            "reward": float(seen.rewards.mean()),
        }
        save_step(step_file(states, step), seen)
        with (states / "drift.jsonl").open("a", encoding="utf-8") as log:
            log.write(json.dumps(row) + "\n")
        own = ahead
        print(f"{states}: step {step} of {steps[-1]}", file=sys.stderr, flush=True)
    for step in steps:
        folder = policy_after(run, step)
        if step % KEEP_EVERY and step not in keep and folder.exists():
            shutil.rmtree(folder)


def drift(states: Path) -> list[dict[str, float]]:
    """The lines of `drift.jsonl` in the order of their steps, the last of each."""
    lines = (states / "drift.jsonl").read_text(encoding="utf-8").splitlines()
    rows = {row["step"]: row for row in map(json.loads, lines)}
    return [rows[step] for step in sorted(rows)]


def live_lengths(run: Path) -> dict[int, tuple[float, float]]:
    """By step the acceptance length that the engine counted, and the trainer's replay of it in the run."""
    read = read_run(run)
    return {
        int(row[metrics.STEP]): (row[metrics.SPEC_MEAN_ACCEPTANCE_LENGTH], row[metrics.MTP_REPLAYED_LENGTH])
        for row in read.rows
        if metrics.SPEC_MEAN_ACCEPTANCE_LENGTH in row and metrics.MTP_REPLAYED_LENGTH in row
    }


def step_count(states: Path) -> int:
    """Steps of the path whose states are there."""
    return len(list(states.glob("step_*.safetensors")))


def first_step(states: Path) -> int:
    """Responses of a step: the size of the batches that the control takes."""
    return len(load_step(step_file(states, 1)).sequences)
