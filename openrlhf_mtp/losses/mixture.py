"""A weighted sum of objectives as one objective.

    L = sum_n w_n L_n

All terms read the same rows, so a mixture costs no more than its most expensive term. Its gradient is the sum of
theirs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from openrlhf_mtp.losses.types import Objective, ObjectiveInput, ObjectiveOutput


def mixture(parts: Mapping[str, float], objectives: Mapping[str, Objective]) -> Objective:
    """The objective sum_n parts[n] * objectives[n].

    `loss_count` is the mean of theirs with the same weights. With `depth_decay`, end-to-end parts count an anchor at
    the end of a response differently from the rest, and the mean weight of samples is taken over what is counted
    (`advantage`).

    Raises:
        ValueError: no part, an unknown name, or a weight that is not positive.
    """
    unknown = sorted(set(parts) - set(objectives))
    if unknown:
        raise ValueError(
            f"objective: got {', '.join(map(repr, unknown))}, expected one of {', '.join(objectives)}"
        )
    if not parts or min(parts.values()) <= 0.0:
        raise ValueError(f"objective: got {dict(parts)}, expected at least one name with a positive weight")

    def combined(inputs: ObjectiveInput) -> ObjectiveOutput:
        outputs = [objectives[name](inputs) for name in parts]

        def total(field: Callable[[ObjectiveOutput], Tensor]) -> Tensor:
            weighted = zip(parts.values(), outputs, strict=True)
            return torch.stack([weight * field(output) for weight, output in weighted]).sum(0)

        return ObjectiveOutput(
            loss_sum=total(lambda output: output.loss_sum),
            loss_count=total(lambda output: output.loss_count) / sum(parts.values()),
            depth_loss_sum=total(lambda output: output.depth_loss_sum),
        )

    return combined
