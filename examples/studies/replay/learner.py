"""A head that learns and is scored: the head trainer that RL uses, around a plain AdamW instead of DeepSpeed."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from openrlhf_mtp.config.settings.objective import ObjectiveSettings
from openrlhf_mtp.config.settings.pretrain import HeadOptim
from openrlhf_mtp.heads.formats.head_folder import load_head
from openrlhf_mtp.heads.head import MTPHead
from openrlhf_mtp.training.head_trainer import HeadTrainer
from openrlhf_mtp.training.plain_engine import PlainEngine
from replay.states import Step

DEPTHS = 3


@dataclass
class Learner:
    """A head with its trainer.

    Attributes:
        trainer: learns, if its engine is one.
        scorer: measures the same head.
    """

    trainer: HeadTrainer
    scorer: HeadTrainer

    @classmethod
    def of(cls, head: MTPHead, settings: ObjectiveSettings, optim: HeadOptim) -> "Learner":
        """A head that is to minimize `settings.objective`."""
        common: dict[str, Any] = {"head": head, "trunk": None, "depths": DEPTHS, "temperature": 1.0}
        measured = ObjectiveSettings(objective=settings.objective)
        return cls(
            HeadTrainer(engine=PlainEngine(head, optim), settings=settings, **common),
            HeadTrainer(engine=None, settings=measured, **common),
        )

    @classmethod
    def load(cls, folder: Path, config: Any, settings: ObjectiveSettings, optim: HeadOptim) -> "Learner":
        """The head of a folder, in float32."""
        return cls.of(load_head(folder, config, dtype=torch.float32, device="cpu"), settings, optim)

    def learn(self, step: Step, *, ahead: bool = False, row_weight: Tensor | None = None) -> None:
        """One update on all of a step's responses, as RL does it with one micro-batch."""
        view = step.ahead if ahead else step.own
        assert view is not None, "the last step of a path has no next policy"
        self.trainer.trunk = view.trunk
        self.trainer.accumulate(step.batch(ahead=ahead), step.tokens, row_weight=row_weight)
        self.trainer.step()

    def score(self, step: Step) -> dict[str, float]:
        """The head's metrics on a step's responses, the replayed acceptance length among them."""
        self.scorer.trunk = step.own.trunk
        self.scorer.accumulate(step.batch(), 1.0)
        return self.scorer.drain()

    def learned(self) -> dict[str, float]:
        """The trainer's metrics since the last call, of the texts it learned from."""
        return self.trainer.drain()

    def set_rate(self, rate: float) -> None:
        """Change the learning rate."""
        for group in self.trainer.engine.optimizer.param_groups:  # type: ignore[union-attr]
            group["lr"] = rate

    def state(self) -> dict[str, Any]:
        """Everything that a continued run needs."""
        engine: Any = self.trainer.engine
        return {
            "head": self.trainer.head.state_dict(),
            "optimizer": engine.optimizer.state_dict(),
            "trainer": self.trainer.state(),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Restore `state()`."""
        engine: Any = self.trainer.engine
        self.trainer.head.load_state_dict(state["head"])
        engine.optimizer.load_state_dict(state["optimizer"])
        self.trainer.load_state(state["trainer"])


def trunk_config(policy: Path) -> Any:
    """The configuration that heads are loaded for."""
    from transformers import AutoConfig

    return AutoConfig.from_pretrained(policy)
