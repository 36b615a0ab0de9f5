"""Log-probs of given tokens under the head, with gradients that reach the policy: for the joint regimes.

    log q_x = z . w_x / t - log sum_v exp(z . w_v / t),    d/dz_v = (1[v = x] - q_v) / t

The loss on these log-probs is the run's own policy loss, which may tie whole sequences together (GSPO) and is scaled by
a coefficient that is known only after all of the optimizer step's tokens were seen (OCC). So the weight of a row is
not known while its logits are available, and backward projects a chunk again instead of keeping a gradient for each
row: one projection more, no [rows, vocabulary] tensor, any loss, and an exact gradient for the output head as well.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx
from torch.nn.functional import linear

from openrlhf_mtp.losses.kernels.projection import CHUNK_LOGITS


def _chunks(rows: int, vocab: int, chunk_logits: int) -> list[slice]:
    step = max(1, chunk_logits // vocab)
    return [slice(start, start + step) for start in range(0, rows, step)]


def _log_probs(states: Tensor, weight: Tensor, temperature: float) -> Tensor:
    logits = linear(states.to(weight.dtype), weight)
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return wide.div_(temperature).log_softmax(-1) if temperature != 1.0 else wide.log_softmax(-1)


class _TokenLogProbs(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: FunctionCtx,
        states: Tensor,
        weight: Tensor,
        tokens: Tensor,
        known: Tensor | None,
        temperature: float,
        chunk_logits: int,
    ) -> Tensor:
        # not the parameter: by the time of backward ZeRO-3 has taken its values away, and these are kept
        ctx.save_for_backward(states, weight.detach(), tokens)
        ctx.options = (temperature, chunk_logits)  # type: ignore[attr-defined]
        if known is not None:
            return known.clone()
        wide = torch.promote_types(states.dtype, torch.float32)
        values = states.new_empty(len(states), dtype=wide)
        for rows in _chunks(len(states), len(weight), chunk_logits):
            log_q = _log_probs(states[rows], weight, temperature)
            values[rows] = log_q.gather(-1, tokens[rows, None])[:, 0]
        return values

    @staticmethod
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor, Tensor | None, None, None, None, None]:
        states, weight, tokens = ctx.saved_tensors  # type: ignore[attr-defined]
        temperature, chunk_logits = ctx.options  # type: ignore[attr-defined]
        grad_states = torch.empty_like(states)
        wants_weight = ctx.needs_input_grad[1]  # type: ignore[attr-defined]
        grad_weight = torch.zeros_like(weight) if wants_weight else None
        for rows in _chunks(len(states), len(weight), chunk_logits):
            push = grad[rows, None] / temperature
            residual = _log_probs(states[rows], weight, temperature).exp_().mul_(-push)
            residual.scatter_add_(-1, tokens[rows, None], push.to(residual.dtype))
            residual = residual.to(weight.dtype)
            grad_states[rows] = (residual @ weight).to(states.dtype)
            if grad_weight is not None:
                grad_weight.addmm_(residual.T, states[rows].to(weight.dtype))
        return grad_states, grad_weight, None, None, None, None


def token_log_probs(
    states: Tensor,
    weight: Tensor,
    tokens: Tensor,
    temperature: float,
    *,
    known: Tensor | None = None,
    chunk_logits: int = CHUNK_LOGITS,
) -> Tensor:
    """log q of each row's token, differentiable in the states and in the output head.

    Args:
        states: hidden states of the head [R, H].
        weight: the policy's output head without padded rows [V, H]. Under ZeRO-3 it is whole now; its values are
            kept until backward, and its gradient is whole.
        tokens: the token each row is about [R].
        temperature: the rollout's.
        known: the result, if it was computed elsewhere from the same numbers [R]; then only backward projects.
        chunk_logits: most logits that may exist at once.

    Returns:
        [R] in float32 or better, nat.
    """
    log_probs: Tensor = _TokenLogProbs.apply(  # type: ignore[no-untyped-call]
        states, weight, tokens, known, temperature, chunk_logits
    )
    return log_probs
