"""The number of drafted tokens that rejection sampling accepts, as functions of the two distributions.

A draft v ~ q is accepted with probability min(1, p_v / q_v), so one depth is accepted with probability
alpha = sum_v min(p_v, q_v) = 1 - TV(p, q), and a chain of k depths yields E = sum_j prod_{i<=j} alpha_i accepted
drafts on average (Bebop, arXiv 2606.12370, section 2). alpha itself comes from `rows`.

That E takes the depths for independent. Along a text that the policy sampled they are not: which token x_i stands at
depth i decides how well depth i + 1 drafts, and the engine gets there only if x_i itself was drafted and accepted. With
r_i = min(1, q(x_i) / p(x_i)), `expected_accepted_on_text` has the right mean.
"""

from __future__ import annotations

import torch
from torch import Tensor


def expected_accepted(alpha: Tensor) -> Tensor:
    """Expected accepted drafts E = sum_j prod_{i<=j} alpha_i: [..., k] -> [...], if depths are independent.

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


def acceptance_ratio(log_q: Tensor, log_p: Tensor) -> Tensor:
    """Probability r = min(1, q(x) / p(x)) that x was drafted and accepted, given that x stands in the text: [...].

    A tie gives its gradient to q, as in alpha.
    """
    return (log_q - log_p).clamp(max=0.0).exp()


def expected_accepted_on_text(alpha: Tensor, ratio: Tensor, mask: Tensor) -> Tensor:
    """Accepted drafts sum_j (prod_{i<j} r_i) alpha_j of a chain along sampled text: [..., k] -> [...].

    Its mean over texts of the policy is the engine's expectation: the text starts with x_1 ... x_j and the engine
    accepts them with joint probability prod_i min(p, q)(x_i), whose sum over x_j is alpha_j. Exact also where the
    depths depend on each other, which `expected_accepted` is not.

    Args:
        alpha: overlap at each depth [..., k].
        ratio: `acceptance_ratio` of the text's token at each depth [..., k].
        mask: true where the depth is inside the response; beyond the end nothing is accepted [..., k].
    """
    total = torch.zeros_like(alpha[..., 0])
    depths = zip(*(values.unbind(-1) for values in (alpha, ratio, mask)), strict=True)
    for alpha_j, ratio_j, mask_j in reversed(list(depths)):
        total = (alpha_j + ratio_j * total).masked_fill(~mask_j, 0.0)
    return total
