"""As much of a DeepSpeed engine as `HeadTrainer` asks for, around a plain AdamW."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from openrlhf_mtp.heads.head import MTPHead

if TYPE_CHECKING:  # needs pydantic, which a new GPU machine may not have
    from openrlhf_mtp.config.settings.pretrain import HeadOptim


class PlainEngine:
    """One process, AdamW with clipping, in the head's own precision; for measurements and for studies of many heads.

    Args:
        head: trained in place.
        optim: its rates, and the norm that gradients are clipped to.
        share: of the learning rate by step, counted from 0; without it the rate is the caller's.
    """

    def __init__(self, head: MTPHead, optim: HeadOptim, share: Callable[[int], float] | None = None) -> None:
        self.head, self.max_norm = head, optim.max_norm
        self.optimizer = torch.optim.AdamW(
            head.parameters(), lr=optim.lr, betas=optim.betas, eps=optim.eps, weight_decay=optim.weight_decay
        )
        self.schedule = share and torch.optim.lr_scheduler.LambdaLR(self.optimizer, share)
        self.gradient_norm = 0.0

    def __call__(self, *inputs: Any) -> list[Tensor]:
        """The chain's hidden states."""
        states: list[Tensor] = self.head(*inputs)
        return states

    def managed_gradient_accumulation(self) -> bool:
        """Every call of `step` is an optimizer step."""
        return False

    def backward(self, loss: Tensor) -> None:
        """Add the loss's gradient."""
        loss.backward()

    def step(self) -> None:
        """Clip, update, clear."""
        self.gradient_norm = float(nn.utils.clip_grad_norm_(self.head.parameters(), self.max_norm))
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self.schedule is not None:
            self.schedule.step()

    def get_global_grad_norm(self) -> float:
        """The gradient norm of the last step, before clipping."""
        return self.gradient_norm
