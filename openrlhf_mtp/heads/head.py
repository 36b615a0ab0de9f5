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
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn

from openrlhf_mtp.heads.block import MTPBlock, Rotation
from openrlhf_mtp.heads.grid import AnchorGrid
from openrlhf_mtp.heads.head_config import HeadConfig
from openrlhf_mtp.heads.hf_classes import rotary_class
from openrlhf_mtp.heads.parts import Part, joined, parts
from openrlhf_mtp.heads.recompute import Kept, recomputed

PART = 2048
"""Anchors, or positions, whose intermediate results may exist at once. More are run in parts, each of which is computed
again in backward: a part keeps its inputs and its attention instead of ten times as much (`recompute`)."""


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
    """Blocks that compute the chain's hidden states. Embedding and output head stay with the policy.

    Attributes:
        part: the most anchors or positions that are run at once, `PART`.
    """

    def __init__(self, config: HeadConfig) -> None:
        super().__init__()
        self.config = config
        blocks = nn.ModuleList(MTPBlock(config.family, config.model) for _ in range(config.num_blocks))
        self.blocks = cast(Sequence[MTPBlock], blocks)
        self._rotary = _Rotary(config)
        self.part = PART

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
        padding = (segment_ids == 0)[..., None]
        everywhere = (hidden, next_embeddings[0], position_ids, padding)
        x, normed, *cache = self._at_every_position(everywhere, depths)
        anchored = [grid.at(t) for t in (x, normed, position_ids, padding)]
        return self._at_the_anchors(grid, [*anchored, *next_embeddings[1:depths]], cache, depths)

    def _at_every_position(self, inputs: Sequence[Tensor], depths: int) -> list[Tensor]:
        """Depth 1 as far as later depths read it: -> x and normed of its block [B, T, H], and the keys, then the values
        of each block that is read [B, K, T, D]."""
        cuts = parts(inputs[0].shape[:2], self.part)
        function = partial(self._first_depth, depths)
        if _is_one(cuts):
            return list(function(None, *inputs))
        found = [[recomputed(function, *(t[cut] for t in inputs)) for cut in row] for row in cuts]
        return [
            joined([[part[n] for part in row] for row in found], dim=1 if n < 2 else 2)
            for n in range(len(found[0][0]))
        ]

    def _at_the_anchors(
        self, grid: AnchorGrid, anchored: Sequence[Tensor], cache: Sequence[Tensor], depths: int
    ) -> list[Tensor]:
        """The chains of all anchors, a part of them at a time: inputs [B, A, ...] and keys and values [B, K, T, D] as
        `_chain` takes them -> z^1 ... z^k, [B, A, H] each."""
        cuts = parts(grid.position.shape, self.part)
        if _is_one(cuts):
            return list(self._chain(grid, depths, None, *anchored, *cache))
        found = [
            [
                recomputed(
                    partial(self._chain, grid.part(*cut), depths),
                    *(t[cut] for t in anchored),
                    *(t[cut[0]] for t in cache),
                )
                for cut in row
            ]
            for row in cuts
        ]
        return [joined([[part[n] for part in row] for row in found], dim=1) for n in range(depths)]

    def _first_depth(
        self,
        depths: int,
        kept: Kept | None,
        hidden: Tensor,
        embedding: Tensor,
        positions: Tensor,
        padding: Tensor,
    ) -> tuple[Tensor, ...]:
        """Compute `_at_every_position` of a part."""
        state = hidden.to(self._dtype).masked_fill(padding, 0.0)
        embedding, rotation = self._read(embedding, positions, padding)
        mixed = [self.blocks[n].mix(state, embedding) for n in self._blocks_read(1, depths)]
        cache = [
            self.blocks[n].key_value(normed, rotation)
            for n, (_, normed) in zip(self._blocks_read(1, depths), mixed, strict=True)
        ]
        return *mixed[0], *(key for key, _ in cache), *(value for _, value in cache)

    def _chain(
        self,
        grid: AnchorGrid,
        depths: int,
        kept: Kept | None,
        x: Tensor,
        normed: Tensor,
        positions: Tensor,
        padding: Tensor,
        *embeddings_and_cache: Tensor,
    ) -> tuple[Tensor, ...]:
        """Depths 1 ... k at anchors, from depth 1's input, its normed form, and the keys and values of every position.

        Args:
            grid: the anchors.
            depths: k.
            kept: holds the attention for a second run.
            x, normed: of depth 1's block at the anchors [B, A, H].
            positions, padding: of the anchors [B, A], [B, A, 1].
            embeddings_and_cache: of depths 2 ... k [B, A, H], then depth 1's keys of each block, then its values
                [B, K, T, D].
        """
        read = self._blocks_read(1, depths)
        embeddings, cache = embeddings_and_cache[: depths - 1], embeddings_and_cache[depths - 1 :]
        keys = {n: [key] for n, key in zip(read, cache[: len(read)], strict=True)}
        values = {n: [value] for n, value in zip(read, cache[len(read) :], strict=True)}
        rotation, state = self._rotary(x, positions), x  # depth 2's state is depth 1's output
        states: list[Tensor] = []
        for depth in range(1, depths + 1):
            active = (depth - 1) % len(self.blocks)
            if depth > 1:
                embedding, rotation = self._read(embeddings[depth - 2], positions + depth - 1, padding)
                for n in self._blocks_read(depth, depths):
                    mixed = self.blocks[n].mix(state, embedding)
                    key, value = self.blocks[n].key_value(mixed[1], rotation)
                    keys[n].append(key)
                    values[n].append(value)
                    if n == active:
                        x, normed = mixed
            block = self.blocks[active]
            output = block.finish(x, normed, rotation, keys[active], values[active], grid, kept)
            z = block.final_norm(output)
            state = output if self.config.wiring.chains_unnormed else z
            states.append(z)
        return tuple(states)

    @property
    def _dtype(self) -> torch.dtype:
        return self.blocks[0].proj.weight.dtype

    def _read(self, embedding: Tensor, positions: Tensor, padding: Tensor) -> tuple[Tensor, Rotation]:
        """The embedding that a depth reads, 0 where it must not look, and the rotation of its positions."""
        hides_first = self.config.wiring.hides_first_token
        unread = padding | (positions == 0)[..., None] if hides_first else padding
        embedding = embedding.to(self._dtype).masked_fill(unread, 0.0)
        return embedding, self._rotary(embedding, positions)

    def _blocks_read(self, depth: int, depths: int) -> list[int]:
        """The blocks that are active at this depth or a later one, so that their keys of this depth are read."""
        return [n for n in range(len(self.blocks)) if self._is_read_later(n, depth, depths)]

    def _is_read_later(self, block: int, depth: int, depths: int) -> bool:
        """Whether this block is active at this depth or a later one, so that its keys of this depth are read."""
        return any((later - 1) % len(self.blocks) == block for later in range(depth, depths + 1))


def _is_one(cuts: Sequence[Sequence[Part]]) -> bool:
    """Whether nothing was cut."""
    return len(cuts) <= 1 and all(len(row) == 1 for row in cuts)
