"""Worked solutions of reasoning-gym's problems: what the examples before a question show.

Each function takes an entry (`question`, `answer`, `metadata`) and returns a solution whose last line ends with the
answer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

Entry = Mapping[str, Any]
Worked = Callable[[Entry], str]


def answer_alone(entry: Entry) -> str:
    """No steps."""
    return str(entry["answer"])


def running_total(entry: Entry) -> str:
    """`chain_sum`: a line for each term, `6 + 2 = 8`."""
    first, *rest = entry["metadata"]["expression"].split()
    total, lines = int(first), []
    for sign, term in zip(rest[::2], rest[1::2], strict=True):
        after = total + int(term) if sign == "+" else total - int(term)
        lines.append(f"{total} {sign} {term} = {after}")
        total = after
    return "\n".join(lines)


def smallest_first(entry: Entry) -> str:
    """`prime_factorization`: one factor split off at a time, `12 = 2 × 6 = 2 × 2 × 3`."""
    rest, found = entry["metadata"]["number"], []
    forms = [str(rest)]
    for factor in entry["metadata"]["factors"][:-1]:
        rest //= factor
        found.append(str(factor))
        forms.append(" × ".join([*found, str(rest)]))
    return " = ".join(forms)


def divisors(entry: Entry) -> str:
    """`gcd`: the divisors of each number, then the greatest that all have."""
    lines = [
        f"Divisors of {number}: {', '.join(str(d) for d in range(1, number + 1) if number % d == 0)}"
        for number in entry["metadata"]["numbers"]
    ]
    return "\n".join([*lines, f"Greatest in all: {entry['answer']}"])


def letter_by_letter(entry: Entry) -> str:
    """`spell_backward`: the letters, the letters backward, the word."""
    word = entry["metadata"]["word"]
    return f"Letters: {' '.join(word)}\nBackward: {' '.join(reversed(word))}\nWord: {word[::-1]}"


def repeated_sum(entry: Entry) -> str:
    """`products` of two factors: `4 * 3 = 4 + 4 + 4 = 12`."""
    left, right = map(int, entry["metadata"]["expression"].split(" * "))
    return " = ".join(
        [f"{left} * {right}", *([" + ".join([str(left)] * right)] if right > 1 else []), entry["answer"]]
    )


def word_by_word(entry: Entry) -> str:
    """`letter_counting`: each word's letters and count, then the total."""
    span, letter = entry["metadata"]["span"], entry["metadata"]["target_letter"]
    lines = [f"{' '.join(word)}: {word.lower().count(letter)}" for word in span]
    return "\n".join([*lines, f"Total: {entry['answer']}"])


def animal_by_animal(entry: Entry) -> str:
    """`leg_counting`: each animal's legs, then their sum."""
    from reasoning_gym.arithmetic.leg_counting import ANIMALS

    animals = entry["metadata"]["animals"]
    lines = [
        f"{count} {name}: {count} × {ANIMALS[name]} = {count * ANIMALS[name]}"
        for name, count in animals.items()
    ]
    legs = [str(count * ANIMALS[name]) for name, count in animals.items()]
    return "\n".join([*lines, f"Total: {' + '.join(legs)} = {entry['answer']}"])
