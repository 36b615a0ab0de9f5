"""Reverse Kullback-Leibler divergence from the draft to the policy.

    L = KL(q^j || p) = sum_v q_v (log q_v - log p_v)     gradient: q_v (log q_v - log p_v - L)

Seeks a mode: mass of q where p has none is expensive, mass of p that q misses is free, so a small head drafts fewer
tokens but drafts them with confidence (compared in Bebop, arXiv 2606.12370, section 4). It fails on a cold head: the
gradient carries a factor q_v, so a token the head never drafts is never learned, and p close to 0 makes the loss large
and noisy. Counts every depth inside the mask.
"""

from __future__ import annotations

from openrlhf_mtp.losses.types import ObjectiveInput, ObjectiveOutput, mean_over_depths


def reverse_kl(inputs: ObjectiveInput) -> ObjectiveOutput:
    """Mean over counted (anchor, depth) pairs of KL(q || p), in nats."""
    return mean_over_depths(inputs.reverse_kl, inputs)
