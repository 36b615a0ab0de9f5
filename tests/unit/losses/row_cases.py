"""Rows for the kernels of `losses.kernels.rows`, and what they must come to, in float64 straight from the formulas."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from openrlhf_mtp.losses.kernels.rows import row_gradient_, row_statistics
from openrlhf_mtp.losses.kernels.types import LEAST_LOG, WHOLE, RowGradients, Shard

TARGETS, ROWS = 3, 5


@dataclass(frozen=True)
class Case:
    """Arguments of `row_statistics` and `row_gradient_`.

    Attributes:
        draft, target, target_row, tokens: as there.
        gradients: dL/d(scalar) of each row.
        logit_size: largest logit, which decides how exact float32 can be.
    """

    draft: Tensor
    target: Tensor
    target_row: Tensor
    tokens: Tensor
    gradients: RowGradients
    logit_size: float = 10.0

    def to(self, device: str) -> Case:
        """The same case on another device."""
        moved = {
            field.name: None if (value := getattr(self.gradients, field.name)) is None else value.to(device)
            for field in fields(RowGradients)
        }
        tensors = (t.to(device) for t in (self.draft, self.target, self.target_row, self.tokens))
        return Case(*tensors, RowGradients(**moved), self.logit_size)


def _normal(*shape: int, seed: int, spread: float = 2.0) -> Tensor:
    return spread * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def gradients(names: str = "alpha kl reverse_kl log_q") -> RowGradients:
    """Random coefficients of some scalars; row 1 is masked: its coefficients are 0."""
    every = {
        name: _normal(ROWS, seed=n).float()
        for n, name in enumerate(("alpha", "kl", "reverse_kl", "log_q"), 7)
    }
    for coefficient in every.values():
        coefficient[1] = 0.0
    return RowGradients(**{name: every[name] for name in names.split()})


def _case(draft: Tensor, target: Tensor, which: RowGradients | None = None, logit_size: float = 10.0) -> Case:
    columns = draft.shape[1]
    tokens = torch.tensor([0, columns - 1, columns // 2, 1, 2]).clamp(max=columns - 1)
    return Case(draft, target, torch.tensor([0, 2, 1, 2, 0]), tokens, which or gradients(), logit_size)


def _random(dtype: torch.dtype, columns: int, which: RowGradients | None = None) -> Case:
    draft, target = _normal(ROWS, columns, seed=0).to(dtype), _normal(TARGETS, columns, seed=1).to(dtype)
    draft[0, -1] = 14.0  # a mode in the last, short tile
    return _case(draft, target, which)


def _one_hot(logits: Tensor, size: float) -> Tensor:
    return torch.full_like(logits, -size).scatter_(1, torch.arange(len(logits))[:, None], size)


def _extreme(change: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]], logit_size: float) -> Case:
    draft, target = _normal(ROWS, 300, seed=0).float(), _normal(TARGETS, 300, seed=1).float()
    return _case(*change(draft, target), logit_size=logit_size)


def _banned(draft: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    return draft, target.index_fill(1, torch.tensor([0, 17, 299]), float("-inf"))


def _padded_rows(case: Case) -> Case:
    """The same numbers as columns of wider matrices, whose other columns hold garbage."""
    wide = [
        torch.cat([x, torch.full_like(x[:, :3], torch.nan)], 1)[:, : x.shape[1]]
        for x in (case.draft, case.target)
    ]
    return Case(*wide, case.target_row, case.tokens, case.gradients)


def cases() -> dict[str, Case]:
    """Name -> case."""
    exact, single = torch.float64, torch.float32
    shape_cases = {
        f"{str(dtype).removeprefix('torch.')}, {columns} columns": _random(dtype, columns)
        # below one tile of the Triton kernels, several tiles, more than one program a row
        for dtype, columns in [
            (exact, 7),
            (single, 5000),
            (torch.bfloat16, 5000),
            (torch.float16, 2048),
            (single, 18_437),
        ]
    }
    alone = {
        f"only {name}": _random(single, 300, gradients(name))
        for name in ("alpha", "kl", "reverse_kl", "log_q")
    }
    pairs = {
        "alpha and kl": _random(single, 300, gradients("alpha kl")),
        "nothing": _random(single, 300, gradients("")),
    }
    extremes = {
        "logits of 1e4": _extreme(lambda q, p: (q * 1e4 / q.abs().max(), p * 1e4 / p.abs().max()), 1e4),
        "tokens banned in the target": _extreme(_banned, 10.0),
        "tokens banned in the target, float16": _extreme(
            lambda q, p: (q.half(), _banned(q, p)[1].half()), 10.0
        ),
        "one-hot target": _extreme(lambda q, p: (q, _one_hot(p, 1e4)), 1e4),
        "one-hot draft": _extreme(lambda q, p: (_one_hot(q, 1e4), p), 1e4),
        "both one-hot, at different tokens": _extreme(
            lambda q, p: (_one_hot(q, 1e4).flip(1), _one_hot(p, 1e4)), 1e4
        ),
        "draft equal to target": _extreme(lambda _, p: (p[[0, 2, 1, 2, 0]].clone(), p), 10.0),
        "uniform": _extreme(lambda q, p: (torch.zeros_like(q), torch.zeros_like(p)), 1.0),
    }
    return {
        **shape_cases,
        **alone,
        **pairs,
        **extremes,
        "rows apart in memory": _padded_rows(_random(single, 300)),
    }


def reference(case: Case) -> dict[str, Tensor]:
    """The scalars [R] and `gradient` [R, V] in float64: plain softmax, and autograd."""
    draft = case.draft.double().requires_grad_()
    log_q = draft.log_softmax(-1)
    log_p = case.target.double().log_softmax(-1)[case.target_row].clamp(min=LEAST_LOG)
    q, p = log_q.exp(), log_p.exp()
    token = case.tokens[:, None]
    differentiable = {
        "alpha": torch.where(q <= p, q, p).sum(-1),  # a tie belongs to q
        "kl": (p * (log_p - log_q)).sum(-1),
        "reverse_kl": (q * (log_q - log_p)).sum(-1),
        "log_q": log_q.gather(1, token)[:, 0],
    }
    loss = torch.zeros((), dtype=torch.float64) + 0.0 * draft.sum()
    for name, value in differentiable.items():
        coefficient = getattr(case.gradients, name)
        if coefficient is not None:
            loss = loss + (coefficient.double() * value).sum()
    (gradient,) = torch.autograd.grad(loss, draft)
    return {
        **{name: value.detach() for name, value in differentiable.items()},
        "log_p": log_p.gather(1, token)[:, 0],
        "entropy": -(p * log_p).sum(-1),
        "overlap_mass": torch.where(q <= p, q, 0.0).sum(-1).detach(),
        "greedy_alpha": p.gather(1, case.draft.double().argmax(-1, keepdim=True))[:, 0],
        "gradient": gradient,
    }


def computed(case: Case, shard: Shard = WHOLE) -> dict[str, Tensor]:
    """What the kernels make of the case: every scalar, and the gradient, which must be the draft's own memory."""
    scalars = row_statistics(case.draft, case.target, case.target_row, case.tokens, shard)
    draft = torch.empty_strided(
        case.draft.shape, case.draft.stride(), dtype=case.draft.dtype, device=case.draft.device
    )
    draft.copy_(case.draft)
    written = row_gradient_(draft, case.target, case.target_row, case.tokens, scalars, case.gradients, shard)
    assert written.data_ptr() == draft.data_ptr()
    return {**{field.name: getattr(scalars, field.name) for field in fields(scalars)}, "gradient": written}


def check(case: Case, found: dict[str, Tensor]) -> None:
    """Compare with the reference.

    A logit of size s in float32 is known to s * 6e-8, and so is every log-prob; sums over the vocabulary add a few
    roundings. A gradient is as exact as its largest entries, and rounded to the logits' own type.
    """
    tolerance = 1e-11 if case.draft.dtype == torch.float64 else 1e-5 + 1e-7 * case.logit_size
    for name, expected in reference(case).items():
        got, rtol, atol = found[name].double(), tolerance, tolerance
        if name == "gradient":
            rtol, atol = (
                tolerance + torch.finfo(case.draft.dtype).eps,
                0.1 * tolerance * expected.abs().max().item(),
            )
        assert got.isfinite().all(), name
        torch.testing.assert_close(
            got, expected, rtol=rtol, atol=atol, msg=lambda text, name=name: f"{name}: {text}"
        )
