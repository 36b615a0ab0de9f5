"""Walks on a ring of 100 places: one generator, with a dial for entropy, length and difficulty.

    prompt    03:47             the goal, here its last digit (modulus 10), and the place to start from
    response  b64e73a76d17...   a move and the place it leads to, step after step

A move is a letter with a fixed length (`LENGTHS`); no move may be made twice in a row. All moves but the last one are
valid at every step, so most responses are right in a great many ways: which move is made is real entropy, the two
digits after it are arithmetic, and the last steps must steer to the goal.

The reference walker has a taste: it weighs the moves by the place it is at. Its walks are drawn exactly from its
taste *conditioned on reaching the goal*. With w(m | s) the taste at place s and v_n(s, m) the probability to end well
when n steps are left and m was the last move,

    v_0(s, m) = [s = goal mod modulus],     v_n(s, m) = sum_{m' != m} w(m' | s) v_{n-1}(s + length(m'), m')

so the next move has probability w(m' | s) v_{n-1}(s + length(m'), m') / v_n(s, m), and the entropy of every choice is
known in closed form (`choices`): the dial can be read off instead of guessed.
"""

import json
import math
import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

RING = 100
LENGTHS = dict(
    zip("abcdefghijklmnop", (3, 17, 28, 41, 9, 56, 64, 92, 33, 75, 86, 20, 51, 67, 38, 79), strict=True)
)
"""How far each move goes."""
TASTE_SEED = 20261121
HELD_OUT_EVERY = 17


@dataclass(frozen=True)
class Dial:
    """How hard a walk is.

    Attributes:
        branches: moves there are, 3 to 16; more moves, more entropy at every choice.
        taste: how much the walker's preferences differ; 0 makes all moves equally likely, 2 leaves little choice.
        steps: moves of a walk; a response has three tokens a step and its end.
        modulus: the walk must end at its goal up to multiples of this, a divisor of 100: 1 asks for nothing, 10 for
            the last digit, 100 for the place itself.
    """

    branches: int = 12
    taste: float = 2.0
    steps: int = 24
    modulus: int = 10

    def __post_init__(self) -> None:
        if not 3 <= self.branches <= len(LENGTHS):
            raise ValueError(f"branches: got {self.branches}, expected 3 to {len(LENGTHS)}")
        if self.steps < 4:
            raise ValueError(f"steps: got {self.steps}, expected 4 or more; fewer cannot reach every goal")
        if self.modulus < 1 or RING % self.modulus:
            raise ValueError(f"modulus: got {self.modulus}, expected a divisor of {RING}")
        if self.taste < 0:
            raise ValueError(f"taste: got {self.taste}, expected 0 or more")

    @property
    def moves(self) -> dict[str, int]:
        """The moves of this dial and their lengths."""
        return dict(list(LENGTHS.items())[: self.branches])

    @property
    def response_tokens(self) -> int:
        """Length of a right response in characters, which are tokens; its end not counted."""
        return 3 * self.steps


@dataclass(frozen=True)
class Problem:
    """Where a walk starts and what it is to reach."""

    start: int
    goal: int

    @property
    def prompt(self) -> str:
        """The text the model is given."""
        return f"{self.goal:02d}:{self.start:02d}"

    @property
    def held_out(self) -> bool:
        """Whether the problem is kept for evaluation; decided by its numbers alone, so that no stage trains on it."""
        return (self.start * RING + self.goal) % HELD_OUT_EVERY == 0

    def label(self, dial: Dial) -> str:
        """All that the reward has to know, as JSON: the checker shares no code with this generator."""
        rules = {"start": self.start, "goal": self.goal, "modulus": dial.modulus, "steps": dial.steps}
        return json.dumps({**rules, "moves": dial.moves})


def problems(seed: int, *, held_out: bool) -> Iterator[Problem]:
    """Endless stream of problems of one side of the split."""
    rng = random.Random(seed)
    while True:
        problem = Problem(rng.randrange(RING), rng.randrange(RING))
        if problem.held_out == held_out:
            yield problem


@lru_cache
def tastes(dial: Dial) -> NDArray[np.float64]:
    """w(m | s) as [place, move]: a preference of its own for each place and move; each row sums to 1.

    The table is drawn for all moves at once and then cut, so that a dial with fewer moves has the same preferences.
    """
    drawn = np.random.default_rng(TASTE_SEED).standard_normal((RING, len(LENGTHS)))
    logits = dial.taste * drawn[:, : dial.branches]
    weights: NDArray[np.float64] = np.exp(logits - logits.max(1, keepdims=True))
    return weights / weights.sum(1, keepdims=True)


@lru_cache(maxsize=RING)
def outlook(dial: Dial, residue: int) -> NDArray[np.float64]:
    """w(m | s) v_{n-1}(s + length(m), m) as [steps left n, place, move]; index 0 is unused."""
    weights, lengths = tastes(dial), np.array(list(dial.moves.values()))
    arrival = (np.arange(RING)[:, None] + lengths) % RING
    arrived = (np.arange(RING) % dial.modulus == residue).astype(float)
    value = np.repeat(arrived[:, None], dial.branches, axis=1)  # [place, last move]
    table = np.zeros((dial.steps + 1, RING, dial.branches))
    for left in range(1, dial.steps + 1):
        table[left] = weights * value[arrival, np.arange(dial.branches)]
        value = table[left].sum(1, keepdims=True) - table[left]
    return table


def choices(problem: Problem, dial: Dial, left: int, place: int, last: int | None) -> NDArray[np.float64]:
    """The reference walker's distribution over the moves when `left` steps are left."""
    scores = outlook(dial, problem.goal % dial.modulus)[left, place].copy()
    if last is not None:
        scores[last] = 0.0
    total = scores.sum()
    if total <= 0:
        raise ValueError(f"{problem} cannot be solved from {place} in {left} steps; give the dial more moves")
    return scores / total


def entropy(distribution: NDArray[np.float64]) -> float:
    """In nats."""
    positive = distribution[distribution > 0]
    return float(-(positive * np.log(positive)).sum())


@dataclass(frozen=True)
class Walk:
    """A right response and the entropy (nat) of each of its choices under the reference walker."""

    text: str
    entropies: tuple[float, ...]


def walk(problem: Problem, dial: Dial, rng: random.Random) -> Walk:
    """Draw one of the reference walker's walks; all of them are right."""
    letters, lengths = list(dial.moves), list(dial.moves.values())
    place, last, text, entropies = problem.start, None, [], []
    for left in range(dial.steps, 0, -1):
        distribution = choices(problem, dial, left, place, last)
        last = rng.choices(range(dial.branches), distribution.tolist())[0]
        place = (place + lengths[last]) % RING
        text.append(f"{letters[last]}{place:02d}")
        entropies.append(entropy(distribution))
    return Walk("".join(text), tuple(entropies))


def branching_entropy(dial: Dial, walks: int = 64, seed: int = 0) -> float:
    """Mean entropy (nat) of a choice of the reference walker, over `walks` walks: what the dial comes to."""
    rng, stream = random.Random(seed), problems(seed, held_out=False)
    drawn = [walk(next(stream), dial, rng).entropies for _ in range(walks)]
    return math.fsum(map(math.fsum, drawn)) / (walks * dial.steps)
