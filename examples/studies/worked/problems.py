"""Three families of small problems and a teacher's worked solutions, 10 to 100 characters.

    sum        S25-20+30+10     25-20=5;5+30=35;35+10=45.
    equation   E7x+23=3x+51     4x+23=51;4x=28;x=7.
    countdown  C2,6,7:28        7+6=13;13-2=11?7*6=42;42+2=44?6-2=4;4*7=28.

A countdown asks for a number made of three others, each used once, in two steps. Its solution is a search: the teacher
writes tries down until one gives the target. What to try next is free, so those tokens have entropy; results are facts,
which a head can draft only if it can calculate. All numbers are small enough to be facts of one step.
"""

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import permutations
from typing import Literal

Family = Literal["sum", "equation", "countdown"]
SHARES: dict[Family, int] = {"sum": 1, "equation": 1, "countdown": 2}
"""How often each family comes up: half of all problems are countdowns."""
HELD_OUT_EVERY = 17
LARGEST = 99
"""No number on the way is larger."""
TRIES = 6
"""Most tries that the teacher writes down for a countdown."""
LUCK = 0.3
"""Chance that the teacher's next try is a right one."""


def calculate(left: int, operation: str, right: int) -> int:
    """The result of one step."""
    return {"+": left + right, "-": left - right, "*": left * right}[operation]


@dataclass(frozen=True)
class Problem:
    """A problem: its family, the text after the family's letter, and the answer."""

    family: Family
    text: str
    answer: int

    @property
    def prompt(self) -> str:
        """The text that the policy is given."""
        return f"{self.family[0].upper()}{self.text}\n"

    @property
    def label(self) -> str:
        """What the reward needs to know, as JSON."""
        return json.dumps({"family": self.family, "text": self.text, "answer": self.answer})

    @property
    def held_out(self) -> bool:
        """Whether the problem is kept for evaluation; decided by its text alone, so that no stage trains on it."""
        return sum(at * ord(letter) for at, letter in enumerate(self.text, start=1)) % HELD_OUT_EVERY == 0

    @cached_property
    def tries(self) -> tuple[list[str], list[str]]:
        """Of a countdown: the tries that miss the target, and those that give it."""
        numbers = [int(word) for word in self.text.split(":")[0].split(",")]
        missed, right = [], []
        for a, b, c in permutations(numbers):
            for first in "+-*":
                between = calculate(a, first, b)
                if not 0 <= between <= LARGEST:
                    continue
                for second in "+-*":
                    result = calculate(between, second, c)
                    if 0 <= result <= LARGEST:
                        line = f"{a}{first}{b}={between};{between}{second}{c}={result}"
                        (right if result == self.answer else missed).append(line)
        return missed, right


def make_problem(rng: random.Random) -> Problem:
    """One problem of a random family."""
    (family,) = rng.choices(list(SHARES), list(SHARES.values()))
    return {"sum": _sum, "equation": _equation, "countdown": _countdown}[family](rng)


def problems(seed: int, *, held_out: bool) -> Iterator[Problem]:
    """Endless stream of problems of one side of the split."""
    rng = random.Random(seed)
    while True:
        problem = make_problem(rng)
        if problem.held_out == held_out:
            yield problem


def solution(problem: Problem, rng: random.Random) -> str:
    """What the teacher writes."""
    return {"sum": _sum_solution, "equation": _equation_solution, "countdown": _search}[problem.family](
        problem, rng
    )


def _sum(rng: random.Random) -> Problem:
    total = rng.randint(1, 30)
    text = str(total)
    for _ in range(rng.randint(3, 5)):
        term = rng.randint(1, 30)
        signs = [sign for sign in "+-" if 0 <= calculate(total, sign, term) <= LARGEST]
        sign = rng.choice(signs)
        total = calculate(total, sign, term)
        text += f"{sign}{term}"
    return Problem("sum", text, total)


def _sum_solution(problem: Problem, _: random.Random) -> str:
    words = problem.text.replace("+", " +").replace("-", " -").split()
    total, lines = int(words[0]), []
    for word in words[1:]:
        result = calculate(total, word[0], int(word[1:]))
        lines.append(f"{total}{word}={result}")
        total = result
    return ";".join(lines) + "."


def _equation(rng: random.Random) -> Problem:
    """a x + b = c x + d with a > c."""
    while True:
        x, less, more = rng.randint(1, 12), rng.randint(1, 6), rng.randint(1, 7)
        factor, add = less + more, rng.randint(1, 40)
        right = more * x + add
        if right <= LARGEST:
            return Problem("equation", f"{factor}x+{add}={less}x+{right}", x)


def _equation_solution(problem: Problem, _: random.Random) -> str:
    left, right = problem.text.split("=")
    (factor, add), (less, total) = (side.split("x+") for side in (left, right))
    remains = int(factor) - int(less)
    product = int(total) - int(add)
    return f"{remains}x+{add}={total};{remains}x={product};x={problem.answer}."


def _countdown(rng: random.Random) -> Problem:
    """Three numbers and a result that some try gives."""
    while True:
        numbers = sorted(rng.sample(range(1, 13), 3))
        text = ",".join(map(str, numbers))
        every_try, _ = Problem("countdown", f"{text}:", answer=-1).tries
        target = rng.choice(sorted({int(line.rpartition("=")[2]) for line in every_try}))
        if target not in numbers:
            return Problem("countdown", f"{text}:{target}", target)


def _search(problem: Problem, rng: random.Random) -> str:
    missed, right = problem.tries
    wrong = 0
    while wrong < TRIES - 1 and rng.random() > LUCK:
        wrong += 1
    tries = rng.sample(missed, min(wrong, len(missed)))
    return "".join(f"{line}?" for line in tries) + rng.choice(right) + "."
