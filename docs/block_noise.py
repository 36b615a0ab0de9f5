"""What block verification costs in exactness where random numbers are used twice. Emulates vLLM's V2 sampler in numpy.

    python docs/block_noise.py

Writes the table of docs/measured.md; ten seconds. Target and draft are Markov chains over a few tokens, so that the
exact distribution at each position is known. A request's random numbers belong to its positions, as in vLLM: those of
the drafts, of the acceptance and of the tokens that follow it. "new" draws them again for each block, as
openrlhf_mtp/upstream/vllm/v2/block_noise.py does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

REQUESTS, DEPTHS, POSITIONS, SEED = 60_000, 3, 6, 0
Array = Any


@dataclass(frozen=True)
class Chains:
    """Target p and draft q, [V, V] each: the distribution of the next token after each one."""

    p: Array
    q: Array

    @classmethod
    def random(cls, vocab: int, distance: float) -> Chains:
        """q is p with normal noise of that deviation on its logits."""
        draw = np.random.default_rng(SEED)
        logits = draw.normal(size=(vocab, vocab))
        return cls(*(softmax(x) for x in (logits, logits + distance * draw.normal(size=logits.shape))))


def softmax(logits: Array) -> Array:
    """Over the last axis."""
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


class Noise:
    """Random numbers of every request and position: uniform ones, and Gumbel noise of drafts and of other tokens."""

    def __init__(self, vocab: int) -> None:
        self._draw = np.random.default_rng(SEED + 1)
        self._vocab = vocab
        self.renew()

    def renew(self) -> None:
        """Draw all of them again."""
        shape = (REQUESTS, POSITIONS + 2 * DEPTHS)
        self.uniform = self._draw.random(shape)
        self.drafts, self.others = (self._draw.gumbel(size=(*shape, self._vocab)) for _ in range(2))


def draft(chains: Chains, noise: Noise, rows: Array, last: Array, token: Array) -> tuple[list, list, list]:
    """Drafts of a block, with both distributions of each; p has one more, after the last draft."""
    tokens, p, q = [], [chains.p[token]], []
    for depth in range(DEPTHS):
        q.append(chains.q[token])
        token = (np.log(q[-1]) + noise.drafts[rows, last + depth]).argmax(1)
        tokens.append(token)
        p.append(chains.p[token])
    return tokens, p, q


def verify(way: str, tokens: list, p: list, q: list, uniform: Array) -> tuple[Array, list]:
    """Accepted tokens of each block, and by depth the factor on p in the residual (Sun et al., equations 3 and 4)."""
    every = np.arange(len(tokens[0]))
    ratios = [p[j][every, x] / q[j][every, x] for j, x in enumerate(tokens)]
    accepted, going = np.zeros(len(every), int), np.ones(len(every), bool)
    joint = [np.ones(len(every))]
    for ratio in ratios:
        joint.append(np.minimum(joint[-1] * ratio, 1))
    for j in range(DEPTHS):
        if way == "standard":
            going &= uniform[:, j] < ratios[j]
            accepted += going
            continue
        chance = joint[j + 1]
        if j < DEPTHS - 1:
            residual = np.maximum(chance[:, None] * p[j + 1] - q[j + 1], 0).sum(1)
            rest = residual + 1 - chance
            chance = np.where(rest > 0, residual / np.where(rest > 0, rest, 1), 1)
        accepted = np.where(uniform[:, j] <= chance, j + 1, accepted)
    return accepted, joint if way == "block" else [np.ones(len(every))] * (DEPTHS + 1)


def sample(chains: Chains, way: str, numbers: str) -> tuple[Array, float]:
    """Sequences [REQUESTS, POSITIONS + 1] from token 0, and the accepted tokens of a draft."""
    noise = Noise(len(chains.p))
    text = np.zeros((REQUESTS, POSITIONS + 2 * DEPTHS + 1), int)
    last, drafts, total = np.zeros(REQUESTS, int), 0, 0
    while len(rows := np.flatnonzero(last < POSITIONS)):
        if numbers == "new":
            noise.renew()
        begin = last[rows]
        tokens, p, q = draft(chains, noise, rows, begin, text[rows, begin])
        uniform = np.stack([noise.uniform[rows, begin + j] for j in range(DEPTHS)], 1)
        accepted, factor = verify(way, tokens, p, q, uniform)
        for count in range(DEPTHS + 1):
            own = accepted == count
            weights = p[count][own]
            if count < DEPTHS:
                weights = np.maximum(factor[count][own, None] * weights - q[count][own], 0)
            with np.errstate(divide="ignore"):
                token = (np.log(weights) + noise.others[rows[own], begin[own] + count]).argmax(1)
            for j in range(count):
                text[rows[own], begin[own] + 1 + j] = tokens[j][own]
            text[rows[own], begin[own] + 1 + count] = token
        last[rows] += accepted + 1
        drafts, total = drafts + len(rows), total + int(accepted.sum())
    return text[:, : POSITIONS + 1], total / drafts


def deviations(chains: Chains, text: Array) -> tuple[float, float]:
    """Largest total variation of a position from its exact distribution, and largest deviation of a count in sigmas."""
    exact, worst, sigmas = np.eye(len(chains.p))[0], 0.0, 0.0
    for position in range(1, POSITIONS + 1):
        exact = exact @ chains.p
        shares = np.bincount(text[:, position], minlength=len(exact)) / REQUESTS
        worst = max(worst, 0.5 * np.abs(shares - exact).sum())
        off = (shares - exact) / np.sqrt(exact * (1 - exact) / REQUESTS)
        sigmas = max(sigmas, np.abs(off).max())
    return worst, sigmas


def main() -> None:
    """Print the table."""
    print("| tokens, distance | verification | random numbers | accepted | total variation | sigmas |")
    print("|---|---|---|---|---|---|")
    for vocab, distance in ((2, 1.0), (2, 2.0), (5, 1.0)):
        chains = Chains.random(vocab, distance)
        for way in ("standard", "block"):
            for numbers in ("vLLM's", "new"):
                text, accepted = sample(chains, way, numbers)
                worst, sigmas = deviations(chains, text)
                about = f"{vocab}, {distance:g}"
                print(f"| {about} | {way} | {numbers} | {accepted:.3f} | {worst:.4f} | {sigmas:.1f} |")


if __name__ == "__main__":
    main()
