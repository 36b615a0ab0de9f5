"""Objectives written down a second time, with numpy and loops, from the formulas alone."""

from __future__ import annotations

from typing import Any

import numpy as np


def softmax(x: Any) -> Any:
    e = np.exp(x - x.max())
    return e / e.sum()


def row_loss(name: str, q: Any, p: Any, token: int) -> float:
    """One depth's loss at one anchor; e2e_tv is not a sum over depths, see `objective`."""
    alpha = np.minimum(p, q).sum()
    kl = (p * (np.log(p) - np.log(q))).sum()
    share = np.exp(-3.0 * alpha)
    losses = {
        "ce": -np.log(q[token]),
        "kl": kl,
        "reverse_kl": (q * (np.log(q) - np.log(p))).sum(),
        "tv": 0.5 * np.abs(p - q).sum(),
        "nla": -np.log(alpha),
        "lk_hybrid": share * kl + (1 - share) * (1 - alpha),
    }
    return float(losses[name])


def sums(name: str, draft: Any, target: Any, token: Any, mask: Any) -> dict[str, Any]:
    """Every field of the loss's sums, by its definition; arguments as for `objective`."""
    k = draft.shape[1]
    found = {field: np.zeros(k) for field in ("depth_loss_sum", "depth_count", "alpha_sum", "greedy_sum")}
    entropy = length = horizon = 0.0
    for n in range(len(draft)):
        q, p = ([softmax(row) for row in side[n]] for side in (draft, target))
        alpha = [np.minimum(a, b).sum() for a, b in zip(p, q, strict=True)]
        reach = np.cumprod(alpha)
        entropy += -(p[0] * np.log(p[0])).sum()
        if mask[n].all():
            length, horizon = length + 1 + reach.sum(), horizon + 1
        for j in range(k):
            if mask[n, j]:
                loss = 1 - reach[j] if name == "e2e_tv" else row_loss(name, q[j], p[j], token[n, j])
                found["depth_loss_sum"][j] += loss
                found["depth_count"][j] += 1
                found["alpha_sum"][j] += alpha[j]
                found["greedy_sum"][j] += p[j][q[j].argmax()]
    loss_sum, loss_count = objective(name, draft, target, token, mask)
    scalars = {"loss_sum": loss_sum, "loss_count": loss_count}
    return found | scalars | {"entropy_sum": entropy, "length_sum": length, "horizon_count": horizon}


def objective(name: str, draft: Any, target: Any, token: Any, mask: Any) -> tuple[float, float]:
    """(loss_sum, loss_count) of logits [N, k, V], logits [N, k, V], tokens [N, k], mask [N, k]."""
    total, count, k = 0.0, 0.0, draft.shape[1]
    for n in range(len(draft)):
        q = [softmax(row) for row in draft[n]]
        p = [softmax(row) for row in target[n]]
        if name == "e2e_tv":
            if mask[n].all():
                alpha = [np.minimum(a, b).sum() for a, b in zip(p, q, strict=True)]
                total += 1 - sum(np.prod(alpha[: j + 1]) for j in range(k)) / k
                count += 1
            continue
        for j in range(k):
            if mask[n, j]:
                total += row_loss(name, q[j], p[j], token[n, j]) / k
                count += 1 / k
    return total, count
