"""Sums of the head's statistics over micro-batches and ranks, and the metrics made of them."""

from __future__ import annotations

import torch
import torch.distributed as dist

from openrlhf_mtp.losses.mtp_loss import MTPLossOutput
from openrlhf_mtp.metrics import MTP_ALPHA, MTP_LOSS, depth_metric


class Tally:
    """Running sums in float64, so that metrics do not depend on how a batch was split."""

    def __init__(self, depths: int) -> None:
        self.depths = depths
        self._sums = torch.zeros(6 + 3 * depths, dtype=torch.float64)

    def add(self, output: MTPLossOutput) -> None:
        """Add one micro-batch."""
        scalars = (
            output.loss_sum,
            output.loss_count,
            output.entropy_sum,
            output.entropy_count,
            output.length_sum,
            output.horizon_count,
        )
        parts = [torch.stack(scalars), output.depth_loss_sum, output.alpha_sum, output.depth_count]
        self._sums += torch.cat([part.detach().double().cpu() for part in parts])

    def all_reduce(self) -> None:
        """Sum over all ranks of the default group."""
        device = torch.device("cuda") if torch.cuda.is_available() else torch.device("cpu")
        sums = self._sums.to(device)
        dist.all_reduce(sums)
        self._sums = sums.cpu()

    def metrics(self) -> dict[str, float]:
        """The head's metrics; only the count when no response was longer than the horizon of k + 1 tokens."""
        loss, loss_count, entropy, entropy_count, length, horizon = self._sums[:6].tolist()
        depth_loss, alpha, depth_count = (part.tolist() for part in self._sums[6:].view(3, self.depths))
        row = {"mtp/anchors": entropy_count}
        if not horizon:
            return row
        row[MTP_LOSS] = loss / loss_count
        row["mtp/expected_length"] = length / horizon
        row["mtp/entropy"] = entropy / entropy_count
        for j in range(1, self.depths + 1):
            row[depth_metric(MTP_LOSS, j)] = depth_loss[j - 1] / depth_count[j - 1]
            row[depth_metric(MTP_ALPHA, j)] = alpha[j - 1] / depth_count[j - 1]
        return row
