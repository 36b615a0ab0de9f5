"""The head: a chain of depths over one block, or over several that take turns.

At anchor i (depth counted from 1, z^0_i = h_i):

    z^j_i = block(hidden = z^{j-1}_i, embedding = emb(x_{i+j})),  RoPE position of x_i plus j - 1

z^j_i gives the logits of q^j_i (through the policy's output head) and is the next depth's hidden input.

Several blocks. Depth j takes block (j - 1) % n, and *every* block computes its keys and values from *every* depth's
inputs; only the active block's output is passed on. The engine cannot do otherwise: a block has its own cache, which
must hold depth 1's keys of all positions and the chain's own keys when the block's turn comes. Both sides follow this
rule exactly (`rollout.draft_model`); training leaves out only keys that no later depth reads.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from openrlhf_mtp.heads.block import MTPBlock, Rotation
from openrlhf_mtp.heads.grid import AnchorGrid
from openrlhf_mtp.heads.head_config import HeadConfig
from openrlhf_mtp.heads.hf_classes import rotary_class


class _Rotary:
    """The family's rotary embedding, kept out of the module tree: a `.bfloat16()` of the head (DeepSpeed does one)
    must not round the frequencies, which the engine keeps in float32."""

    def __init__(self, config: HeadConfig) -> None:
        with torch.device("cpu"):
            self._embedding = rotary_class(config.family)(config.model)

    def __call__(self, like: Tensor, positions: Tensor) -> Rotation:
        cos, sin = self._embedding(like, positions)
        return cos, sin


class MTPHead(nn.Module):
    """Blocks that compute the chain's hidden states. Embedding and output head stay with the policy."""

    def __init__(self, config: HeadConfig) -> None:
        super().__init__()
        self.config = config
        blocks = nn.ModuleList(MTPBlock(config.family, config.model) for _ in range(config.num_blocks))
        self.blocks = cast(Sequence[MTPBlock], blocks)
        self._rotary = _Rotary(config)

    def forward(
        self,
        hidden: Tensor,
        next_embeddings: Sequence[Tensor],
        position_ids: Tensor,
        segment_ids: Tensor,
        depths: int,
        anchor_index: Tensor | None = None,
    ) -> list[Tensor]:
        """Run the chain at every position, or at chosen anchors.

        Args:
            hidden: the policy's last hidden states [B, T, H], after its final norm unless `wiring.reads_unnormed`.
            next_embeddings: item j - 1 holds the embedding of x_{i+j} at anchor i; at least `depths` items. The first
                is needed at every position [B, T, H], the others at the anchors [B, A, H].
            position_ids: position of each token in its own sample [B, T].
            segment_ids: equal and nonzero within a sample, 0 for padding [B, T]. Padding may hold anything.
            depths: k.
            anchor_index: positions of the anchors, ascending [B, A]; rows with fewer repeat any of the row's positions.
                A may be 0. None: every position is an anchor, A = T.

        Returns:
            z^1 ... z^k, [B, A, H] each, in the head's dtype.
        """
        assert len(next_embeddings) >= depths, f"{len(next_embeddings)} embeddings for {depths} depths"
        grid = AnchorGrid(segment_ids, anchor_index)
        wiring, dtype = self.config.wiring, self.blocks[0].proj.weight.dtype
        padding, positions = (segment_ids == 0)[..., None], position_ids
        state = hidden.to(dtype).masked_fill(padding, 0.0)
        states: list[Tensor] = []
        keys: list[list[Tensor]] = [[] for _ in self.blocks]
        values: list[list[Tensor]] = [[] for _ in self.blocks]
        for depth in range(1, depths + 1):
            rope_positions = positions + depth - 1
            unread = padding | (rope_positions == 0)[..., None] if wiring.hides_first_token else padding
            embedding = next_embeddings[depth - 1].to(dtype).masked_fill(unread, 0.0)
            rotation = self._rotary(state, rope_positions)
            active = (depth - 1) % len(self.blocks)
            for n, block in enumerate(self.blocks):
                if not self._is_read_later(n, depth, depths):
                    continue
                mixed = block.mix(state, embedding)
                key, value = block.key_value(mixed[1], rotation)
                keys[n].append(key)
                values[n].append(value)
                if n == active:
                    x, normed = mixed
            if depth == 1:
                # keys are computed at every position; the rest, queries included, at the anchors
                x, normed, positions, padding = (grid.at(t) for t in (x, normed, positions, padding))
                rotation = grid.at(rotation[0]), grid.at(rotation[1])
            block = self.blocks[active]
            output = block.finish(x, normed, rotation, keys[active], values[active], grid)
            z = block.final_norm(output)
            state = output if wiring.chains_unnormed else z
            states.append(z)
        return states

    def _is_read_later(self, block: int, depth: int, depths: int) -> bool:
        """Whether this block is active at this depth or a later one, so that its keys of this depth are read."""
        return any((later - 1) % len(self.blocks) == block for later in range(depth, depths + 1))
