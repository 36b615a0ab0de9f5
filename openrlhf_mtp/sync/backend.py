"""Which transport a job can use: NCCL needs a GPU of its own for every rank, gloo goes through host memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch

CPU = "cpu"


def device_id(device: torch.device) -> str:
    """A name equal on all processes that use the same device: "cpu" or the GPU's UUID."""
    if device.type == "cpu":
        return CPU
    return str(torch.cuda.get_device_properties(device).uuid)


def is_own(asked: bool) -> bool:
    """Whether this process sends or receives weights by `openrlhf_mtp.sync`, and not by OpenRLHF's own means.

    A head needs it, and so do LoRA adapters, which OpenRLHF sends under names that no engine knows (`asked`). On a host
    without CUDA it serves every job, because OpenRLHF's broadcasts and shared handles are CUDA's.
    """
    return asked or not torch.cuda.is_available()


def choose_backend(
    requested: Literal["auto", "nccl", "gloo"], trainer: str, engines: Sequence[str]
) -> Literal["nccl", "gloo"]:
    """The transport for `mtp.sync.backend`, from the `device_id` of the trainer's rank 0 and of the engines.

    Raises ValueError when NCCL is asked for and cannot work.
    """
    devices = [trainer, *engines]
    if CPU in devices:
        obstacle = "the trainer or an engine runs without a GPU"
    elif len(set(devices)) < len(devices):
        obstacle = "two of them share a GPU, which NCCL refuses"
    else:
        return "gloo" if requested == "gloo" else "nccl"
    if requested == "nccl":
        raise ValueError(f"mtp.sync.backend: nccl cannot be used because {obstacle}; use auto or gloo")
    return "gloo"
