"""Where a measurement takes its policy, heads, prompts and lengths from."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from replay.recordings import PATHS, Recording, policy_after
from replay.study import Folders
from replay.walk import head_after

from openrlhf_mtp.config.run_files import FINAL, TRAINED_HEAD
from openrlhf_mtp.runlog.rollouts import rollout_file

UPDATES: Sequence[int] = (20, 40, 60)
"""Of a path's policies; study 6 keeps policies and heads after every tenth."""
PILOT_UPDATES = 30
HISTORY = 10
"""Steps before a point's whose responses suffix drafts may come from."""
REAL_STEPS: Sequence[int] = (12, 13, 14, 15, 16)


@dataclass(frozen=True)
class Point:
    """One place on a path of RL.

    Attributes:
        pair: what the contrasts are over: a path, or a rollout of the real run.
        name: of the point within the pair.
        policy: that samples.
        frozen, online: the heads from before RL, and from RL.
        recorded: the rollout of the policy's step.
        history: rollouts of steps before, in their order.
        step: the RL step (from 1) of the rollout.
        prefix_caching: of prompts, as in the job.
    """

    pair: str
    name: str
    policy: Path
    frozen: Path
    online: Path
    recorded: Path
    history: Sequence[Path]
    step: int
    prefix_caching: bool = False

    def missing(self) -> list[Path]:
        """What is not there yet."""
        needed = [self.policy / "config.json", self.recorded, *self.history]
        needed += [head / "config.json" for head in (self.frozen, self.online)]
        return [path for path in needed if not path.exists()]


def of_path(root: Path, path: Recording, updates: int) -> Point:
    """A point of study 6: the policy after so many updates, and the step that it sampled."""
    at, step = Folders(root), updates + 1
    run, arms = at.path(path) / "run", at.path(path) / "arms"
    return Point(
        pair=path.name,
        name=f"after_{updates}",
        policy=run / "checkpoints" / f"global_step{updates}_hf" if updates else policy_after(run, 0),
        frozen=at.heads(path.policy) / "e2e_tv" / "head",
        online=head_after(arms / "online_e2e_tv", updates),
        recorded=rollout_file(run, step),
        history=[rollout_file(run, before) for before in range(max(1, step - HISTORY), step)],
        step=step,
    )


def of_paths(root: Path, updates: Sequence[int] = UPDATES) -> Iterator[Point]:
    """All points of the stand-in."""
    for path in PATHS:
        for after in updates:
            yield of_path(root, path, after)


def of_real_run(root: Path) -> Iterator[Point]:
    """The points of the real model: the policy and head that `make real` ends with, on its last rollouts."""
    run = root / "rl"
    for step in REAL_STEPS:
        yield Point(
            pair=f"rollout_{step}",
            name="final",
            policy=run / FINAL,
            frozen=root / "pretrain" / TRAINED_HEAD,
            online=run / FINAL / "mtp",
            recorded=rollout_file(run, step),
            history=[rollout_file(run, before) for before in range(step - HISTORY, step)],
            step=step,
            prefix_caching=True,
        )
