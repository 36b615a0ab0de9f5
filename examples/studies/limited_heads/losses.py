"""What an arm minimizes: the product's objectives, and SkyRL's cross-entropy over the policy's top tokens.

SkyRL (pull request 1832, `mtp/soft_ce.py`) keeps the k most probable tokens of the policy and normalizes both
distributions over them:

    L = -sum_{v in top-k} p~_v log q~_v,    p~, q~: p and q normalized over the top k of p

Whatever the head puts on other tokens costs nothing. At k = 256 that is an eighth of this vocabulary; theirs has 248k.
"""

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn.functional import embedding, linear

from openrlhf_mtp.losses.kl import kl
from openrlhf_mtp.losses.mtp_loss import MTPLossOutput, OutputHead, mtp_loss
from openrlhf_mtp.losses.targets import from_hidden
from openrlhf_mtp.training.head_batch import HeadBatch
from openrlhf_mtp.training.head_trainer import HeadTrainer


def top_k_cross_entropy(draft: Tensor, target: Tensor, k: int) -> Tensor:
    """Soft cross-entropy over the target's k highest logits, both sides normalized over them.

    Args:
        draft: logits [R, V].
        target: logits of the policy, a constant [R, V].
        k: number of tokens kept.

    Returns:
        Nats of each row [R].
    """
    kept, columns = target.topk(min(k, target.shape[-1]), dim=-1)
    log_q = draft.gather(-1, columns).log_softmax(-1)
    return -(kept.softmax(-1) * log_q).sum(-1)


class TopKTrainer(HeadTrainer):
    """A head trainer that minimizes the top-k cross-entropy; all that it measures is the product's."""

    k = 256

    def loss(
        self, batch: HeadBatch, *, anchor_seed: int | None = None, row_weight: Tensor | None = None
    ) -> MTPLossOutput:
        """The loss of a micro-batch whose anchors are all taken and weigh the same."""
        assert row_weight is None, "this arm does not weigh rows"
        anchors = batch.anchors(self.depths, fraction=1.0, seed=0)
        module = self.head if self.engine is None else self.engine
        weight = self.trunk.output_head.weight.detach()
        states = module(
            batch.hidden,
            [embedding(tokens, self.trunk.embedding.weight.detach()) for tokens in anchors.reads],
            batch.position_ids,
            batch.segment_ids,
            self.depths,
            anchors.grid,
        )
        measured = mtp_loss(
            [state.detach() for state in states],
            anchors,
            from_hidden(batch.hidden, weight, self.temperature),
            OutputHead.of(weight, self.temperature),
            kl,
        )
        draft = linear(anchors.flat(torch.stack(states, dim=2)), weight) / self.temperature
        target = linear(batch.hidden.flatten(0, 1)[anchors.target_index], weight) / self.temperature
        by_depth = top_k_cross_entropy(draft.flatten(0, 1), target.flatten(0, 1), self.k).view(
            draft.shape[:2]
        )
        counted = by_depth.masked_fill(~anchors.mask, 0.0)
        sums = measured.sums._replace(
            loss_sum=counted.sum() / self.depths, depth_loss_sum=counted.detach().sum(0)
        )
        return replace(measured, sums=sums)
