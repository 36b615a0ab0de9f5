"""Where on study 6's paths the study measures, and the policies and the head there.

A checkpoint after n updates has two policies of its path: `before`, after n updates, which samples the training text,
and `after`, one recorded update later. It stands for a second update on one rollout, where OCC has something to
measure.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from replay.learner import Learner, trunk_config
from replay.recordings import PATHS, SECOND_OF_A_PAIR, Recording, policy_after, step_file
from replay.states import load_step

from openrlhf_mtp.config.head_contract.folder import HEAD_FOLDER
from openrlhf_mtp.config.settings.objective import ObjectiveSettings
from openrlhf_mtp.config.settings.pretrain import HeadOptim
from openrlhf_mtp.heads.formats.head_folder import save_head

FIRST, *LATER = (second - 1 for second in SECOND_OF_A_PAIR)


@dataclass(frozen=True)
class Checkpoint:
    """A place on a path: after so many updates."""

    path: Recording
    updates: int

    @property
    def name(self) -> str:
        """Its folder."""
        return f"{self.path.name}_after_{self.updates}"

    @property
    def seed(self) -> int:
        """Of its text."""
        return self.path.seed * 1000 + self.updates


CHECKPOINTS: Sequence[Checkpoint] = (
    *(Checkpoint(path, FIRST) for path in PATHS[:2]),
    *(Checkpoint(path, updates) for updates in LATER for path in PATHS),
)
"""Both base policies at the start of a path, and three places on each of the six paths."""


@dataclass(frozen=True)
class Source:
    """What is read of a checkpoint.

    Attributes:
        before, after: folders of the policies after n and after n + 1 updates.
        head: folder of the head after n + 1 updates.
    """

    before: Path
    after: Path
    head: Path


def source_of(checkpoint: Checkpoint, path: Path, start: Path, out: Path, rate: float) -> Source:
    """Look the policies up, and the head where the run trained it; else train it along the path.

    Args:
        checkpoint: which.
        path: its path's folder, with `run` and `states`.
        start: folder of the head that the path's heads start from.
        out: heads go here.
        rate: learning rate of the head.

    Raises:
        FileNotFoundError: study 6 has not recorded or extracted so far, or did not keep a policy.
    """
    last = checkpoint.updates + 1
    require(path / "run" / "run.yaml")
    policies = [policy_after(path / "run", updates) for updates in (checkpoint.updates, last)]
    require(*policies, start, step_file(path / "states", last))
    own = policies[1] / HEAD_FOLDER
    if checkpoint.path.live == "detach" and own.exists():
        return Source(*policies, own)
    head = out / f"{checkpoint.path.name}_{last}"
    if not head.exists():
        follow(
            policies[0], start, [step_file(path / "states", step) for step in range(1, last + 1)], head, rate
        )
    return Source(*policies, head)


def require(*paths: Path) -> None:
    """Check that study 6 has made these.

    Raises:
        FileNotFoundError: it has not.
    """
    for needed in paths:
        if not needed.exists():
            raise FileNotFoundError(
                f"{needed} is missing: run examples/studies/replay/study.py "
                "with --stages teach heads record extract first"
            )


def follow(policy: Path, start: Path, steps: Sequence[Path], out: Path, rate: float) -> None:
    """Train a head with e2e TV on the steps of a path, as study 6's `online_e2e_tv` and a run in `detach` do."""
    settings = ObjectiveSettings(objective="e2e_tv")
    learner = Learner.load(start, trunk_config(policy), settings, HeadOptim(lr=rate))
    for step in steps:
        learner.learn(load_step(step))
    save_head(out, learner.trainer.head)
