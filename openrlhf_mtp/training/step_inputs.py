"""Inputs that an optimizer step fixes before its first micro-batch, for all of its micro-batches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

from torch import Tensor

from openrlhf_mtp.losses.advantage import AdvantageWeights
from openrlhf_mtp.training.advantage_weights import advantages_of


class StepCoefficient(NamedTuple):
    """The coefficient of an optimizer step's joint term, decided.

    Attributes:
        values: lambda by depth [k].
        inside: factor inside a depth's policy loss, on the advantages [k].
        outside: factor on a depth's loss [k].
        is_needed: whether the term must be computed, the same on every rank.
        occ_sums: OCC's sums over all ranks, `joint.occ.occ_sums` [3, k]; None if it does not come from them.
    """

    values: Tensor
    inside: list[float]
    outside: list[float]
    is_needed: bool
    occ_sums: Tensor | None = None


class Undecided:
    """The coefficient of an optimizer step of one micro-batch, which that micro-batch's tokens will decide."""

    is_needed: ClassVar[bool] = True


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
