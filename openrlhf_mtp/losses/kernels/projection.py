"""From hidden states to logits, chunk after chunk in the same memory."""

from __future__ import annotations

import torch
from torch import Tensor

CHUNK_LOGITS = 2**26
"""Draft logits of one chunk, over all depths: 256 MiB in float32, and a third of that again for the targets. The output
head is read again for each chunk: half the size takes a tenth longer on a CPU, twice the size a tenth less."""


class Scratch:
    """Memory for the logits of one chunk, which the next chunk uses again.

    A CPU's allocator hands tensors of this size back to the system, which clears new pages for the next one: 3 to 6 ns
    a number, where projecting 1,024 hidden units takes 25.
    """

    def __init__(self) -> None:
        self._memory: Tensor | None = None

    def take(self, rows: int, columns: int, like: Tensor) -> Tensor:
        """Uninitialized [rows, columns] of the type and on the device of `like`; overwrites what was taken before."""
        if self._memory is None or self._memory.numel() < rows * columns:
            self._memory = None  # freed first: the two must not be there at once
            self._memory = like.new_empty(rows * columns)
        return self._memory[: rows * columns].view(rows, columns)


def project(states: Tensor, weight: Tensor, temperature: float, scratch: Scratch) -> Tensor:
    """states @ weight.T / temperature: [R, H], [V, H] -> [R, V] in the weight's type; a constant, in `scratch`."""
    with torch.no_grad():
        logits = scratch.take(len(states), len(weight), weight)
        torch.mm(states.to(weight.dtype), weight.t(), out=logits)
        return logits if temperature == 1.0 else logits.div_(temperature)
