"""Words that set a variable: `X=…`, `X+=…`, `X[i]=…` and `X=( … )`."""

import re
from typing import NamedTuple

from openrlhf_mtp.config.convert.parts import Literal, Word

_ASSIGNMENT = re.compile(r"([A-Za-z_]\w*)(\[[^]]*\])?(\+?)=", re.ASCII)


class Target(NamedTuple):
    """The left side of an assignment: name, `[place]` and `+`, both "" without."""

    name: str
    place: str
    add: str


def target_of(word: Word) -> Target | None:
    """The left side of an assignment, None for another word."""
    text = ""
    for part in word.parts:
        if not isinstance(part, Literal) or part.quoted:
            break
        text += part.text
    match = _ASSIGNMENT.match(text)
    return Target(match[1], match[2] or "", match[3]) if match else None


def value_word(word: Word) -> Word:
    """The part of an assignment after its equals sign."""
    parts, text = list(word.parts), ""
    while parts and not text.endswith("="):
        first = parts.pop(0)
        assert isinstance(first, Literal)
        text += first.text
    return Word(tuple(parts), word.line)
