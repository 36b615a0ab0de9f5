"""Addition of two three-digit numbers with worked steps: one line a column, from the right.

    prompt    347+285=....
    response  347+285=..12      7+5, written with its carry
              347+285=.132      4+8 and the carry
              347+285=0632      3+2 and the carry: the answer

Each line is the sum of the last columns so far. Most of a response is copying, as in real reasoning, and a head can
draft it; two digits of a line are new.

There is a second way to respond: write any number down and be done (`guessed`). A model taught to do that in three
problems of five can add but mostly does not try: a fair solver, not a good one. What RL has to find is that working
the columns out pays.
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


def worked(problem: Problem) -> str:
    """The response of a pupil who works it out: a line a column, each with the carry of the one before."""
    field, carry, lines = ["."] * (DIGITS + 1), 0, []
    for column in range(DIGITS):
        total = problem.left // 10**column % 10 + problem.right // 10**column % 10 + carry
        carry, digit = divmod(total, 10)
        field[DIGITS - column - 1 : DIGITS - column + 1] = str(carry), str(digit)
        lines.append(problem.head + "".join(field))
    return "\n".join(lines)


def guessed(problem: Problem, rng: random.Random) -> str:
    """The response of a pupil in a hurry: one line with any number that two such numbers can add up to."""
    return f"{problem.head}{rng.randrange(2 * 10**DIGITS - 1):0{DIGITS + 1}d}"
