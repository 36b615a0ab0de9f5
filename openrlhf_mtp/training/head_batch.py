"""A micro-batch as the head sees it: tokens and masks, and the policy's forward pass on them as constants."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from openrlhf_mtp.losses.alignment import Anchors, find_anchors
from openrlhf_mtp.losses.packing import Packing
from openrlhf_mtp.losses.targets import Targets


@dataclass(frozen=True)
class HeadBatch:
    """One micro-batch, one sample a row, or packed, all samples in one row of T tokens. Whoever makes it detaches what
    comes from the policy.

    Attributes:
        sequences: token ids [B, T].
        attention_mask: 1 for tokens, 0 for padding on either side [B, T].
        action_mask: true where the token at that position was sampled by the policy [B, T].
        hidden: the policy's last hidden states [B, T, H] as the head reads them: after the final norm, or before it.
        targets: reads the policy's logits by index; None projects the hidden states, which must then be those after
            the norm.
        packing: of a packed micro-batch.
    """

    sequences: Tensor
    attention_mask: Tensor
    action_mask: Tensor
    hidden: Tensor
    targets: Targets | None = None
    packing: Packing | None = None

    def __post_init__(self) -> None:
        assert not self.hidden.requires_grad, "the head's batch holds constants of the policy"

    @property
    def segment_ids(self) -> Tensor:
        """Equal and nonzero within a sample, 0 for padding [B, T]."""
        return self.attention_mask.long() if self.packing is None else self.packing.sample[None] + 1

    @property
    def position_ids(self) -> Tensor:
        """Position of each token within its sample, from 0 [B, T]."""
        if self.packing is not None:
            return self.packing.position[None]
        return (self.segment_ids.cumsum(-1) - 1).clamp(min=0)

    def anchors(self, depths: int, *, fraction: float, seed: int) -> Anchors:
        """The anchors of a head step, the same whenever it asks; see `find_anchors`."""
        return find_anchors(
            self.sequences,
            self.action_mask,
            self.segment_ids,
            depths,
            fraction=fraction,
            seed=seed,
            packing=self.packing,
        )
