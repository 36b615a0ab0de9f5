"""Metrics of the joint regimes: the coefficient, OCC's two terms, and the term's loss."""

from __future__ import annotations

import torch
from torch import Tensor

from openrlhf_mtp.runlog.metrics import (
    MTP_COEFFICIENT,
    MTP_JOINT_LOSS,
    OCC_ALIGNMENT,
    OCC_MAGNITUDE,
    OCC_SIGN,
    depth_metric,
)
from openrlhf_mtp.training.joint.coefficient import Scored
from openrlhf_mtp.training.joint.occ import sums_of
from openrlhf_mtp.training.reduce import all_reduce_sum
from openrlhf_mtp.training.step_inputs import StepCoefficient


class JointMetrics:
    """Collects what optimizer steps report, each metric a mean over steps."""

    def __init__(self, depths: int) -> None:
        self.depths = depths
        self._rows: list[dict[str, float]] = []
        self._measured: list[Tensor] = []  # of this optimizer step's micro-batches
        self._losses: list[Tensor] = []
        self._step_losses: list[Tensor] = []

    def add_coefficient(self, coefficient: StepCoefficient) -> None:
        """Add an optimizer step's coefficient, and OCC's two terms where they have decided it."""
        values = coefficient.values
        row = {depth_metric(MTP_COEFFICIENT, j): value for j, value in enumerate(values.tolist(), start=1)}
        self._rows.append({MTP_COEFFICIENT: float(values.mean()), **row})
        if coefficient.occ_sums is not None:
            self._add_reduced_occ_sums(coefficient.occ_sums)

    def _add_reduced_occ_sums(self, sums: Tensor) -> None:
        """Add OCC's two terms of an optimizer step, from `occ_sums` over all ranks [3, k]."""
        alignment, magnitude, tokens = sums.cpu()
        if not tokens.any():
            return  # nothing has moved yet, so nothing was measured
        row = {}
        for j in range(1, self.depths + 1):
            count = max(1.0, float(tokens[j - 1]))
            row[depth_metric(OCC_ALIGNMENT, j)] = float(alignment[j - 1]) / count
            row[depth_metric(OCC_MAGNITUDE, j)] = float(magnitude[j - 1]) / count
            row[depth_metric(OCC_SIGN, j)] = float(alignment[j - 1].sign())
        self._rows.append(row)

    def measure_occ(self, scored: Scored) -> None:
        """Add a micro-batch to OCC's two terms, where they do not decide the coefficient."""
        self._measured.append(sums_of(scored))

    def add_loss(self, loss: Tensor) -> None:
        """Add a micro-batch's loss without its coefficient, a mean over depths (scalar, detached)."""
        self._losses.append(loss)

    def end_step(self, *, losses_add_up: bool) -> None:
        """Close an optimizer step (collective).

        Args:
            losses_add_up: the step's loss is the sum of its micro-batches' losses; otherwise their mean.
        """
        measured, self._measured = self._measured, []
        if measured:
            total = measured[0]
            for sums in measured[1:]:
                total = total + sums
            self._add_reduced_occ_sums(all_reduce_sum(total))
        losses, self._losses = self._losses, []
        if losses:
            each = torch.stack(losses)
            self._step_losses.append(each.sum() if losses_add_up else each.mean())

    def drain(self) -> dict[str, float]:
        """Metrics since the last call; reset them (collective)."""
        rows, self._rows = self._rows, []
        loss = torch.tensor([sum(map(float, self._step_losses)), len(self._step_losses)], dtype=torch.float64)
        self._step_losses = []
        loss = all_reduce_sum(loss)
        means = {}
        for name in sorted({name for row in rows for name in row}):
            values = [row[name] for row in rows if name in row]
            means[name] = sum(values) / len(values)
        means[MTP_JOINT_LOSS] = float(loss[0] / loss[1].clamp(min=1.0))
        return means
