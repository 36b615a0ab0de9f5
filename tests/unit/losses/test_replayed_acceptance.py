"""The replay: given only the text and the two distributions, it must count what an engine's own drafting counts."""

import math
from collections import defaultdict

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from openrlhf_mtp.losses.replayed_acceptance import (
    length_error,
    replay_acceptance,
    replay_block_acceptance,
)

DEPTHS, VOCABULARY = 3, 5


def rejection_sampling(p, q, length, generator):
    """Speculative decoding of one text over a Markov chain p [V, V] with drafts q [k, V, V].

    Returns the tokens, and of each draft how many tokens inside the text were accepted.
    """

    def draw(weights):
        return int(torch.multinomial(weights, 1, generator=generator))

    text, accepted = [0, draw(p[0])], []
    while len(text) < length:
        left, count, token = length - len(text), 0, text[-1]
        for depth in range(DEPTHS):
            draft = draw(q[depth, token])
            if torch.rand((), generator=generator) * q[depth, token, draft] >= p[token, draft]:
                text.append(draw((p[token] - q[depth, token]).clamp(min=0.0)))
                break
            text.append(draft)
            count, token = count + 1, draft
        else:
            text.append(draw(p[token]))
        accepted.append(min(count, left))
    return text[:length], accepted


def block_verification(p, q, length, generator):
    """`rejection_sampling` with drafts that are verified as blocks (Sun et al., algorithm 2)."""

    def draw(weights):
        return int(torch.multinomial(weights, 1, generator=generator))

    text, accepted = [0, draw(p[0])], []
    while len(text) < length:
        left, tokens, joint = length - len(text), [text[-1]], [1.0]
        for depth in range(DEPTHS):
            draft = draw(q[depth, tokens[-1]])
            joint.append(min(1.0, joint[-1] * float(p[tokens[-1], draft] / q[depth, tokens[-1], draft])))
            tokens.append(draft)
        residual = [
            (joint[depth] * p[tokens[depth]] - q[depth, tokens[depth]]).clamp(min=0.0)
            for depth in range(DEPTHS)
        ]
        count = 0
        for depth in range(1, DEPTHS + 1):
            mass = float(residual[depth].sum()) if depth < DEPTHS else 0.0
            chance = mass / (mass + 1 - joint[depth]) if depth < DEPTHS else joint[depth]
            if float(torch.rand((), generator=generator)) <= chance:
                count = depth
        text += tokens[1 : count + 1]
        text.append(draw(residual[count] if count < DEPTHS else p[tokens[-1]]))
        accepted.append(min(count, left))
    return text[:length], accepted


def anchors_of(texts, p, q):
    """What the trainer knows of the same texts: q(x) / p(x), overlap, mask, [N, k] each, and position [N]."""
    responses, length = texts.shape
    index = torch.arange(length - 2)
    accept, overlap, mask = torch.zeros(3, responses, length - 2, DEPTHS).unbind()
    for j in range(1, DEPTHS + 1):
        inside = index[index + j + 1 < length]
        before, token = texts[:, inside + j], texts[:, inside + j + 1]
        accept[:, inside, j - 1] = q[j - 1, before, token] / p[before, token]
        overlap[:, inside, j - 1] = torch.minimum(p, q[j - 1]).sum(-1)[before]
        mask[:, inside, j - 1] = 1.0
    flat = [values.flatten(0, 1) for values in (accept, overlap, mask.bool())]
    return *flat, (torch.arange(responses)[:, None] * length + index).flatten()


def test_the_replay_matches_rejection_sampling_and_the_plain_mean_does_not():
    generator = torch.Generator().manual_seed(1)
    logits = 2.5 * torch.randn(VOCABULARY, VOCABULARY, generator=generator)
    noise = 1.5 * torch.randn(DEPTHS, VOCABULARY, VOCABULARY, generator=generator)
    p, q = logits.softmax(-1), (logits + noise).softmax(-1)
    runs = [rejection_sampling(p, q, 40, generator) for _ in range(300)]
    accepted = torch.tensor([count for _, counts in runs for count in counts])
    engine = torch.stack([(accepted >= j).double().mean() for j in range(1, DEPTHS + 1)])
    ratio, overlap, mask, index = anchors_of(torch.tensor([text for text, _ in runs]), p, q)
    replayed = replay_acceptance(ratio.clamp(max=1.0), mask, index)
    # some 3,600 drafts: a standard error below 0.009 at every depth
    torch.testing.assert_close(replayed.reached / replayed.drafts, engine, atol=0.03, rtol=0.0)
    assert replayed.drafts.item() == pytest.approx(len(accepted), rel=0.03)
    plain = overlap.cumprod(-1)[mask[:, -1]].mean(0).double()
    assert (plain - engine).abs().max() > 0.06


def test_the_replay_of_blocks_matches_block_verification_and_that_of_single_tokens_does_not():
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(VOCABULARY, VOCABULARY, generator=generator)
    noise = 1.5 * torch.randn(DEPTHS, VOCABULARY, VOCABULARY, generator=generator)
    p, q = logits.softmax(-1), (logits + noise).softmax(-1)
    runs = [block_verification(p, q, 40, generator) for _ in range(200)]
    accepted = torch.tensor([count for _, counts in runs for count in counts])
    engine = torch.stack([(accepted >= j).double().mean() for j in range(1, DEPTHS + 1)])
    ratio, _, mask, index = anchors_of(torch.tensor([text for text, _ in runs]), p, q)
    replayed = replay_block_acceptance(ratio.log(), mask, index)
    # some 3,200 drafts: a standard error of 0.009 at every depth
    torch.testing.assert_close(replayed.reached / replayed.drafts, engine, atol=0.03, rtol=0.0)
    assert replayed.drafts.item() == pytest.approx(len(accepted), rel=0.03)
    single = replay_acceptance(ratio.clamp(max=1.0), mask, index)
    assert (single.reached / single.drafts).sum() < engine.sum() - 0.08


@given(st.integers(1, 6), st.integers(0, 10_000))
def test_blocks_accept_no_less_and_never_more_than_their_first_tokens_allow(places, seed):
    generator = torch.Generator().manual_seed(seed)
    log_ratio = 2 * torch.randn(places, DEPTHS, generator=generator, dtype=torch.float64)
    mask = torch.ones(places, DEPTHS, dtype=torch.bool)
    single, block = (
        torch.stack([function(row[None], mask[:1], torch.tensor([0])).reached for row in values])
        for function, values in (
            (replay_acceptance, log_ratio.clamp(max=0.0).exp()),
            (replay_block_acceptance, log_ratio),
        )
    )
    assert (block >= single - 1e-12).all()
    assert (block.diff(dim=1) <= 1e-12).all()
    assert (block <= log_ratio[:, :1].exp().clamp(max=1.0) + 1e-12).all()


def test_certain_drafts_are_visited_every_k_plus_one_anchors():
    mask = torch.ones(9, DEPTHS, dtype=torch.bool)
    counted = replay_acceptance(torch.ones(9, DEPTHS), mask, torch.arange(9))
    assert counted.drafts.item() == 3  # anchors 0, 4, 8
    assert counted.variance.item() == 0, "nothing is left to chance"
    assert counted.reached.tolist() == [3, 3, 3]


def test_rejected_drafts_are_visited_at_every_anchor():
    counted = replay_acceptance(
        torch.zeros(9, DEPTHS), torch.ones(9, DEPTHS, dtype=torch.bool), torch.arange(9)
    )
    assert (counted.drafts.item(), counted.reached.tolist()) == (9, [0, 0, 0])


def test_what_is_drafted_beyond_the_end_is_rejected():
    mask = torch.tensor([[True, True, False], [True, False, False]])
    counted = replay_acceptance(torch.ones(2, DEPTHS), mask, torch.arange(2))
    assert (counted.drafts.item(), counted.reached.tolist()) == (1, [1, 1, 0])


def test_responses_may_be_split_over_micro_batches():
    generator = torch.Generator().manual_seed(1)
    accept = torch.rand(20, DEPTHS, generator=generator)
    mask = torch.ones(20, DEPTHS, dtype=torch.bool)
    index = torch.cat([torch.arange(start, start + n) for start, n in ((0, 5), (9, 12), (40, 3))])
    together = replay_acceptance(accept, mask, index)
    apart = [replay_acceptance(accept[part], mask[part], index[part]) for part in (slice(0, 5), slice(5, 20))]
    torch.testing.assert_close(sum(one.drafts for one in apart), together.drafts)
    torch.testing.assert_close(sum(one.reached for one in apart), together.reached)
    torch.testing.assert_close(sum(one.variance for one in apart), together.variance)
    torch.testing.assert_close(sum(one.covariance for one in apart), together.covariance)


def test_no_anchor_is_an_empty_count():
    counted = replay_acceptance(
        torch.empty(0, DEPTHS), torch.empty(0, DEPTHS, dtype=torch.bool), torch.empty(0).long()
    )
    assert (counted.drafts.item(), counted.reached.tolist()) == (0, [0, 0, 0])


@pytest.mark.parametrize("places", [1, 2, 15, 16, 17, 200])
def test_pieces_put_together_are_the_replay_step_by_step(places):
    generator = torch.Generator().manual_seed(places)
    accept = torch.rand(places, DEPTHS, generator=generator, dtype=torch.float64)
    through = torch.cat([torch.ones(places, 1), accept.cumprod(-1), torch.zeros(places, 1)], dim=1)
    visits = torch.zeros(places + DEPTHS + 1, dtype=torch.float64)
    visits[0] = 1.0
    for at in range(places):
        for count in range(DEPTHS + 1):
            visits[at + 1 + count] += visits[at] * (through[at, count] - through[at, count + 1])
    counted = replay_acceptance(accept, torch.ones(places, DEPTHS, dtype=torch.bool), torch.arange(places))
    torch.testing.assert_close(counted.drafts, visits[:places].sum())
    torch.testing.assert_close(counted.reached, visits[:places] @ accept.cumprod(-1))


def test_the_variance_is_what_engines_scatter_by_on_one_text():
    """The same text drafted again and again: acceptance lengths around the expected one."""
    generator = torch.Generator().manual_seed(2)
    places, runs = 400, 1000
    accept = torch.rand(places, DEPTHS, generator=generator)
    at, drafts, accepted = (torch.zeros(runs, dtype=torch.long) for _ in range(3))
    while (going := at < places).any():
        luck = torch.rand(runs, DEPTHS, generator=generator)
        length = (luck < accept[at.clamp(max=places - 1)]).long().cumprod(-1).sum(-1)
        accepted, drafts = accepted + length * going, drafts + going
        at = at + (length + 1) * going
    counted = replay_acceptance(accept, torch.ones(places, DEPTHS, dtype=torch.bool), torch.arange(places))
    replayed = (counted.reached.sum() / counted.drafts).item()
    assert (accepted / drafts).mean().item() == pytest.approx(replayed, abs=0.01)
    expected = (counted.variance.sqrt() / counted.drafts).item()
    # known to 2.2 % after 1,000 runs; that luck also decides which places are visited adds 11 % where they differ so
    assert expected <= (accepted / drafts).std().item() < 1.2 * expected


def test_responses_and_quarters_add_up_to_the_whole():
    generator = torch.Generator().manual_seed(3)
    accept, mask = torch.rand(24, DEPTHS, generator=generator), torch.ones(24, DEPTHS, dtype=torch.bool)
    index = torch.cat([torch.arange(start, start + n) for start, n in ((0, 8), (9, 13), (40, 3))])
    counted = replay_acceptance(accept, mask, index)
    whole = torch.stack([counted.drafts, counted.reached.sum()])
    torch.testing.assert_close(counted.responses.sum(0), whole)
    torch.testing.assert_close(counted.quarters.sum(0), whole)
    for number, part in enumerate((slice(0, 8), slice(8, 21), slice(21, 24))):
        one = replay_acceptance(accept[part], mask[part], index[part])
        torch.testing.assert_close(counted.responses[number], torch.stack([one.drafts, one.reached.sum()]))


def test_a_draft_counts_in_the_quarter_where_it_begins():
    accept, mask = torch.zeros(8, DEPTHS), torch.ones(8, DEPTHS, dtype=torch.bool)
    accept[2] = 1.0  # the third of eight anchors: its draft passes over the next three
    counted = replay_acceptance(accept, mask, torch.arange(8))
    assert counted.quarters.tolist() == [[2, 0], [1, 3], [0, 0], [2, 0]]


def distribution(through):
    """Chance of each (drafts, accepted) of one response, by following every way through it."""
    at = [defaultdict(float) for _ in range(len(through) + DEPTHS + 1)]
    at[0][0, 0] = 1.0
    for place, row in enumerate(through):
        edges = [1.0, *row, 0.0]
        for (drafts, accepted), chance in at[place].items():
            for a in range(DEPTHS + 1):
                at[place + a + 1][drafts + 1, accepted + a] += chance * (edges[a] - edges[a + 1])
    ends = defaultdict(float)
    for reached in at[len(through) :]:
        for counts, chance in reached.items():
            ends[counts] += chance
    return ends


@given(
    st.lists(st.integers(1, 9), min_size=1, max_size=3), st.integers(0, 10_000), st.sampled_from([0.0, 0.4])
)
def test_the_covariance_is_that_of_all_ways_through_the_responses(lengths, seed, certain):
    """Also where drafts are surely accepted or rejected, so that anchors are never visited."""
    generator = torch.Generator().manual_seed(seed)
    accept = torch.rand(sum(lengths), DEPTHS, generator=generator, dtype=torch.float64)
    accept = accept.where(torch.rand(accept.shape, generator=generator) >= certain, accept.round())
    starts = np.cumsum([0, *(length + 2 for length in lengths)])
    index = torch.cat([torch.arange(at, at + n) for at, n in zip(starts, lengths, strict=False)])
    place = torch.cat([torch.arange(n) for n in lengths])
    left = torch.cat([n - torch.arange(n) for n in lengths])
    mask = torch.arange(DEPTHS) < left[:, None]
    counted = replay_acceptance(accept, mask, index)

    expected = np.zeros((2, 2))
    for begin in np.flatnonzero(place == 0):
        own = slice(begin, begin + int(left[begin]))
        ends = distribution((accept * mask)[own].cumprod(-1).tolist())
        counts, chances = np.array(list(ends), dtype=float), np.array(list(ends.values()))
        expected += np.cov(counts.T, aweights=chances, bias=True)
    np.testing.assert_allclose(counted.covariance, expected, atol=1e-12)


def test_the_error_of_the_length_is_the_scatter_of_engines():
    """What a draft changes for later ones counts: by each draft's own variance it would be a fifth less."""
    generator = torch.Generator().manual_seed(3)
    accept = 0.9 + 0.1 * torch.rand(40, 15, DEPTHS, generator=generator)
    mask = (torch.arange(15)[:, None] + torch.arange(DEPTHS) < 15).expand(40, 15, DEPTHS)
    index = (17 * torch.arange(40)[:, None] + torch.arange(15)).flatten()
    counted = replay_acceptance(accept.flatten(0, 1), mask.flatten(0, 1), index)
    lengths = []
    for _ in range(200):
        ok = (torch.rand(accept.shape, generator=generator) < accept) & mask
        runs = ok.long().cumprod(-1).sum(-1).tolist()
        drafts = accepted = 0
        for row in runs:
            at = 0
            while at < len(row):
                drafts, accepted, at = drafts + 1, accepted + row[at], at + row[at] + 1
        lengths.append(1.0 + accepted / drafts)
    error = length_error(counted.drafts.item(), counted.reached.sum().item(), counted.covariance)
    assert error == pytest.approx(np.std(lengths), rel=0.15)
    assert math.sqrt(counted.variance.item()) / counted.drafts.item() < 0.85 * error
