"""The regimes that `bench.step` compares, and the policy and batch that all of them train on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

PLAIN = "no head"
FIXED, OCC = "joint_policy, fixed", "joint_policy, occ"
DETACH = "detach"
ALL_ANCHORS, ONE_PIECE = "detach, all anchors", "detach, all anchors, one piece"
"""The chain of a long batch in parts, and the same chain in one piece."""


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
        chosen: names of the forms to measure beside the one without a head; none are all of them.
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
    chosen: tuple[str, ...] = ()

    def forms(self) -> dict[str, dict[str, Any] | None]:
        """Name -> `mtp:` section; None has no head."""
        common = {"depths": self.depths, "anchor_fraction": self.fraction}
        joint = {**common, "regime": "joint_policy"}
        every = {
            PLAIN: None,
            "frozen": {**common, "regime": "frozen"},
            DETACH: {**common, "regime": "detach"},
            ALL_ANCHORS: {"depths": self.depths, "regime": "detach"},
            ONE_PIECE: {"depths": self.depths, "regime": "detach"},
            FIXED: {**joint, "coefficient": {"kind": "fixed", "value": 0.1}},
            OCC: {**joint, "coefficient": {"kind": "occ"}},
        }
        chosen = self.chosen or tuple(name for name in every if name != ONE_PIECE or self.is_long)
        return {name: section for name, section in every.items() if name in (PLAIN, *chosen)}

    @property
    def is_long(self) -> bool:
        """Whether the chain of a micro-batch is run in parts."""
        from openrlhf_mtp.heads.head import PART

        return self.sequences * (self.prompt + self.response) > PART
