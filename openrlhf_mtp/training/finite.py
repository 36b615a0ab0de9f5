"""Stop on the first number that is not finite, naming it. Exit code 0 proves nothing on this stack."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch


class NonFiniteError(RuntimeError):
    """A loss, reward or log-prob is NaN or infinite."""


def require_finite(values: Mapping[str, Any], *, step: int, where: str) -> None:
    """Check every float and tensor of a mapping; other values are skipped.

    Raises:
        NonFiniteError: lists each offending name with what it holds. Nothing of this step is saved after it,
            so the last checkpoint is a good one.
    """
    bad = [f"{name} = {_describe(value)}" for name, value in values.items() if not _is_finite(value)]
    if bad:
        raise NonFiniteError(
            f"step {step}, {where}: not finite: {', '.join(bad)}. The last checkpoint is kept; "
            "resume from it with a lower learning rate, or look at the data of this step."
        )


def _is_finite(value: Any) -> bool:
    if isinstance(value, torch.Tensor):
        return bool(torch.isfinite(value).all()) if value.is_floating_point() else True
    if isinstance(value, float):
        return math.isfinite(value)
    return True


def _describe(value: Any) -> str:
    if isinstance(value, torch.Tensor):
        count = int((~torch.isfinite(value)).sum())
        return f"{count} of {value.numel()} values in a tensor of shape {list(value.shape)}"
    return str(value)
