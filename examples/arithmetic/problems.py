"""Addition of two three-digit numbers with worked steps: one line a column, from the right.

    prompt    347+285=....
    response  347+285=..12      7+5, written with its carry
              347+285=.132      4+8 and the carry
              347+285=0632      3+2 and the carry: the answer

Each line is the sum of the last columns so far. Most of a response is copying, as in real reasoning, and a head can
draft it; two digits of a line are new.

The lessons are copied from a careless teacher: `worked(..., forget=0.75)` forgets three carries in four and goes on
from there. A model taught by it knows how to add but forgets as often as its teacher did: a fair solver, not a good
one, with something left for RL to repair.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass

DIGITS = 3
HELD_OUT_EVERY = 17


@dataclass(frozen=True)
class Problem:
    """Two numbers to add, each 0 to 999."""

    left: int
    right: int

    @property
    def head(self) -> str:
        """What every line begins with."""
        return f"{self.left:0{DIGITS}d}+{self.right:0{DIGITS}d}="

    @property
    def prompt(self) -> str:
        """The text the model is given."""
        return self.head + "." * (DIGITS + 1) + "\n"

    @property
    def answer(self) -> str:
        """The right sum, as the reward function compares it."""
        return str(self.left + self.right)

    @property
    def held_out(self) -> bool:
        """Whether the problem is kept for evaluation; decided by its numbers alone, so that no stage trains on it."""
        return (self.left * 10**DIGITS + self.right) % HELD_OUT_EVERY == 0


def problems(seed: int, *, held_out: bool) -> Iterator[Problem]:
    """Endless stream of problems of one side of the split."""
    rng = random.Random(seed)
    while True:
        problem = Problem(rng.randrange(10**DIGITS), rng.randrange(10**DIGITS))
        if problem.held_out == held_out:
            yield problem


def worked(problem: Problem, forget: float, rng: random.Random) -> str:
    """The response; a carry is forgotten with probability `forget`, and the lines after it follow from the error."""
    field, carry, lines = ["."] * (DIGITS + 1), 0, []
    for column in range(DIGITS):
        total = problem.left // 10**column % 10 + problem.right // 10**column % 10
        if carry and rng.random() >= forget:
            total += 1
        carry, digit = divmod(total, 10)
        field[DIGITS - column - 1 : DIGITS - column + 1] = str(carry), str(digit)
        lines.append(problem.head + "".join(field))
    return "\n".join(lines)
