"""Inputs that an optimizer step fixes before its first micro-batch, for all of its micro-batches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from openrlhf_mtp.losses.advantage import AdvantageWeights
from openrlhf_mtp.training.advantage_weights import advantages_of
from openrlhf_mtp.training.joint.coefficient import StepCoefficient, Undecided


@dataclass(frozen=True)
class StepInputs:
    """The state of one optimizer step.

    Attributes:
        normalizers: OpenRLHF's, over the tokens and samples of the whole step on all ranks.
        anchor_seed: seed of the step's choice of anchors.
        policy_has_moved: whether the policy was updated since it scored the tokens.
        weights: of samples in the head's loss, by advantage; None when all count alike.
        joint_weights: of samples in the joint cross-entropy, which counts other tokens.
        coefficient: of the joint term, `Undecided` until the step's only micro-batch decides it; None outside the joint
            regimes.
    """

    normalizers: dict[str, Any]
    anchor_seed: int
    policy_has_moved: bool
    weights: AdvantageWeights | None = None
    joint_weights: AdvantageWeights | None = None
    coefficient: StepCoefficient | Undecided | None = None

    @property
    def normalizer(self) -> Tensor:
        """The divisor of the head's summed loss.

        As in OpenRLHF's policy loss, one mean over the tokens of the whole step, whatever its split.
        """
        normalizer: Tensor = self.normalizers["batch_num_tokens"] / self.normalizers["dp_size"]
        return normalizer

    def row_weight(self, experience: Any) -> Tensor | None:
        """How much each sample weighs in the head's loss [B]; None: alike."""
        return None if self.weights is None else self.weights(advantages_of(experience))

    def joint_row_weight(self, experience: Any) -> Tensor | None:
        """How much each sample weighs in the joint cross-entropy [B]; None: alike."""
        return None if self.joint_weights is None else self.joint_weights(advantages_of(experience))
