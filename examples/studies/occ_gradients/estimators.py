"""What is estimated, in float64: nothing here knows a model.

Squared norms of mean gradients hold the noise of the mean: E‖g + n‖² = ‖g‖² + E‖n‖². Two independent parts of the text
have independent noise, so the inner product of their gradients does not. All estimates here are means over pairs of
different parts (with two parts: the split-half estimate).
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def gram(left: Tensor, right: Tensor) -> Tensor:
    """Inner products of parts' gradients [B, P] x [B, P] -> [B, B], added up in float64."""
    products = left.new_zeros(len(left), len(right), dtype=torch.float64)
    for at in range(0, left.shape[1], BLOCK):
        columns = slice(at, at + BLOCK)
        products += left[:, columns].double() @ right[:, columns].double().T
    return products


BLOCK = 1 << 18
"""Columns that are turned into float64 at a time."""


def between_parts(products: Tensor) -> float:
    """Unbiased ⟨E x, E y⟩ from the inner products of B independent parts [B, B]: the mean over pairs of unlike parts.

    >>> between_parts(torch.tensor([[9.0, 2.0], [4.0, 9.0]]))
    3.0
    """
    parts = len(products)
    return float((products.sum() - products.diagonal().sum()) / (parts * (parts - 1)))


def jackknife(statistic: Callable[[Sequence[int]], float], parts: int) -> float:
    """Standard error of a statistic of parts: its spread when each part in turn is left out.

    Args:
        statistic: of the numbers of the parts that it may use.
        parts: how many there are.

    >>> values = [1.0, 2.0, 6.0]
    >>> round(jackknife(lambda kept: sum(values[part] for part in kept) / len(kept), 3), 4)  # s / sqrt(3)
    1.5275
    """
    left_out = torch.tensor(
        [statistic([other for other in range(parts) if other != part]) for part in range(parts)],
        dtype=torch.float64,
    )
    return float(((parts - 1) * left_out.var(correction=0)).sqrt())


def ratio(product: Tensor, norm: Tensor, kept: Sequence[int]) -> float:
    """ρ = ⟨g_RL, g_MTP⟩ / ‖g_MTP‖² from the parts `kept` of two tables of inner products [B, B].

    Not a number where the estimate of the squared norm is not positive: then g_MTP is not told from noise.
    """
    rows = torch.tensor(list(kept))
    above, below = (between_parts(table[rows][:, rows]) for table in (product, norm))
    return above / below if below > 0.0 else float("nan")


def optimal_coefficient(product: float, norm: float, smoothness: float, rate: float) -> float:
    """λ* of OCC's quadratic (docs/occ.md, equation 2): L is `smoothness`, η is `rate`.

    >>> optimal_coefficient(product=2.0, norm=4.0, smoothness=1.0, rate=0.5)
    0.5
    """
    return (1.0 - smoothness * rate) / (smoothness * rate) * product / norm


def vertex(below: float, at: float, above: float) -> float:
    """Where the parabola through (-1, below), (0, at), (1, above) is highest; not a number if it opens upward.

    >>> vertex(below=-5.0, at=1.0, above=3.0)  # 1 + 4 x - 2 x²
    1.0
    """
    bend = 2.0 * at - below - above
    return (above - below) / (2.0 * bend) if bend > 0.0 else float("nan")


def of_the_others(rewards: Tensor, each: int) -> Tensor:
    """Mean reward of the problem's other responses: [M], `each` of a problem in a row -> [M].

    >>> of_the_others(torch.tensor([1.0, 0.0, 0.0, 1.0, 1.0, 1.0]), 3).tolist()
    [0.0, 0.5, 0.5, 1.0, 1.0, 1.0]
    """
    groups = rewards.view(-1, each)
    return ((groups.sum(-1, keepdim=True) - groups) / (each - 1)).flatten()


def reward_change(log_ratio: Tensor, rewards: Tensor, each: int) -> Tensor:
    """Change of the expected reward by problem [M / each], unbiased for any step.

    The mean over a problem's responses of (w - 1)(r - b). E[w] = 1, and the baseline b, the others' mean reward, does
    not depend on the response, so it adds nothing but takes variance away.

    Args:
        log_ratio: log-probability of each response after the step minus before it, under which it was sampled [M].
        rewards: of the responses, `each` of a problem in a row [M].
        each: responses of a problem.
    """
    centered = rewards.double() - of_the_others(rewards.double(), each)
    return (log_ratio.double().expm1() * centered).view(-1, each).mean(-1)


def standard_error(values: Tensor) -> float:
    """Of the mean of independent values [N]."""
    return float(values.std() / len(values) ** 0.5)
