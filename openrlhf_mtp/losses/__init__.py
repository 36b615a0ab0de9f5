"""Losses of the MTP head: one file an objective; `config.objectives` says how to add one.

`alignment` says which token, state and mask belong to a depth, `kernels` sum over the vocabulary, `mtp_loss` puts both
together. The policy is a constant for all of them: the caller detaches it, and divides the sums that it gets.

| module | holds |
|---|---|
| `ce`, `kl`, `reverse_kl`, `tv`, `e2e_tv`, `e2e_tv_sampled`, `nla`, `lk_hybrid` | one objective each |
| `clipped_policy` | a policy loss on the head itself, for studies |
| `mixture` | a weighted sum of objectives |
| `types` | the one input and the one output of every objective |
| `alignment`, `anchor_sampling` | depth j at anchor i; a random share of the anchors |
| `packing` | the samples of a batch in one row |
| `targets` | the policy's logits that drafts are compared with, whole or cut to the likeliest tokens |
| `mtp_loss`, `kernels` | the loss of a batch, chunk by chunk; sums over the vocabulary |
| `acceptance`, `replayed_acceptance` | accepted drafts of two distributions; the engine's counters, predicted |
| `advantage` | weights of samples from their advantages |
"""

from importlib import import_module

from openrlhf_mtp.config import objectives
from openrlhf_mtp.losses.types import Objective

OBJECTIVES: dict[str, Objective] = {
    name: vars(import_module(f"{__name__}.{name}"))[name] for name in objectives.OBJECTIVES
}
"""Name in `mtp.objective` -> objective: the function `<name>` of `losses/<name>.py`, for each entry in `config`."""
