"""Sums of the head's per-anchor statistics over micro-batches and ranks, and the metrics made of them."""

from __future__ import annotations

import torch
import torch.distributed as dist

from openrlhf_mtp.losses.mtp_loss import MTPLossOutput
from openrlhf_mtp.metrics import MTP_ALPHA, MTP_LOSS, depth_metric


class Tally:
    """Running sums, in float64, so that metrics do not depend on how a batch was split."""

    def __init__(self, depths: int) -> None:
        self.depths = depths
        self._sums = torch.zeros(4 + 3 * depths, dtype=torch.float64)

    def add(self, output: MTPLossOutput) -> None:
        """Add one micro-batch."""
        scalars = torch.stack(
            [output.loss_sum.detach(), output.loss_count, output.entropy_sum, output.entropy_count]
        )
        parts = [scalars, output.depth_loss_sum, output.alpha_sum, output.depth_count]
        self._sums += torch.cat([part.detach().double().cpu() for part in parts])

    def all_reduce(self) -> None:
        """Sum over all ranks of the default group."""
        device = torch.device("cuda") if torch.cuda.is_available() else torch.device("cpu")
        sums = self._sums.to(device)
        dist.all_reduce(sums)
        self._sums = sums.cpu()

    def metrics(self) -> dict[str, float]:
        """The head's metrics; empty when no anchor was counted (all responses shorter than the horizon)."""
        loss, count, entropy, entropy_count = self._sums[:4].tolist()
        depth_loss, alpha, depth_count = (part.tolist() for part in self._sums[4:].view(3, self.depths))
        if not count or not all(depth_count):
            return {"mtp/anchors": count}
        means = [a / n for a, n in zip(alpha, depth_count, strict=True)]
        row = {
            MTP_LOSS: loss / count,
            "mtp/anchors": count,
            "mtp/expected_length": expected_length(means),
            "mtp/entropy": entropy / entropy_count,
        }
        for j in range(1, self.depths + 1):
            row[depth_metric(MTP_LOSS, j)] = depth_loss[j - 1] / depth_count[j - 1]
            row[depth_metric(MTP_ALPHA, j)] = means[j - 1]
        return row


def expected_length(alphas: list[float]) -> float:
    """1 + sum_j prod_{i<=j} alpha_i: tokens per target forward at these mean overlaps (Bebop, section 3)."""
    length, product = 1.0, 1.0
    for alpha in alphas:
        product *= alpha
        length += product
    return length
