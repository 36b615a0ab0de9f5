"""The head: a chain of depths over one block, or over several that take turns.

At anchor i (depth counted from 1, z^0_i = h_i):

    z^j_i = block(hidden = z^{j-1}_i, embedding = emb(x_{i+j})),  RoPE position of x_i plus j - 1

z^j_i gives the logits of q^j_i (through the policy's output head) and is the next depth's hidden input.

Several blocks. Depth j takes block (j - 1) % n, and *every* block computes its keys and values from *every* depth's
inputs; only the active block's output goes on. The engine cannot do otherwise: a block has a cache of its own, which
must hold depth 1's keys of all positions and the chain's own keys when the block's turn comes. Both sides follow this
rule exactly (`rollout.draft_model`); training leaves out only keys that no later depth reads.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from openrlhf_mtp.heads.block import MTPBlock, Rotation
from openrlhf_mtp.heads.config import HeadConfig


class _Rotary:
    """The family's rotary embedding, kept out of the module tree: a `.bfloat16()` of the head (DeepSpeed does one)
    must not round the frequencies, which the engine keeps in float32."""

    def __init__(self, config: HeadConfig) -> None:
        with torch.device("cpu"):
            self._embedding = config.family.hf_rotary_class()(config.model)

    def __call__(self, like: Tensor, positions: Tensor) -> Rotation:
        cos, sin = self._embedding(like, positions)
        return cos, sin


class MTPHead(nn.Module):
    """Blocks that compute the chain's hidden states. Embedding and output head stay with the policy."""

    def __init__(self, config: HeadConfig) -> None:
        super().__init__()
        self.config = config
        self.blocks = nn.ModuleList(MTPBlock(config.family, config.model) for _ in range(config.num_layers))
        self._rotary = _Rotary(config)

    def forward(
        self,
        hidden: Tensor,
        next_embeddings: Sequence[Tensor],
        position_ids: Tensor,
        segment_ids: Tensor,
        depths: int,
    ) -> list[Tensor]:
        """Run the chain at every anchor.

        Args:
            hidden: the policy's last hidden states after its final norm [B, T, H].
            next_embeddings: item j - 1 holds the embedding of x_{i+j} at anchor i, [B, T, H] each; at least `depths`.
            position_ids: position of each token in its own sample [B, T].
            segment_ids: equal and nonzero within a sample, 0 for padding [B, T]. Padding may hold anything.
            depths: k.

        Returns:
            z^1 ... z^k, [B, T, H] each, in the head's dtype.
        """
        assert len(next_embeddings) >= depths, f"{len(next_embeddings)} embeddings for {depths} depths"
        dtype = self.blocks[0].proj.weight.dtype
        padding = (segment_ids == 0)[..., None]
        state = hidden.to(dtype).masked_fill(padding, 0.0)
        states: list[Tensor] = []
        keys: list[list[Tensor]] = [[] for _ in self.blocks]
        values: list[list[Tensor]] = [[] for _ in self.blocks]
        for depth in range(1, depths + 1):
            embedding = next_embeddings[depth - 1].to(dtype).masked_fill(padding, 0.0)
            rotation = self._rotary(state, position_ids + depth - 1)
            active = (depth - 1) % len(self.blocks)
            for n, block in enumerate(self.blocks):
                if not self._is_read_later(n, depth, depths):
                    continue
                x, normed = block.mix(state, embedding)
                key, value = block.key_value(normed, rotation)
                keys[n].append(key)
                values[n].append(value)
                if n == active:
                    query = block.query(normed, rotation)
                    output = block.finish(x, query, keys[n], values[n], segment_ids)
            state = output
            states.append(state)
        return states

    def _is_read_later(self, block: int, depth: int, depths: int) -> bool:
        """Whether this block is active at this depth or a later one, so that its keys of this depth are read."""
        return any((later - 1) % len(self.blocks) == block for later in range(depth, depths + 1))
