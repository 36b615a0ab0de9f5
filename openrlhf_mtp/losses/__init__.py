"""Losses of the MTP head. One file an objective; a function and an entry here add one.

`alignment` says which token, state and mask belong to a depth, `kernels` sum over the vocabulary, `mtp_loss` puts both
together. The policy is a constant for all of them: the caller detaches it, and divides the sums that it gets.
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
