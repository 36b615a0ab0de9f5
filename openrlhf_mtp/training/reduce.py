"""Sums and lists over the ranks of the trainer."""

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


def all_gather_values(values: Tensor) -> Tensor:
    """The ranks' values one after another, on every rank; each rank may bring another number [n] (collective)."""
    if not dist.is_initialized():
        return values
    rank, sizes = dist.get_rank(), torch.zeros(dist.get_world_size(), dtype=torch.float64)
    sizes[rank] = len(values)
    ends = all_reduce_sum(sizes).long().cumsum(0).tolist()
    everyone = values.new_zeros(ends[-1])
    everyone[ends[rank] - len(values) : ends[rank]] = values
    return all_reduce_sum(everyone)
