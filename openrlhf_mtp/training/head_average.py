"""The head's moving average, beside OpenRLHF's of the policy (`train.enable_ema`).

The averaged policy is then exported at the end, and a head trained on the other one would draft worse for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from openrlhf_mtp.heads.head import MTPHead


class HeadAverage:
    """An exponential average of a head's parameters, in float32 on the CPU.

    Args:
        head: whose parameters are averaged, from as they are now.
        beta: weight of the average so far at each update (`train.ema_beta`).
    """

    def __init__(self, head: MTPHead, beta: float) -> None:
        self.head, self.beta = head, beta
        self._average = {name: p.detach().float().cpu().clone() for name, p in head.named_parameters()}

    @torch.no_grad()
    def update(self) -> None:
        """After an optimizer step."""
        for name, parameter in self.head.named_parameters():
            self._average[name].lerp_(parameter.detach().float().cpu(), 1.0 - self.beta)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Within this context the head's parameters are the average."""
        trained = {name: p.detach().clone() for name, p in self.head.named_parameters()}
        self._write(self._average)
        try:
            yield
        finally:
            self._write(trained)

    @torch.no_grad()
    def _write(self, values: dict[str, torch.Tensor]) -> None:
        for name, parameter in self.head.named_parameters():
            parameter.copy_(values[name])
