"""Predict the engine's acceptance counters by replaying rejection sampling over each response.

A head has an expected length at every anchor, but the engine drafts only where the draft before it ended. Hard tokens
end drafts, so the anchors it visits are no fair sample of all anchors (text with a rhythm makes it worse), and a token
that was drafted rightly is not an average token. On the quickstart the plain mean of prod alpha is off by 0.05 on
average for these two reasons, and the replay by 0.0002. The replay visits the responses' anchors as the engine did, so
that what is left between trainer and engine is noise, and a bad sync cannot hide behind it.

Rejection sampling makes that exact: a drafted token that equals x_{i+j+1} is accepted with joint probability
min(p, q)(x), and the token is x with probability p(x) either way. Given the text, depth j of anchor i was therefore
accepted with probability r_ij = min(1, q(x) / p(x)), independently of all else, once the depths before it were. An
anchor whose first a drafts are accepted hands over to anchor i + a + 1.

Block verification (Sun et al., arXiv 2403.10444) accepts the tokens x_1 ... x_j of a draft, and possibly more, with a
joint probability of q(x_1 ... x_j) times the least of the products of p / q over depths m + 1 to j, m <= j. Given the
text, that is the least of the products of q / p over the first m depths, and never less than the product of
min(1, q / p). The text after an accepted token is a sample of p either way, so that the rest of the replay stays.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class ReplayedCounts:
    """Expected counts of the engine over some responses; sums, so that micro-batches and ranks may be added up.

    Attributes:
        drafts: drafts that were verified (scalar).
        reached: of those, accepted through depth j [k]; `reached / drafts` is the engine's acceptance rate at depth j,
            and `1 + reached.sum() / drafts` its mean acceptance length.
        variance: sum over drafts of the variance of their accepted tokens, given the text (scalar).
        covariance: of the numbers of drafts and of accepted tokens, given the text [2, 2]. It also holds what a draft
            changes for the drafts after it, so `length_error` is exact to first order.
        responses: drafts and accepted tokens of each response [R, 2].
        quarters: the same of all responses, by the quarter of its response that a draft begins in [4, 2].
    """

    drafts: Tensor
    reached: Tensor
    variance: Tensor
    covariance: Tensor
    responses: Tensor
    quarters: Tensor


def replay_acceptance(accept: Tensor, mask: Tensor, index: Tensor) -> ReplayedCounts:
    """Replay the engine's rejection sampling over responses whose anchors are all given.

    Args:
        accept: r_ij = min(1, q(x) / p(x)), the chance that depth j was accepted, given the text [N, k].
        mask: where the depth counts [N, k] (`losses.alignment`). Tokens drafted beyond the end of a response, by its
            last draft, count as rejected, because nobody knows what the engine saw there.
        index: position of each anchor in the flattened batch, ascending [N]. A jump begins a new response: no
            two responses touch, because the first sampled token of the second is no anchor's to predict.

    Two responses of two anchors, one depth that is accepted half the time: the second anchor is visited when the first
    one's draft is rejected.

    >>> half, counted = torch.tensor([[0.5]] * 4), torch.ones(4, 1, dtype=torch.bool)
    >>> replay_acceptance(half, counted, torch.tensor([0, 1, 8, 9])).drafts.item()
    3.0
    """
    return _replayed(accept.double().masked_fill(~mask, 0.0).cumprod(-1), index)


def replay_block_acceptance(log_ratio: Tensor, mask: Tensor, index: Tensor) -> ReplayedCounts:
    """As `replay_acceptance`, for an engine that verifies each draft as a block.

    Args:
        log_ratio: log q(x) - log p(x) of the text's token at each depth [N, k].
        mask, index: as there.

    A second token that q likes makes up for nothing where the first is rejected, and one that q likes less than p is
    carried by a first one that q likes more.

    >>> counted, first = torch.ones(1, 2, dtype=torch.bool), torch.tensor([0])
    >>> replay_block_acceptance(torch.tensor([[0.5, 4.0]]).log(), counted, first).reached.round(decimals=3).tolist()
    [0.5, 0.5]
    >>> replay_block_acceptance(torch.tensor([[4.0, 0.5]]).log(), counted, first).reached.round(decimals=3).tolist()
    [1.0, 1.0]
    """
    joint = log_ratio.double().masked_fill(~mask, -torch.inf).cumsum(-1)
    return _replayed(joint.cummin(-1).values.clamp(max=0.0).exp(), index)


def _replayed(through: Tensor, index: Tensor) -> ReplayedCounts:
    """The counts, from the chance that a draft is accepted through depth j, given the text [N, k]."""
    edges = torch.nn.functional.pad(through, (1, 1), value=0.0)
    edges[:, 0] = 1.0
    ended = edges[:, :-1] - edges[:, 1:]  # [N, k + 1]: exactly a = 0 ... k drafts accepted
    jumps = index.diff(prepend=index[:1]) != 1
    _, row, length = jumps.cumsum(0).unique_consecutive(return_inverse=True, return_counts=True)
    place = torch.arange(len(row), device=row.device) - (length.cumsum(0) - length)[row]
    counted, totals = _visits_and_totals(ended, place, row, length)
    deviation = torch.arange(ended.shape[1], device=ended.device) - through.sum(-1, keepdim=True)
    variance = (ended * deviation.square()).sum(-1)
    drafted = torch.stack([counted, counted * through.sum(-1)], dim=1)
    return ReplayedCounts(
        drafts=counted.sum(),
        reached=(counted[:, None] * through).sum(0),
        variance=(counted * variance).sum(),
        covariance=_covariance(counted, ended, totals),
        responses=drafted.new_zeros(len(length), 2).index_add(0, row, drafted),
        quarters=drafted.new_zeros(4, 2).index_add(0, 4 * place // length[row], drafted),
    )


def length_error(drafts: float, accepted: float, covariance: Tensor) -> float:
    """Standard deviation of the engine's mean acceptance length, given the text, from sums of `ReplayedCounts`."""
    slope = torch.tensor([-accepted / drafts, 1.0], dtype=covariance.dtype) / drafts
    return math.sqrt(max(float(slope @ covariance @ slope), 0.0))


@torch.enable_grad()
def _visits_and_totals(ended: Tensor, place: Tensor, row: Tensor, length: Tensor) -> tuple[Tensor, Tensor]:
    """Visits of each anchor [N], and the drafts and accepted tokens of its response from there on if a accepted drafts
    end its draft, but for a constant of the anchor [2, N, k + 1].

    The latter are derivatives: raise the chance of an outcome, and the response's totals rise by what follows it.
    """
    ended = ended.detach().requires_grad_()
    shape = (int(length.max()) if len(length) else 0, len(length), ended.shape[1])
    counted = _visits(ended.new_zeros(shape).index_put((place, row), ended))[place, row]
    accepted = (counted * (ended @ torch.arange(shape[2], device=ended.device).to(ended))).sum()
    totals = []
    for total in (counted.sum(), accepted):
        slope = torch.zeros_like(ended)
        if total.requires_grad:  # not if every response has one anchor at most
            (slope,) = torch.autograd.grad(total, ended, retain_graph=True, materialize_grads=True)
        totals.append((slope / counted[:, None]).where(counted[:, None] > 0.0, 0.0).detach())
    return counted.detach(), torch.stack(totals)


def _covariance(visits: Tensor, ended: Tensor, totals: Tensor) -> Tensor:
    """Covariance of sums along a chain: each visited anchor adds that of what its outcome decides.

    Args:
        visits: of each anchor [N].
        ended: chances of its outcomes [N, k + 1].
        totals: what follows each outcome, for two sums [2, N, k + 1].
    """
    centered = totals - (ended * totals).sum(-1, keepdim=True)
    return torch.einsum("n,na,xna,yna->xy", visits, ended, centered, centered)


def _visits(moves: Tensor) -> Tensor:
    """Probability that each place is visited, when place 0 is: moves [T, R, k + 1], by length of the jump, -> [T, R].

    A recurrence over T places; its state is the probability of the next k + 1. It is linear, so that pieces
    of T^1/2 places are run side by side from every unit state, and then put together: 2 T^1/2 steps instead of T.
    """
    places, responses, size = moves.shape
    piece = max(1, math.isqrt(places))
    pieces = -(-places // piece)
    padded = torch.nn.functional.pad(moves, (0, 0, 0, 0, 0, pieces * piece - places))
    padded = padded.view(pieces, piece, responses, 1, size)
    state = torch.eye(size, dtype=moves.dtype, device=moves.device).expand(pieces, responses, size, size)
    seen = []
    for at in range(piece):
        now = state[..., 0]
        seen.append(now)
        state = torch.nn.functional.pad(state[..., 1:], (0, 1)) + now[..., None] * padded[:, at]
    start = torch.zeros(responses, size, dtype=moves.dtype, device=moves.device)
    start[:, 0] = 1.0
    starts = []
    for each in state:
        starts.append(start)
        start = torch.einsum("ri,rij->rj", start, each)
    if not pieces:
        return moves.new_zeros(0, responses)
    visits = torch.einsum("cri,lcri->clr", torch.stack(starts), torch.stack(seen))
    return visits.flatten(0, 1)[:places]
