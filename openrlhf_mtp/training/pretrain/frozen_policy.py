"""The policy of the pre-RL stage, which only reads it: whole on every rank, or under ZeRO-3 a share of each layer.

Embedding, output head and final norm are used in every loss and are whole on each rank in both cases. A sharded
policy's forward pass is a collective: either all ranks make one at the same point, or none does (`spares_all`).
"""

from __future__ import annotations

from typing import Any

import deepspeed
import torch
from torch import Tensor

from openrlhf_mtp.training.observed_policy import ObservedPolicy
from openrlhf_mtp.training.pretrain.batches import Batch
from openrlhf_mtp.training.reduce import all_reduce_sum
from openrlhf_mtp.training.trunk import unwrapped


class FrozenPolicy:
    """The policy as one rank holds it.

    Args:
        strategy: OpenRLHF's DeepSpeed strategy; the process group is up.
        folder: the policy's folder.

    Attributes:
        is_sharded: whether the layers are shared out over the ranks (ZeRO-3, more than one rank).
        trunk: the parts that the head shares, whole.
    """

    def __init__(self, strategy: Any, folder: str) -> None:
        self.is_sharded = strategy.stage == 3 and strategy.world_size > 1
        self.device = torch.device(torch.cuda.current_device())
        config = strategy.get_ds_eval_config() if self.is_sharded else None
        self.actor = ObservedPolicy(
            folder,
            attn_implementation=strategy.args.ds.attn_implementation,
            param_dtype=strategy.args.ds.param_dtype,
            ds_config=config,
        )
        self.actor.requires_grad_(False).eval()
        self.trunk = self.actor.trunk()
        if self.is_sharded:
            self.trunk = self.trunk.whole()
            body = unwrapped(self.actor.model).base_model
            # its hooks gather each layer for its own pass; the output head has none and stays a share
            self._engine, *_ = deepspeed.initialize(model=body, config=config, dist_init_required=True)
        else:
            self.actor.to(self.device)

    @torch.no_grad()
    def states(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """A forward pass (collective when sharded): hidden states as the head reads them, and after the final norm
        [B, T, H]."""
        return self.actor.hidden_states(batch.sequences.to(self.device), batch.attention_mask.to(self.device))

    @torch.no_grad()
    def normed(self, read: Tensor) -> Tensor:
        """Hidden states after the final norm [B, T, H], from those that the head reads."""
        normed: Tensor = self.trunk.final_norm(read) if self.actor.reads_unnormed else read
        return normed

    def spares_all(self, *, here: bool) -> bool:
        """Whether no forward pass is needed: on this rank (`here`), or when sharded on any rank (collective then)."""
        if not self.is_sharded:
            return here
        return float(all_reduce_sum(torch.tensor(0.0 if here else 1.0))) == 0.0
