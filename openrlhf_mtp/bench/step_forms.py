"""The regimes that `bench.step` compares, and the policy and batch that all of them train on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

PLAIN = "no head"
FIXED, OCC = "joint_policy, fixed", "joint_policy, occ"
DETACH = "detach"


@dataclass(frozen=True)
class Workload:
    """The trunk and the batch that every form trains on.

    Attributes:
        layers, hidden, vocab: size of the trunk (Qwen2, four times as wide inside, 64 to a head).
        sequences: in a micro-batch.
        prompt, response: tokens of each sequence.
        micro_batches: in an optimizer step.
        depths: depths k.
        fraction: share of the anchors in the forms that name none.
        repeats: timed steps of each form.
    """

    layers: int = 24
    hidden: int = 1024
    vocab: int = 32_768
    sequences: int = 4
    prompt: int = 32
    response: int = 128
    micro_batches: int = 1
    depths: int = 3
    fraction: float = 0.25
    repeats: int = 5

    def forms(self) -> dict[str, dict[str, Any] | None]:
        """Name -> `mtp:` section; None has no head."""
        common = {"depths": self.depths, "anchor_fraction": self.fraction}
        joint = {**common, "regime": "joint_policy"}
        return {
            PLAIN: None,
            "frozen": {**common, "regime": "frozen"},
            DETACH: {**common, "regime": "detach"},
            "detach, all anchors": {"depths": self.depths, "regime": "detach"},
            FIXED: {**joint, "coefficient": {"kind": "fixed", "value": 0.1}},
            OCC: {**joint, "coefficient": {"kind": "occ"}},
        }
