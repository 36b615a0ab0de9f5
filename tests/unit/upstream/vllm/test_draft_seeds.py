"""A seeded request's drafts are drawn from its own generator, and not at all where the proposal is thrown away."""

from __future__ import annotations

from types import ModuleType, SimpleNamespace
from typing import Any

import torch

from openrlhf_mtp.upstream.vllm import draft_seeds

VOCABULARY = 50


class Proposer:
    """vLLM's proposer as far as draws go: all rows from the process's generator."""

    use_fp64_gumbel = False

    def _sample_from_logits(self, logits: torch.Tensor, sampling_metadata: Any) -> Any:
        if sampling_metadata.temperature is None:
            return logits.argmax(-1), None
        probabilities = logits.softmax(-1)
        noise = torch.empty_like(probabilities).exponential_()
        return (probabilities / noise).argmax(-1), probabilities


def patched() -> Any:
    """A fresh subclass with the patch on it."""
    proposer = type("SpecDecodeBaseProposer", (Proposer,), {})
    proposers = ModuleType("proposers")
    vars(proposers).update(
        SpecDecodeBaseProposer=proposer,
        empty_exponential_noise_like=lambda probabilities, _: torch.empty_like(probabilities),
        sample_with_exponential_noise=lambda probabilities, noise: probabilities.div_(noise).argmax(-1),
    )
    draft_seeds.PATCH.apply(proposers)
    assert draft_seeds.PATCH.probe(proposers)
    return proposer()


def metadata(seeds: dict[int, int], rows: int) -> Any:
    return SimpleNamespace(
        temperature=torch.ones(rows),
        generators={row: torch.Generator().manual_seed(seed) for row, seed in seeds.items()},
    )


def test_the_draft_depends_on_the_seed_alone() -> None:
    proposer, logits = patched(), torch.zeros(1, VOCABULARY)
    drawn = set()
    for row, rows in ((0, 1), (2, 4)):  # alone, and among others without a seed
        torch.manual_seed(rows)
        own = metadata({row: 7}, rows)
        drafts = [int(proposer._sample_from_logits(logits.expand(rows, -1), own)[0][row]) for _ in range(3)]
        drawn.add(tuple(drafts))
    assert len(drawn) == 1
    assert len(set(drawn.pop())) > 1, "the generator does not move on"


def test_nothing_is_drawn_where_the_proposal_is_thrown_away() -> None:
    proposer, logits = patched(), torch.zeros(2, VOCABULARY)
    own = metadata({0: 1, 1: 2}, 2)
    before = {row: generator.get_state() for row, generator in own.generators.items()}
    proposer.tokens_after_chunks = {0: 33}
    proposer._sample_from_logits(logits, own)
    assert torch.equal(own.generators[0].get_state(), before[0])
    assert not torch.equal(own.generators[1].get_state(), before[1])


def test_the_distribution_that_verification_reads_is_left_alone() -> None:
    proposer, logits = patched(), torch.randn(1, VOCABULARY)
    _, probabilities = proposer._sample_from_logits(logits.clone(), metadata({0: 1}, 1))
    assert torch.equal(probabilities, logits.softmax(-1))


def test_a_seeded_draft_follows_its_distribution() -> None:
    proposer = patched()
    logits = torch.tensor([[0.1, 0.6, 0.3]]).log()
    own = metadata({0: 3}, 1)
    counts = torch.zeros(3)
    for _ in range(4000):
        counts[proposer._sample_from_logits(logits.clone(), own)[0]] += 1
    assert (counts / 4000 - logits.exp()[0]).abs().max() < 0.04  # five standard deviations


def test_greedy_drafts_are_left_alone() -> None:
    proposer, logits = patched(), torch.randn(1, VOCABULARY)
    greedy = SimpleNamespace(temperature=None, generators={0: torch.Generator()})
    assert proposer._sample_from_logits(logits, greedy) == (logits.argmax(-1), None)
