"""Attention of packed rows without flash-attention: each sample of a row attends to itself, causally, in plain torch.

OpenRLHF packs samples for flash-attention alone, which a CPU has not. With this function, registered under a name of
its own, its packed path runs in tests. It is no option of a job: OpenRLHF's validation would put flash-attention back,
and a CPU's micro-batches are small.
"""

from __future__ import annotations

from typing import Any

PACKED = "block_diagonal"


def register() -> str:
    """Make the function known to transformers in this process; returns its name."""
    from transformers import AttentionInterface

    AttentionInterface.register(PACKED, attend)
    return PACKED


def attend(
    module: Any,
    query: Any,
    key: Any,
    value: Any,
    attention_mask: Any,
    *,
    scaling: float,
    position_ids: Any,
    **_: Any,
) -> tuple[Any, None]:
    """Attention as transformers calls it: queries [1, N, P, D], keys and values [1, K, P, D] -> [1, P, N, D].

    A sample begins where a position is 0.
    """
    import torch

    assert attention_mask is None, "a packed row has no padding, and no mask"
    assert len(query) == 1, "packed samples lie in one row"
    starts = (position_ids[0] == 0).nonzero().flatten().tolist()
    lengths = [end - start for start, end in zip(starts, [*starts[1:], query.shape[2]], strict=True)]
    samples = zip(*(heads.split(lengths, dim=2) for heads in (query, key, value)), strict=True)
    attended = [
        torch.nn.functional.scaled_dot_product_attention(
            *sample, is_causal=True, scale=scaling, enable_gqa=True
        )
        for sample in samples
    ]
    return torch.cat(attended, dim=2).transpose(1, 2), None
