"""Losses of the MTP head. One file an objective; a function and an entry here add one.

`alignment` says which token, state and mask belong to a depth, `kernels` sum over the vocabulary, `mtp_loss` puts both
together. The policy is a constant for all of them: the caller detaches it, and divides the sums that it gets.

| module | holds |
|---|---|
| `ce`, `kl`, `reverse_kl`, `tv`, `e2e_tv`, `nla`, `lk_hybrid` | one objective each |
| `mixture` | a weighted sum of objectives |
| `types` | the one input and the one output of every objective |
| `alignment`, `anchor_sampling` | depth j at anchor i; a random share of the anchors |
| `targets` | the policy's logits that drafts are compared with |
| `mtp_loss`, `kernels` | the loss of a batch, chunk by chunk; sums over the vocabulary |
| `acceptance`, `replayed_acceptance` | accepted drafts of two distributions; the engine's counters, predicted |
| `advantage` | weights of samples from their advantages |
"""

from openrlhf_mtp.losses.ce import ce
from openrlhf_mtp.losses.e2e_tv import e2e_tv
from openrlhf_mtp.losses.kl import kl
from openrlhf_mtp.losses.lk_hybrid import lk_hybrid
from openrlhf_mtp.losses.nla import nla
from openrlhf_mtp.losses.reverse_kl import reverse_kl
from openrlhf_mtp.losses.tv import tv
from openrlhf_mtp.losses.types import Objective

OBJECTIVES: dict[str, Objective] = {
    "ce": ce,
    "kl": kl,
    "reverse_kl": reverse_kl,
    "tv": tv,
    "e2e_tv": e2e_tv,
    "nla": nla,
    "lk_hybrid": lk_hybrid,
}
"""Name in `mtp.objective` -> objective."""
