"""A weighted sum of objectives as one objective.

    L = sum_n w_n L_n

All of them read the same rows, so a mixture costs no more than its dearest part. Its gradient is the sum of theirs.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from openrlhf_mtp.losses.types import Objective, ObjectiveInput, ObjectiveOutput


def mixture(parts: Mapping[str, float], objectives: Mapping[str, Objective]) -> Objective:
    """The objective sum_n parts[n] * objectives[n].

    `loss_count` is the largest part's: it only serves the reported mean, and parts with a fixed horizon count fewer
    anchors than the rest.

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
        weighted = list(zip(parts.values(), outputs, strict=True))
        return ObjectiveOutput(
            loss_sum=torch.stack([weight * output.loss_sum for weight, output in weighted]).sum(),
            loss_count=torch.stack([output.loss_count for output in outputs]).max(),
            depth_loss_sum=torch.stack([weight * output.depth_loss_sum for weight, output in weighted]).sum(
                0
            ),
        )

    return combined
