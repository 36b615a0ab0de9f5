"""Sums of the head's statistics over micro-batches and ranks, and the metrics made of them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from openrlhf_mtp.losses.mtp_loss import MTPLossOutput, Sums
from openrlhf_mtp.losses.replayed_acceptance import ReplayedCounts, length_error
from openrlhf_mtp.runlog.metrics import (
    MTP_ACCEPTED_STD,
    MTP_ALPHA,
    MTP_ALPHA_GREEDY,
    MTP_ANCHORS,
    MTP_ENTROPY,
    MTP_EXPECTED_LENGTH,
    MTP_LOSS,
    MTP_REACH,
    MTP_REPLAYED_LENGTH,
    MTP_REPLAYED_LENGTH_P10,
    MTP_REPLAYED_LENGTH_SE,
    MTP_SLOW_RESPONSES,
    SLOW_RESPONSE,
    depth_metric,
    quarter_metric,
)
from openrlhf_mtp.training.reduce import all_gather_values, all_reduce_sum


class HeadMetrics:
    """Running sums in float64, so that metrics do not depend on how a batch was split.

    Args:
        depths: number of depths k.
        sums: of micro-batches to begin with.
        replayed: replays of micro-batches to begin with.
    """

    def __init__(
        self, depths: int, sums: Iterable[Sums] = (), replayed: Iterable[ReplayedCounts] = ()
    ) -> None:
        self.depths = depths
        self._scalars = torch.zeros(4, dtype=torch.float64)
        self._by_depth = torch.zeros(4, depths, dtype=torch.float64)
        self._replayed = torch.zeros(2 + depths, dtype=torch.float64)
        self._covariance = torch.zeros(2, 2, dtype=torch.float64)
        self._quarters = torch.zeros(4, 2, dtype=torch.float64)
        self._lengths: list[Tensor] = []  # of each response
        for each in sums:
            self.add(each)
        for counts in replayed:
            self.add_replayed(counts)

    def add(self, sums: Sums) -> None:
        """Add one micro-batch."""
        scalars = (sums.loss_sum, sums.loss_count, sums.entropy_sum, sums.length_sum)
        by_depth = (sums.depth_loss_sum, sums.alpha_sum, sums.greedy_sum, sums.depth_count)
        self._scalars += torch.stack([part.detach().double() for part in scalars]).cpu()
        self._by_depth += torch.stack([part.detach().double() for part in by_depth]).cpu()

    def add_replayed(self, counts: ReplayedCounts) -> None:
        """Add the replay of one micro-batch, in which every anchor was measured."""
        self._replayed += (
            torch.cat(
                [
                    torch.stack([counts.drafts, counts.variance]),
                    counts.reached,
                ]
            )
            .double()
            .cpu()
        )
        self._covariance += counts.covariance.double().cpu()
        self._quarters += counts.quarters.double().cpu()
        drafts, accepted = counts.responses.double().cpu().unbind(1)
        self._lengths.append(1.0 + accepted / drafts)

    def all_reduce(self) -> None:
        """Sum over all ranks of the default group (collective)."""
        parts = (self._scalars, self._replayed, self._by_depth, self._covariance, self._quarters)
        sums = all_reduce_sum(torch.cat([part.flatten() for part in parts]))
        self._scalars, self._replayed, *tables = sums.split([part.numel() for part in parts])
        self._by_depth, self._covariance, self._quarters = (
            table.view(part.shape) for table, part in zip(tables, parts[2:], strict=True)
        )
        self._lengths = [all_gather_values(torch.cat([sums.new_zeros(0), *self._lengths]))]

    def mean_alpha(self) -> float:
        """Overlap, mean over depths and counted anchors; 0 without any."""
        _, alpha, _, count = self._by_depth
        return float(alpha.sum() / count.sum().clamp(min=1.0))

    def metrics(self) -> dict[str, float]:
        """The head's metrics; without a figure over anchors that no response was long enough for."""
        loss, loss_count, entropy, length = self._scalars.tolist()
        depth_loss, alpha, greedy, depth_count = self._by_depth.tolist()
        row = {MTP_ANCHORS: depth_count[0]}
        if loss_count:
            row[MTP_LOSS] = loss / loss_count
        if depth_count[0]:
            row[MTP_EXPECTED_LENGTH] = length / depth_count[0]
            row[MTP_ENTROPY] = entropy / depth_count[0]
        for j, count in enumerate(depth_count, start=1):
            if count:
                row[depth_metric(MTP_LOSS, j)] = depth_loss[j - 1] / count
                row[depth_metric(MTP_ALPHA, j)] = alpha[j - 1] / count
                row[depth_metric(MTP_ALPHA_GREEDY, j)] = greedy[j - 1] / count
        drafts, variance, *reached = self._replayed.tolist()
        if drafts:
            row[MTP_ACCEPTED_STD] = math.sqrt(variance / drafts)
            row[MTP_REPLAYED_LENGTH] = 1.0 + sum(reached) / drafts
            row[MTP_REPLAYED_LENGTH_SE] = length_error(drafts, sum(reached), self._covariance)
            row |= {depth_metric(MTP_REACH, j): sums / drafts for j, sums in enumerate(reached, start=1)}
            row |= self._by_response()
        return row

    def _by_response(self) -> dict[str, float]:
        """How evenly the replayed drafts are accepted: over responses, and within them."""
        lengths = torch.cat(self._lengths)
        row = {
            MTP_REPLAYED_LENGTH_P10: lengths.quantile(0.1).item(),
            MTP_SLOW_RESPONSES: (lengths < SLOW_RESPONSE).double().mean().item(),
        }
        for q, (drafts, accepted) in enumerate(self._quarters.tolist(), start=1):
            if drafts:
                row[quarter_metric(MTP_REPLAYED_LENGTH, q)] = 1.0 + accepted / drafts
        return row


def anchor_records(output: MTPLossOutput, limit: int = 4096) -> dict[str, NDArray[Any]]:
    """The policy's entropy and the head's acceptance, anchor by anchor, of a micro-batch on this rank.

    Args:
        output: the head's loss on it.
        limit: how many of its first anchors are kept.

    Returns:
        Entropy (nat), overlap and greedy acceptance, [N, k] each, NaN where a depth does not count, and the response
        each anchor is from [N].
    """
    mask, records = output.anchors.mask[:limit], output.records
    figures = {"entropy": records.entropy, "alpha": records.alpha, "greedy": records.greedy}
    arrays = {"response": output.anchors.row[:limit].cpu().numpy()}
    return arrays | {
        name: values[:limit].float().masked_fill(~mask, torch.nan).cpu().numpy()
        for name, values in figures.items()
    }
