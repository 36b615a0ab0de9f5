"""What the objectives are worth to a head that cannot know what the policy knows, on tables that are solved exactly.

    python docs/limited_tables.py

Prints the tables of docs/losses.md, "End to end along the sampled text". CPU, one core, half a minute.

The policy's distribution of a token depends on the context x, on m, which the head does not see, and on the tokens
before. The head sees x at depth 1 and the last token at depths 2 and 3. A *share* says how much m decides.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

CONTEXTS, HIDDEN, TOKENS = 6, 4, 7
SHARPNESS = 3.0
OBJECTIVES = ("kl", "tv", "prefix held", "e2e_tv", "e2e_tv_sampled")
FORMS = ("e2e_tv", "e2e_tv_sampled", "no control variate")


@dataclass(frozen=True)
class Tables:
    """Log-probabilities of a token at each depth, by context, hidden part and the tokens before: [X, M, V, ... V]."""

    log_p: Sequence[Tensor]

    @classmethod
    def draw(cls, share: float, seed: int, depths: int) -> Tables:
        """Gaussian logits, of which `share` (by standard deviation, against 1) comes from the hidden part."""
        rng = torch.Generator().manual_seed(seed)

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=rng, dtype=torch.float64)

        seen = [(CONTEXTS, 1, TOKENS), (1, 1, TOKENS, TOKENS), (1, 1, 1, TOKENS, TOKENS)]
        whole = [
            (CONTEXTS, HIDDEN, TOKENS),
            (CONTEXTS, HIDDEN, TOKENS, TOKENS),
            (CONTEXTS, HIDDEN, 1, TOKENS, TOKENS),
        ]
        scale = SHARPNESS / (1 + share**2) ** 0.5
        logits = [scale * (normal(*a) + share * normal(*b)) for a, b in zip(seen, whole, strict=True)]
        logits[2] = logits[2].expand(CONTEXTS, HIDDEN, TOKENS, TOKENS, TOKENS)
        return cls([each.log_softmax(-1) for each in logits[:depths]])

    def cold_head(self) -> list[Tensor]:
        """Logits of a head that knows nothing: [X, V] at depth 1, [V, V] by the last token after it."""
        return [torch.zeros(CONTEXTS if j == 0 else TOKENS, TOKENS).double() for j in range(len(self.log_p))]

    def drafts(self, head: Sequence[Tensor]) -> list[Tensor]:
        """The head's log-probabilities, to be broadcast with the policy's."""
        log_q = [part.log_softmax(-1) for part in head]
        return [log_q[0][:, None], *(part[(None,) * (2 + j)] for j, part in enumerate(log_q[1:]))]


def value(name: str, tables: Tables, head: Sequence[Tensor]) -> Tensor:
    """What an objective maximizes, in its exact mean over texts; `e2e_tv_sampled` is the engine's accepted drafts."""
    total: Tensor | float = 0.0
    for log_p, log_q in reversed(list(zip(tables.log_p, tables.drafts(head), strict=True))):
        p, ratio = log_p.exp(), (log_q - log_p).clamp(max=0.0).exp()
        alpha = (p * ratio).sum(-1) if name != "kl" else (p * log_q).sum(-1)
        carried = {"prefix held": ratio.detach(), "e2e_tv_sampled": ratio}.get(name, torch.ones_like(ratio))
        after = (p * carried * total).sum(-1)
        total = alpha * (1 + after) if name == "e2e_tv" else alpha + after
    assert isinstance(total, Tensor)
    return total.mean()


def optimum(name: str, tables: Tables, start: Sequence[Tensor], steps: int) -> list[Tensor]:
    """The head that Adam finds in `steps` exact steps from `start`, at a rate that falls to 0."""
    head = [part.clone().requires_grad_() for part in start]
    adam = torch.optim.Adam(head, lr=0.05)
    for step in range(steps):
        adam.param_groups[0]["lr"] = 0.05 * (1 - step / steps)
        adam.zero_grad()
        (-value(name, tables, head)).backward()
        adam.step()
    return [part.detach() for part in head]


def optima(share: float, seeds: Sequence[int], depths: int, steps: int) -> dict[str, float]:
    """Accepted drafts at the optimum of each objective, mean over tables, and the overlap at depth 1 under `kl`."""
    found: dict[str, list[float]] = {}
    for seed in seeds:
        tables = Tables.draw(share, seed, depths)
        warm = optimum("kl", tables, tables.cold_head(), steps)
        for name in OBJECTIVES:
            head = warm if name == "kl" else optimum(name, tables, warm, steps)
            found.setdefault(name, []).append(value("e2e_tv_sampled", tables, head).item())
        first = Tables(tables.log_p[:1])
        found.setdefault("overlap at depth 1", []).append(value("tv", first, warm[:1]).item())
    return {name: sum(values) / len(values) for name, values in found.items()}


def mean_squares(share: float, seed: int, texts: int, steps: int) -> dict[str, float]:
    """Mean square of one text's gradient with respect to the head's logits, at the optimum of `kl`, three depths.

    Args:
        share: of the hidden part.
        seed: of the table and the texts.
        texts: how many are sampled.
        steps: to that optimum.
    """
    tables = Tables.draw(share, seed, 3)
    head = optimum("kl", tables, tables.cold_head(), steps)
    rng = torch.Generator().manual_seed(seed)
    index = [torch.randint(size, (texts,), generator=rng) for size in (CONTEXTS, HIDDEN)]
    rows, policy, tokens = [index[0]], [], []
    for log_p in tables.log_p:
        policy.append(log_p[tuple(index)])
        tokens.append(torch.multinomial(policy[-1].exp(), 1, generator=rng)[:, 0])
        index.append(tokens[-1])
        rows.append(tokens[-1])
    logits = [part[row].requires_grad_() for part, row in zip(head, rows, strict=False)]
    log_q = [part.log_softmax(-1) for part in logits]
    pairs = list(zip(policy, log_q, strict=True))
    alpha = [torch.minimum(p.exp(), q.exp()).sum(-1) for p, q in pairs]
    ratio = [
        (q - p).gather(1, token[:, None])[:, 0].clamp(max=0.0).exp()
        for (p, q), token in zip(pairs, tokens, strict=True)
    ]
    squares = {}
    for form in FORMS:
        gradient = torch.autograd.grad(_of_text(form, alpha, ratio).sum(), logits, retain_graph=True)
        squares[form] = sum((part**2).sum().item() for part in gradient) / texts
    return {"overlap at depth 1": alpha[0].mean().item(), **squares}


def _of_text(form: str, alpha: Sequence[Tensor], ratio: Sequence[Tensor]) -> Tensor:
    """What a form maximizes along one text (docs/losses.md), for many texts at once."""
    (a1, a2, a3), (r1, r2, _) = alpha, ratio
    if form == "e2e_tv":
        return a1 * (1 + a2 * (1 + a3))
    c1, c2 = ((a1 + a1**2).detach(), a2.detach()) if form == "e2e_tv_sampled" else (0.0, 0.0)
    return a1 + c1 * (a1 - r1) + r1 * (a2 + c2 * (a2 - r2) + r2 * a3)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=400, help="of Adam, to an optimum")
    parser.add_argument("--texts", type=int, default=20000, help="sampled for the size of the gradients")
    args = parser.parse_args()
    torch.set_num_threads(1)
    for depths, seeds in ((3, (0, 1)), (2, (0, 1, 2))):
        print(f"\naccepted drafts at the optimum, {depths} depths, share 2, tables {seeds}")
        for name, mean in optima(2.0, seeds, depths, args.steps).items():
            print(f"  {name:20} {mean:.3f}")
    for share in (2.0, 0.1):
        print(f"\nmean square of a text's gradient, share {share}")
        for name, mean in mean_squares(share, 0, args.texts, args.steps).items():
            print(f"  {name:20} {mean:.3f}")


if __name__ == "__main__":
    main()
