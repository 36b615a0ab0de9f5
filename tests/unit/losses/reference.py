"""Objectives written down a second time, with numpy and loops, from the formulas alone."""

from __future__ import annotations

from typing import Any

import numpy as np


def softmax(x: Any) -> Any:
    e = np.exp(x - x.max())
    return e / e.sum()


def row_loss(name: str, q: Any, p: Any, token: int) -> float:
    """One depth's loss at one anchor; the end-to-end ones are no sums over depths, see `objective`."""
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


def on_text(q: Any, p: Any, token: Any, inside: int) -> tuple[float, Any]:
    """Of e2e_tv_sampled at an anchor whose first depths are inside: V_1, and R_j alpha_j by depth."""
    k = len(q)
    alpha = np.array([np.minimum(a, b).sum() for a, b in zip(p, q, strict=True)])
    ratio = np.array([min(1.0, q[j][token[j]] / p[j][token[j]]) for j in range(k)])
    value = 0.0
    for j in reversed(range(inside)):
        baseline = sum(alpha[j] ** m for m in range(1, k - j))
        value = alpha[j] + ratio[j] * value + baseline * (alpha[j] - ratio[j])
    return value, np.concatenate([[1.0], ratio.cumprod()[:-1]]) * alpha


def sums(name: str, draft: Any, target: Any, token: Any, mask: Any) -> dict[str, Any]:
    """Every field of the loss's sums, by its definition; arguments as for `objective`."""
    k = draft.shape[1]
    found = {field: np.zeros(k) for field in ("depth_loss_sum", "depth_count", "alpha_sum", "greedy_sum")}
    entropy = length = 0.0
    for n in range(len(draft)):
        q, p = ([softmax(row) for row in side[n]] for side in (draft, target))
        alpha = [np.minimum(a, b).sum() for a, b in zip(p, q, strict=True)]
        reach = np.cumprod(alpha)
        sampled = on_text(q, p, token[n], mask[n].sum())[1]
        entropy += -(p[0] * np.log(p[0])).sum()
        length += 1 + sampled[mask[n]].sum()
        for j in range(k):
            if mask[n, j]:
                kept = {"e2e_tv": reach, "e2e_tv_sampled": sampled}.get(name)
                loss = row_loss(name, q[j], p[j], token[n, j]) if kept is None else 1 - kept[j]
                found["depth_loss_sum"][j] += loss
                found["depth_count"][j] += 1
                found["alpha_sum"][j] += alpha[j]
                found["greedy_sum"][j] += p[j][q[j].argmax()]
    loss_sum, loss_count = objective(name, draft, target, token, mask)
    scalars = {"loss_sum": loss_sum, "loss_count": loss_count}
    return found | scalars | {"entropy_sum": entropy, "length_sum": length}


def objective(name: str, draft: Any, target: Any, token: Any, mask: Any) -> tuple[float, float]:
    """(loss_sum, loss_count) of logits [N, k, V], logits [N, k, V], tokens [N, k], mask [N, k]."""
    total, count, k = 0.0, 0.0, draft.shape[1]
    for n in range(len(draft)):
        q = [softmax(row) for row in draft[n]]
        p = [softmax(row) for row in target[n]]
        if name == "e2e_tv":
            inside = mask[n].sum()
            alpha = [np.minimum(a, b).sum() for a, b in zip(p, q, strict=True)]
            total += (inside - sum(np.prod(alpha[: j + 1]) for j in range(inside))) / k
            count += inside / k
            continue
        if name == "e2e_tv_sampled":
            inside = mask[n].sum()
            total += (inside - on_text(q, p, token[n], inside)[0]) / k
            count += inside / k
            continue
        for j in range(k):
            if mask[n, j]:
                total += row_loss(name, q[j], p[j], token[n, j]) / k
                count += 1 / k
    return total, count
