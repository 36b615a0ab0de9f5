"""How many drafted tokens rejection sampling accepts, as functions of the two distributions.

A draft v ~ q is accepted with probability min(1, p_v / q_v), so one depth is accepted with probability
alpha = sum_v min(p_v, q_v) = 1 - TV(p, q), and a chain of k depths yields E = sum_j prod_{i<=j} alpha_i accepted
drafts on average (Bebop, arXiv 2606.12370, section 3).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx


class _Overlap(torch.autograd.Function):
    """alpha and its gradient d alpha / d z_v = q_v (1[q_v <= p_v] - S), S = sum_v q_v 1[q_v <= p_v].

    Written out because autograd would split the gradient of min(p, q) evenly at a tie; a tie is accepted, so it
    belongs to q. The gradient is bounded by q_v.
    """

    @staticmethod
    def forward(ctx: FunctionCtx, draft_logits: Tensor, target_logits: Tensor) -> Tensor:
        q, p = draft_logits.softmax(-1), target_logits.softmax(-1)
        covered = torch.where(q <= p, q, 0.0)  # probability that is drafted and surely accepted
        ctx.save_for_backward(q, covered)
        return torch.minimum(p, q).sum(-1)

    @staticmethod
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor, None]:
        q, covered = ctx.saved_tensors  # type: ignore[attr-defined]
        return (covered - q * covered.sum(-1, keepdim=True)) * grad.unsqueeze(-1), None


def overlap(draft_logits: Tensor, target_logits: Tensor) -> Tensor:
    """Acceptance probability alpha = sum_v min(p_v, q_v) of one sampled draft: [..., V], [..., V] -> [...].

    Differentiable in the draft only; the target is a constant. Exact for any logits, since nothing is divided.

    >>> p, q = torch.tensor([0.5, 0.5]), torch.tensor([0.9, 0.1])
    >>> round(overlap(q.log(), p.log()).item(), 4)
    0.6
    """
    alpha: Tensor = _Overlap.apply(draft_logits, target_logits)  # type: ignore[no-untyped-call]
    return alpha


def expected_accepted(alpha: Tensor) -> Tensor:
    """Expected accepted drafts E = sum_j prod_{i<=j} alpha_i: [..., k] -> [...]; the engine's length is 1 + E.

    Nested form E = alpha_1 (1 + alpha_2 (1 + ...)): its derivative with respect to alpha_d is the product before
    d times the nested sum after d, prefix x suffix, so it never divides by alpha_d, which may be 0.

    >>> expected_accepted(torch.tensor([0.5, 0.5])).item()
    0.75
    """
    total = torch.zeros_like(alpha[..., 0])
    for alpha_j in reversed(alpha.unbind(-1)):
        total = alpha_j * (1.0 + total)
    return total


def reach(alpha: Tensor) -> Tensor:
    """Probability that all drafts up to depth j are accepted, prod_{i<=j} alpha_i: [..., k] -> [..., k]."""
    return alpha.cumprod(-1)


def entropy(logits: Tensor) -> Tensor:
    """Entropy of softmax(logits) in nats: [..., V] -> [...]."""
    log_p = logits.log_softmax(-1)
    return -(log_p.exp() * log_p).sum(-1)
