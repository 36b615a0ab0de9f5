"""A random share of the anchors: reproducible, and the same however samples are padded or split.

`mtp.anchor_fraction` trains on a part of the anchors. The part is a function of the sample's own tokens and of the
seed, so that neither micro-batches nor ranks nor padding change it.
"""

from __future__ import annotations

import torch
from torch import Tensor

GOLDEN = 0.6180339887498949
"""Fractional part of the golden ratio: multiples of it fill [0, 1) most evenly."""


def sampled_positions(input_ids: Tensor, segment_ids: Tensor, fraction: float, seed: int) -> Tensor:
    """Sample positions of a batch, each with probability `fraction` over the seeds.

    Position i of a sample is taken when frac(phase + i * golden ratio) < fraction. The phase is a hash of the sample's
    tokens and of `seed`. Positions are spread evenly, which independent coins would not do.

    Args:
        input_ids: tokens [B, T].
        segment_ids: equal and nonzero within a sample, 0 for padding [B, T].
        fraction: probability of each position, in (0, 1).
        seed: of the choice; another one gives another choice.

    Returns:
        Bool [B, T]; what it says of padding means nothing.
    """
    position = torch.arange(input_ids.shape[1], device=input_ids.device).expand_as(segment_ids)
    position = position - _over_segment(position, segment_ids, "amin")
    terms = _mixed((input_ids + 1) * 0x9E3779B97F4A7C1 + position)
    digest = _over_segment(terms, segment_ids, "sum")
    digest = _mixed(digest + _mixed(torch.full_like(digest, seed + 1)))
    phase = (digest & (2**52 - 1)).double() / 2**52
    return (phase + position * GOLDEN) % 1.0 < fraction


def _over_segment(values: Tensor, segment_ids: Tensor, reduce: str) -> Tensor:
    """At each position the sum or the least of the values in its row's segment: [B, T], [B, T] -> [B, T]."""
    most = int(segment_ids.max()) if segment_ids.numel() else 0
    found = values.new_zeros(len(values), most + 1)
    found = found.scatter_reduce(1, segment_ids, values, reduce, include_self=False)
    return found.gather(1, segment_ids)


def _mixed(values: Tensor) -> Tensor:
    """Scramble 64-bit integers (the finalizer of splitmix64; Steele et al., OOPSLA 2014), modulo 2^64."""
    for shift, factor in ((30, -0x40A7B892E31B1A47), (27, -0x6B2FB644ECCEEE15)):
        values = (values ^ ((values >> shift) & (2 ** (64 - shift) - 1))) * factor
    return values ^ ((values >> 31) & (2**33 - 1))
