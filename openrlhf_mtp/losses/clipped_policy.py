"""The clipped policy loss on the head's own parameters, with signed advantages: a form of advantage-aware training.

    L = -min(rho A, clip(rho, 1 - eps, 1 + eps) A),    rho = q(x) / q_old(x)          (PPO, arXiv 1707.06347)

The policy's update raises the probability of tokens with a positive advantage A and lowers that of the others. This
loss has the head take the same step, on the same tokens, instead of following the policy afterwards. `q_old` is the
head when the rollout arrived.

The ratio limits the step; it corrects for nothing, because the tokens were sampled from the policy and not from the
head. At rho = 1 the gradient is that of cross-entropy times A. Advantages of mean 0 cancel the pull towards p, so
nothing here keeps the head at the policy: mix it with `ce` or `kl` (`mixture`), unless you want to see it drift.

For studies. No job file has it: `mtp.advantage` weighs samples, and its weights are never negative.
"""

from __future__ import annotations

from torch import Tensor

from openrlhf_mtp.losses.types import Objective, ObjectiveInput, ObjectiveOutput, mean_over_depths


def clipped_policy(advantage: Tensor, old_log_q: Tensor | None = None, *, clip_eps: float = 0.2) -> Objective:
    """Make the objective of one micro-batch.

    Args:
        advantage: of each anchor's sample, signed [N]; `sample_advantages(...)[anchors.row]`.
        old_log_q: log q of the sampled tokens when the rollout arrived [N, k], nat: `records.log_q` of the loss on the
            same anchors at that time. None takes the present head, as in the first update after a rollout.
        clip_eps: how far the ratio may move before a token stops counting.

    Raises:
        ValueError: `clip_eps` is not positive.
    """
    if not clip_eps > 0.0:
        raise ValueError(f"clip_eps: got {clip_eps}, expected > 0; 0 leaves no token a gradient")

    def objective(inputs: ObjectiveInput) -> ObjectiveOutput:
        """Mean over counted (anchor, depth) pairs of the clipped policy loss."""
        log_q = inputs.log_q
        old = log_q.detach() if old_log_q is None else old_log_q[inputs.anchor].to(log_q)
        ratio = (log_q - old).masked_fill(~inputs.mask, 0.0).exp()
        signed = advantage[inputs.anchor, None].to(log_q)
        clipped = ratio.clamp(1.0 - clip_eps, 1.0 + clip_eps)
        return mean_over_depths(-(ratio * signed).minimum(clipped * signed), inputs)

    return objective
