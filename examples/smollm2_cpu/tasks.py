"""Families of verifiable problems from reasoning-gym, as rows of a data set.

A row's prompt is a conversation: worked solutions of the same family, then the question. A model of 135 million
parameters seldom solves a problem without them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from worked import (
    Entry,
    Worked,
    animal_by_animal,
    answer_alone,
    divisors,
    letter_by_letter,
    repeated_sum,
    running_total,
    smallest_first,
    word_by_word,
)

SYSTEM = "Solve the problem like the examples."
EXAMPLES_SEED = 1_000_003
"""Of the worked solutions; no data set is made with it."""


@dataclass(frozen=True)
class Task:
    """A family of problems in one size.

    Attributes:
        family: reasoning-gym's name of it.
        settings: of its generator, as reasoning-gym names them; what is not given keeps its default.
        worked: writes an example's solution.
        examples: worked solutions before each question.
    """

    family: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    worked: Worked = answer_alone
    examples: int = 1

    @property
    def name(self) -> str:
        """The family with its settings and examples, as in the table of the README."""
        values = ", ".join(f"{key}={value}" for key, value in self.settings.items())
        return f"{self.family}({values}), {self.examples} × {self.worked.__name__}"

    def entries(self, seed: int, size: int) -> Iterator[Entry]:
        """Problems of reasoning-gym: `question`, `answer`, `metadata`."""
        from reasoning_gym import create_dataset

        return iter(create_dataset(self.family, size=size, seed=seed, **self.settings))

    def conversation(self) -> list[dict[str, str]]:
        """What comes before a question, the same each time, so that an engine computes it once."""
        turns = [_turn("system", SYSTEM)]
        for entry in self.entries(EXAMPLES_SEED, self.examples) if self.examples else ():
            turns += [_turn("user", entry["question"].strip()), _turn("assistant", self.worked(entry))]
        return turns


def problems(task: Task, seed: int, size: int) -> Iterator[dict[str, Any]]:
    """Rows with `input` (messages), `label` (family and entry as JSON, for `reward.py`) and `task`."""
    before = task.conversation()
    for entry in task.entries(seed, size):
        kept = {key: entry[key] for key in ("question", "answer", "metadata")}
        yield {
            "input": [*before, _turn("user", entry["question"].strip())],
            "label": json.dumps({"family": task.family, "entry": kept}, default=str),
            "task": task.name,
        }


def _turn(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


DIGIT = {"min_digits": 1, "max_digits": 1}
CANDIDATES = (
    Task("products", {"min_terms": 2, "max_terms": 2, **DIGIT}, repeated_sum),
    Task("chain_sum", {"min_terms": 2, "max_terms": 2, **DIGIT}, running_total),
    Task("chain_sum", {"min_terms": 3, "max_terms": 3, **DIGIT}, running_total),
    Task("letter_counting", {"min_words": 2, "max_words": 3}, word_by_word),
    Task("letter_counting", {"min_words": 2, "max_words": 3}),
    Task("spell_backward", {"min_word_len": 3, "max_word_len": 4}, letter_by_letter),
    Task("gcd", {"max_numbers": 2, "min_value": 2, "max_value": 20}, divisors),
    Task("leg_counting", {"min_animals": 1, "max_animals": 1, "max_instances": 5}, animal_by_animal),
    Task("leg_counting", {"min_animals": 2, "max_animals": 2, "max_instances": 4}, animal_by_animal),
    Task("prime_factorization", {"min_value": 4, "max_value": 60}, smallest_first),
    Task("products", {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 2}),
    Task("number_format", {"max_num_candidates": 2}),
    Task("needle_haystack", {"min_num_statements": 2, "max_num_statements": 3}),
    Task("word_sequence_reversal", {"min_words": 3, "max_words": 3}),
    Task("gcd", {"max_numbers": 2, "min_value": 2, "max_value": 20}),
)
"""Measured by `measure_tasks.py`; the README has the table."""

TASKS = (CANDIDATES[0], CANDIDATES[2], CANDIDATES[3])
"""Those of the example."""
