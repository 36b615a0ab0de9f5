"""The bound: a head fitted afresh to a policy of the path, on that policy's own responses.

The refit after t updates is scored on step t + 1, which that policy sampled, beside the arms on the same step. What it
has above an online head is the online head's lag; how it changes along the path is how the text's difficulty changes.
"""

import json
from pathlib import Path

from openrlhf_mtp.config.settings.objective import ObjectiveSettings
from openrlhf_mtp.config.settings.pretrain import HeadOptim
from openrlhf_mtp.runlog import metrics
from openrlhf_mtp.runlog.row_writer import RowWriter
from replay import before_rl, pool
from replay.learner import Learner, trunk_config
from replay.recordings import policy_after, step_file
from replay.states import load_step
from replay.walk import DONE

NAME = "refit_bound"


def refit_path(
    out: Path, *, run: Path, states: Path, after: list[int], stage: before_rl.Stage, tokens: int, seed: int
) -> None:
    """Fit and score after each number of updates in `after`, and write a row a refit into `out`."""
    if (out / DONE).exists():
        return
    rows = []
    for updates in after:
        policy, place = policy_after(run, updates), out / f"after_{updates}"
        responses = (stage.batches + stage.held_out) * stage.batch
        pool.fill(place / "pool", policy, seed=seed + updates, responses=responses, tokens=tokens)
        before_rl.train(place, policy, place / "pool", "e2e_tv", stage, seed + updates)
        config = trunk_config(policy)
        learner = Learner.load(place / "head", config, ObjectiveSettings(), HeadOptim())
        row = learner.score(load_step(step_file(states, updates + 1)))
        row.pop(metrics.TIME_MTP_S, None)
        rows.append({metrics.STEP: updates + 1, **row})
    with RowWriter(out) as writer:
        for row in rows:
            writer.append(row)
    (out / DONE).write_text(json.dumps({"after": after}) + "\n", encoding="utf-8")
