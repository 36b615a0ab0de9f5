"""The head's moving average, beside OpenRLHF's of the policy (`train.enable_ema`).

The averaged policy is then exported at the end, and a head trained on the other one would draft worse for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from openrlhf_mtp.heads.head import MTPHead
from openrlhf_mtp.upstream.openrlhf.moving_average import Float32Average


class HeadAverage:
    """An exponential average of a head's parameters, in float32 on the CPU.

    Args:
        head: whose parameters are averaged, from as they are now.
        beta: weight of the average so far at each update (`train.ema_beta`).
    """

    def __init__(self, head: MTPHead, beta: float) -> None:
        self.head, self.beta = head, beta
        self._average = Float32Average(head.parameters())

    def update(self) -> None:
        """After an optimizer step."""
        self._average.update(self.head.parameters(), self.beta)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Within this context the head's parameters are the average."""
        trained = [parameter.detach().clone() for parameter in self.head.parameters()]
        self._write(self._average.values)
        try:
            yield
        finally:
            self._write(trained)

    @torch.no_grad()
    def _write(self, values: list[torch.Tensor]) -> None:
        for parameter, value in zip(self.head.parameters(), values, strict=True):
            parameter.copy_(value)
