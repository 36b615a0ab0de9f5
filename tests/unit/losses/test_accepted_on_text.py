"""The accepted drafts of a chain: estimates along sampled text against a count over all texts and all drafts."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from openrlhf_mtp.losses.acceptance import acceptance_ratio, expected_accepted, expected_accepted_on_text
from tests.unit.losses.batches import on_logits

DEPTHS, VOCAB, END = 3, 4, 0


@dataclass(frozen=True)
class Tree:
    """Policy and head after each beginning of a text, as logits; token `END` ends a response.

    `policy[j]` and `head[j]` are [V^j, V]: depth j + 1 after each of the beginnings of length j.
    """

    policy: list[Tensor]
    head: list[Tensor]

    @classmethod
    def random(cls, seed: int, spread: float = 1.5) -> Tree:
        generator = torch.Generator().manual_seed(seed)

        def tables() -> list[Tensor]:
            return [
                spread * torch.randn(VOCAB**j, VOCAB, generator=generator, dtype=torch.float64)
                for j in range(DEPTHS)
            ]

        return cls(tables(), [table.requires_grad_() for table in tables()])

    def rows(self) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Every text with its probability [N]: draft and target logits [N, k, V], tokens and mask [N, k].

        What follows an end is kept as garbage: all texts have k tokens.
        """
        tokens = torch.tensor(list(itertools.product(range(VOCAB), repeat=DEPTHS)))
        before = [torch.zeros(len(tokens), dtype=torch.long)]
        for j in range(DEPTHS - 1):
            before.append(before[-1] * VOCAB + tokens[:, j])
        draft, target = (
            torch.stack([table[index] for table, index in zip(tables, before, strict=True)], 1)
            for tables in (self.head, self.policy)
        )
        log_p = target.log_softmax(-1).gather(-1, tokens[..., None])[..., 0]
        ended = (tokens == END).long().cumsum(-1) - (tokens == END).long()
        return draft, target, tokens, ended == 0, log_p.sum(-1).exp()

    def engine(self) -> Tensor:
        """Expected accepted drafts of an engine, by its own rule, over all that it may draft (differentiable)."""
        total = torch.zeros((), dtype=torch.float64)
        going = [((), torch.ones((), dtype=torch.float64))]
        for j in range(DEPTHS):
            accepted = []
            for prefix, chance in going:
                row = sum(token * VOCAB ** (j - 1 - at) for at, token in enumerate(prefix))
                p, q = (tables[j][row].softmax(-1) for tables in (self.policy, self.head))
                for token in range(VOCAB):
                    # drafted with q, accepted with min(1, p / q)
                    both = chance * torch.where(q[token] <= p[token], q[token], p[token])
                    total = total + both
                    if token != END:
                        accepted.append(((*prefix, token), both))
            going = accepted
        return total


def estimate(tree: Tree) -> Tensor:
    """The mean over texts of the estimate along a text."""
    draft, target, tokens, mask, chance = tree.rows()
    log_q, log_p = (side.log_softmax(-1).gather(-1, tokens[..., None])[..., 0] for side in (draft, target))
    alpha = torch.minimum(draft.softmax(-1), target.softmax(-1)).sum(-1)
    return (chance * expected_accepted_on_text(alpha, acceptance_ratio(log_q, log_p), mask)).sum()


@settings(max_examples=15)
@given(st.integers(0, 10_000))
def test_the_estimate_along_a_text_has_the_engines_mean(seed):
    tree = Tree.random(seed)
    assert estimate(tree).item() == pytest.approx(tree.engine().item(), abs=1e-12)


def test_the_product_of_overlaps_has_another_mean():
    tree = Tree.random(1)
    draft, target, _, mask, chance = tree.rows()
    alpha = torch.minimum(draft.softmax(-1), target.softmax(-1)).sum(-1).masked_fill(~mask, 0.0)
    assert abs((chance * expected_accepted(alpha)).sum().item() - tree.engine().item()) > 0.01


def gradients(objective: str, tree: Tree) -> list[Tensor]:
    """The mean over texts of an objective's gradient with respect to the head's tables, times -k."""
    *rows, chance = tree.rows()
    loss = on_logits(objective, *rows, row_weight=chance).loss_sum
    return [-DEPTHS * gradient for gradient in torch.autograd.grad(loss, tree.head)]


@settings(max_examples=15)
@given(st.integers(0, 10_000))
def test_the_gradient_is_that_of_the_engines_count(seed):
    tree = Tree.random(seed)
    expected = torch.autograd.grad(tree.engine(), tree.head)
    for got, wanted in zip(gradients("e2e_tv_sampled", tree), expected, strict=True):
        torch.testing.assert_close(got, wanted, rtol=0, atol=1e-12)


def test_the_product_of_overlaps_has_another_gradient():
    tree = Tree.random(1)
    expected = torch.autograd.grad(tree.engine(), tree.head)
    off = [
        (got - wanted).abs().max() for got, wanted in zip(gradients("e2e_tv", tree), expected, strict=True)
    ]
    assert max(off) > 0.01


def noise(loss: Tensor, draft: Tensor, chance: Tensor) -> float:
    """Mean over texts of a gradient's square, with respect to the draft logits."""
    (gradient,) = torch.autograd.grad(loss, draft)
    return float((gradient.square().sum((1, 2)) * chance).sum())


def test_the_control_variate_brings_the_noise_down():
    tree = Tree.random(3)
    near = [(p + 0.2 * q.detach()).requires_grad_() for p, q in zip(tree.policy, tree.head, strict=True)]
    draft, target, tokens, mask, chance = Tree(tree.policy, near).rows()
    draft = draft.detach().requires_grad_()
    sampled = on_logits("e2e_tv_sampled", draft, target, tokens, mask).loss_sum
    log_q, log_p = (side.log_softmax(-1).gather(-1, tokens[..., None])[..., 0] for side in (draft, target))
    alpha = torch.minimum(draft.softmax(-1), target.softmax(-1)).sum(-1)
    plain = expected_accepted_on_text(alpha, acceptance_ratio(log_q, log_p), mask).sum() / DEPTHS
    assert noise(sampled, draft, chance) < 0.8 * noise(plain, draft, chance)
