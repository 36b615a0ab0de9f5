"""The chain's attention written down with an explicit [A, T + (j-1) A] mask: what `chain_attention` must equal."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from openrlhf_mtp.heads.grid import AnchorGrid


def chain_attention_reference(
    query: Tensor,
    keys: Sequence[Tensor],
    values: Sequence[Tensor],
    grid: AnchorGrid,
    scale: float,
    kept: object = None,
) -> Tensor:
    """Arguments and result as in `chain_attention`."""
    groups = query.shape[1] // keys[0].shape[1]
    anchor, position = grid.position[:, None, :, None], torch.arange(keys[0].shape[2], device=query.device)
    segment = grid.segment_ids.gather(1, grid.position)[:, None, :, None]
    seen = (position <= anchor) & (grid.segment_ids[:, None, None, :] == segment)
    diagonal = torch.eye(query.shape[2], dtype=torch.bool, device=query.device).expand(*seen.shape[:3], -1)
    mask = torch.cat([seen, *[diagonal] * (len(keys) - 1)], dim=-1)
    key = torch.cat(list(keys), dim=2).repeat_interleave(groups, dim=1)
    value = torch.cat(list(values), dim=2).repeat_interleave(groups, dim=1)
    scores = (query @ key.mT * scale).masked_fill(~mask, float("-inf"))
    return scores.to(torch.promote_types(query.dtype, torch.float32)).softmax(-1).to(value.dtype) @ value
