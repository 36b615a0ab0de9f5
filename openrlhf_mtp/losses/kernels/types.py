"""Types of the row kernels: a rank's part of the vocabulary, and the numbers of each row.

`rows` holds the definitions; `rows_torch` and `rows_triton` compute them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

LEAST_LOG = -6e4
"""Replaces log 0, so that a banned token (logit -inf) leaves every sum finite; its size fits float16."""


@dataclass(frozen=True)
class Shard:
    """This rank's part of the vocabulary: columns start ... start + V of the whole.

    Attributes:
        start: first column.
        group: the ranks that hold the other parts; None when this is all of it.
    """

    start: int = 0
    group: dist.ProcessGroup | None = None

    def reduce(self, tensor: Tensor, op: dist.ReduceOp.RedOpType) -> Tensor:
        """`tensor` reduced over the group, in place; unchanged without one."""
        if self.group is not None:
            dist.all_reduce(tensor, op=op, group=self.group)
        return tensor

    def largest(self, part: Tensor) -> int:
        """Rows of the largest part among the group's, where this rank's is `part` (collective)."""
        return int(self.reduce(torch.tensor(len(part), device=part.device), dist.ReduceOp.MAX))


WHOLE = Shard()


class RowMax(NamedTuple):
    """First-pass results of this rank's part of the vocabulary; `overlaps` is the second pass, `gradient_` the third.

    Attributes:
        max_q, sum_q: largest draft logit, and sum of exp(logit - max_q) [R].
        mode: column of the largest draft logit [R].
        max_p, sum_p: as max_q and sum_q, of every target [M].
    """

    max_q: Tensor
    sum_q: Tensor
    mode: Tensor
    max_p: Tensor
    sum_p: Tensor


@dataclass(frozen=True)
class RowScalars:
    """The numbers of each row [R], in float32 (float64 for float64 logits).

    Attributes:
        lse_q: log-sum-exp of the draft logits.
        lse_p: log-sum-exp of the row's target logits.
        alpha: overlap, the probability that the draft is accepted.
        overlap_mass: S, the probability that q drafts a token with q <= p.
        kl: KL(p || q), nat.
        reverse_kl: KL(q || p), nat.
        log_q: log-prob of the token under the draft.
        log_p: log-prob of the token under the policy.
        entropy: entropy of p, nat.
        greedy_alpha: p at the draft's mode, the acceptance of a greedy draft.
    """

    lse_q: Tensor
    lse_p: Tensor
    alpha: Tensor
    overlap_mass: Tensor
    kl: Tensor
    reverse_kl: Tensor
    log_q: Tensor
    log_p: Tensor
    entropy: Tensor
    greedy_alpha: Tensor


@dataclass(frozen=True)
class RowGradients:
    """dL/d(scalar) of each row [R]; None where the loss does not depend on the scalar."""

    alpha: Tensor | None = None
    kl: Tensor | None = None
    reverse_kl: Tensor | None = None
    log_q: Tensor | None = None
