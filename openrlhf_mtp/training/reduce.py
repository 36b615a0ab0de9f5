"""Sums and lists over the ranks of the trainer."""

from __future__ import annotations

from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

T = TypeVar("T")


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


def all_gather_objects(value: T) -> list[T]:
    """Each rank's value, on every rank (collective); pickled on the way."""
    if not dist.is_initialized():
        return [value]
    values: list[T | None] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values  # type: ignore[return-value]  # none is None any more
