"""The number of drafted tokens that rejection sampling accepts, as functions of the two distributions.

A draft v ~ q is accepted with probability min(1, p_v / q_v), so one depth is accepted with probability
alpha = sum_v min(p_v, q_v) = 1 - TV(p, q), and a chain of k depths yields E = sum_j prod_{i<=j} alpha_i accepted
drafts on average (Bebop, arXiv 2606.12370, section 2). alpha itself comes from `rows`.
"""

from __future__ import annotations

import torch
from torch import Tensor


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
