"""The same loss in three forms for `bench.loss`: the head's states -> a mean loss to differentiate."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, linear

from openrlhf_mtp.bench.harness import UnavailableError
from openrlhf_mtp.losses import OBJECTIVES
from openrlhf_mtp.losses.alignment import Anchors, find_anchors
from openrlhf_mtp.losses.mtp_loss import OutputHead, mtp_loss
from openrlhf_mtp.losses.targets import from_hidden

COMPARABLE = ("e2e_tv", "ce")
"""Objectives that the plain form has."""


@dataclass(frozen=True)
class Workload:
    """The batch and objective that every form computes.

    Attributes:
        vocab: entries of the vocabulary V.
        hidden: width H.
        tokens: anchors that have all depths.
        depths: depths k.
        objective: one of `COMPARABLE`.
        dtype: of states and output head, a name in torch.
        device: cpu or cuda.
        repeats: timed runs of each form.
    """

    vocab: int = 151_936
    hidden: int = 1024
    tokens: int = 1024
    depths: int = 3
    objective: str = "e2e_tv"
    dtype: str = "float32"
    device: str = "cpu"
    repeats: int = 5

    def tiny(self) -> Workload:
        """A workload of the same kind that takes milliseconds: it loads libraries and compiles kernels."""
        return replace(self, vocab=512, hidden=64, tokens=8)


@dataclass(frozen=True)
class Inputs:
    """A batch of one long response.

    Attributes:
        states: the chain's outputs at the anchors, each [1, A, H]; they receive the gradient.
        hidden: the policy's last hidden states [1, T, H].
        weight: the policy's output head [V, H].
        anchors: the anchors of the batch.
    """

    states: list[Tensor]
    hidden: Tensor
    weight: Tensor
    anchors: Anchors

    def gradient_norm(self) -> float:
        """The gradient norm of the last backward pass, over all states."""
        return math.sqrt(
            sum(z.grad.double().square().sum().item() for z in self.states if z.grad is not None)
        )


def make_inputs(workload: Workload) -> Inputs:
    """Random inputs, equal in all processes: logits of standard deviation 3, drafts that resemble their targets."""
    dtype = getattr(torch, workload.dtype)
    generator = torch.Generator(workload.device).manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, device=workload.device, dtype=dtype)

    length = workload.tokens + workload.depths + 1
    ids = torch.randint(workload.vocab, (1, length), generator=generator, device=workload.device)
    anchors = find_anchors(ids, torch.ones_like(ids), torch.ones_like(ids), workload.depths)
    weight = normal(workload.vocab, workload.hidden).mul_(3.0 / math.sqrt(workload.hidden))
    hidden = normal(1, length, workload.hidden)
    states = []
    for depth in range(workload.depths):
        resembling = hidden[0, anchors.target_index[:, depth]][None]
        states.append((0.8 * resembling + 0.6 * normal(*resembling.shape)).requires_grad_())
    return Inputs(states, hidden, weight, anchors)


def ours(inputs: Inputs, workload: Workload) -> Tensor:
    """`mtp_loss`: chunks of anchors, scalars instead of probabilities, the gradient in the same pass.

    It returns every per-anchor figure besides (overlap, entropy, greedy acceptance), which the others do not.
    """
    sums = mtp_loss(
        inputs.states,
        inputs.anchors,
        from_hidden(inputs.hidden, inputs.weight, 1.0),
        OutputHead.of(inputs.weight, 1.0),
        OBJECTIVES[workload.objective],
    ).sums
    return sums.loss_sum / sums.loss_count


def plain(inputs: Inputs, workload: Workload) -> Tensor:
    """The loss as one would write it down: all logits at once, and autograd."""
    anchors = inputs.anchors
    logits = linear(torch.stack(inputs.states, 2)[0], inputs.weight).float()  # [N, k, V]
    if workload.objective == "ce":
        losses = cross_entropy(logits.flatten(0, 1), anchors.tokens.flatten(), reduction="none")
        return losses.view_as(anchors.mask)[anchors.mask].mean()
    with torch.no_grad():
        p = linear(inputs.hidden[0], inputs.weight).float().softmax(-1)[anchors.target_index]
    return _end_to_end(torch.minimum(p, logits.softmax(-1)).sum(-1), anchors)


def _end_to_end(alpha: Tensor, anchors: Anchors) -> Tensor:
    """1 - prod_{i<=j} alpha_i, averaged over the depths inside, which is the mean of 1 - E / n."""
    return 1.0 - alpha.cumprod(-1)[anchors.mask].mean()


def speculators(inputs: Inputs, workload: Workload) -> Tensor:
    """The fused total-variation loss of the package `speculators`, under the same end-to-end product."""
    if workload.objective != "e2e_tv":
        raise UnavailableError(f"has no {workload.objective} with the sampled token")
    distance, anchors = speculators_tv(workload.device), inputs.anchors
    logits = linear(torch.stack(inputs.states, 2)[0].flatten(0, 1), inputs.weight)
    with torch.no_grad():
        targets = linear(inputs.hidden[0], inputs.weight)[anchors.target_index.flatten()]
    return _end_to_end(1.0 - distance(logits[None], targets[None]).view_as(anchors.mask), anchors)


def speculators_tv(device: str) -> Callable[[Tensor, Tensor], Tensor]:
    """The loss of `speculators`: draft and target logits [1, R, V] -> total variation [1, R].

    Raises:
        UnavailableError: there is no GPU for its kernels, or it is not installed.
    """
    if device != "cuda":
        raise UnavailableError("its fused loss needs a CUDA GPU")
    try:
        from speculators.losses import tv_loss
    except ImportError as problem:
        raise UnavailableError(f"not installed (pip install speculators): {problem}") from problem
    loss: Callable[[Tensor, Tensor], Tensor] = tv_loss
    return loss


FORMS: dict[str, Callable[[Inputs, Workload], Tensor]] = {
    "ours": ours,
    "plain": plain,
    "speculators": speculators,
}
"""Name in the table -> form."""
