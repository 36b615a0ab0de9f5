"""The policy's moving average (`train.enable_ema`) in float32 on the host. Checked on openrlhf 0.11.2.

OpenRLHF averages in the model's own type. bfloat16 has 8 bits, and with a weight of 0.992 for the average so far an
update adds less than half of the last one: the average stays where it started. Under ZeRO-3 OpenRLHF writes into
gathered parameters, and DeepSpeed 0.19.6 raises. Here the average is kept in float32, and the model that is saved holds
its rounded values; under ZeRO-3 each rank averages its own shard of each parameter.
"""

from __future__ import annotations

from collections.abc import Iterable
from types import ModuleType
from typing import TYPE_CHECKING, Any

from openrlhf_mtp.upstream.patching import Patch

if TYPE_CHECKING:  # every worker of Ray imports this module, and few of them torch
    from torch import Tensor, nn


class Float32Average:
    """An exponential average of tensors, in float32 on the host.

    Args:
        start: the tensors as they are before the first update.
    """

    def __init__(self, start: Iterable[Tensor]) -> None:
        self.values = [tensor.detach().float().cpu().clone() for tensor in start]

    def update(self, now: Iterable[Tensor], beta: float) -> None:
        """a <- beta a + (1 - beta) x, for each average a and tensor x."""
        for average, tensor in zip(self.values, now, strict=True):
            average.lerp_(tensor.detach().float().cpu(), 1.0 - beta)


def own_part(parameter: Any) -> Tensor:
    """This rank's shard of a parameter under ZeRO-3, else all of it."""
    part: Tensor = parameter.ds_tensor if hasattr(parameter, "ds_tensor") else parameter.data
    return part


def write(parameter: Any, value: Tensor) -> None:
    """Replace this rank's part; a parameter that ZeRO-3 holds whole is sharded again, so that its old value goes."""
    own_part(parameter).copy_(value)
    if hasattr(parameter, "ds_tensor") and parameter.ds_status.name == "AVAILABLE":
        parameter.partition()


class _Averages:
    """The averages of this process, by the model that holds their rounded values."""

    def __init__(self) -> None:
        self._of: dict[int, Float32Average] = {}

    def update(self, model: nn.Module, kept: nn.Module, beta: float) -> None:
        """After an optimizer step of `model`."""
        pairs = [
            (trained, average)
            for trained, average in zip(model.parameters(), kept.parameters(), strict=True)
            if trained.requires_grad
        ]
        if not pairs or not _is_needed(pairs[0][0]):
            return
        found = self._of.get(id(kept))
        if found is None:
            found = self._of[id(kept)] = Float32Average(own_part(average) for _, average in pairs)
        found.update((own_part(trained) for trained, _ in pairs), beta)
        for (_, average), value in zip(pairs, found.values, strict=True):
            write(average, value)


def _is_needed(parameter: Any) -> bool:
    """Whether this rank's average is saved: a shard always is, a whole model only by rank 0."""
    import torch.distributed as dist

    return hasattr(parameter, "ds_tensor") or not dist.is_initialized() or dist.get_rank() == 0


def _average_in_float32(module: ModuleType) -> None:
    averages = _Averages()

    def moving_average_in_float32(
        self: Any, model: nn.Module, model_ema: nn.Module, beta: float = 0.992, device: str = "cpu"
    ) -> None:
        averages.update(model, model_ema, beta)

    module.DeepspeedStrategy.moving_average = moving_average_in_float32


def _is_live(module: ModuleType) -> bool:
    return bool(module.DeepspeedStrategy.moving_average.__name__ == "moving_average_in_float32")


PATCH = Patch(
    name="moving average in float32",
    target="openrlhf.utils.deepspeed.deepspeed",
    touches=("DeepspeedStrategy.moving_average",),
    reason="in bfloat16 the policy's average stays where it started, and DeepSpeed raises under ZeRO-3",
    versions="openrlhf 0.11.2, deepspeed 0.19.6",
    apply=_average_in_float32,
    probe=_is_live,
)
