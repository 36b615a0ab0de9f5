"""Losses of the MTP head. One file an objective; a function and an entry here add one.

`alignment` is the only place that shifts, `mtp_loss` the only place that detaches the trunk, divides by the
temperature and cuts padded vocabulary rows off. Everything is a sum; the caller divides.
"""

from openrlhf_mtp.losses.ce import ce
from openrlhf_mtp.losses.e2e_tv import e2e_tv
from openrlhf_mtp.losses.kl import kl
from openrlhf_mtp.losses.tv import tv
from openrlhf_mtp.losses.types import Objective

OBJECTIVES: dict[str, Objective] = {"ce": ce, "kl": kl, "tv": tv, "e2e_tv": e2e_tv}
"""Name in `mtp.objective` -> objective."""
