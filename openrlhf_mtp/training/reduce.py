"""Sums over the ranks of the trainer."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor


def all_reduce_sum(sums: Tensor) -> Tensor:
    """`sums` added up over all ranks of the default group, on the device it came from (collective).

    NCCL reduces tensors of a GPU only. Without a process group, `sums` itself.
    """
    if not dist.is_initialized():
        return sums
    moved = sums.to("cuda" if torch.cuda.is_available() else "cpu", copy=True)
    dist.all_reduce(moved)
    return moved.to(sums.device)
