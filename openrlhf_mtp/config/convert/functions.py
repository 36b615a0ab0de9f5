"""Functions of a script: where they are defined, so that they can be read where they are called."""

from collections.abc import Sequence
from dataclasses import dataclass

from openrlhf_mtp.config.convert.parts import Operator, Token, Word


@dataclass
class Function:
    """The definition of a shell function.

    Attributes:
        name: what it is called by.
        body: the tokens between its braces.
        end: the place in the stream behind it.
        calls: how often it was called so far.
    """

    name: str
    body: Sequence[Token]
    end: int
    calls: int = 0


def function_at(stream: Sequence[Token], at: int) -> Function | None:
    """The function that is defined at this place of the stream, None when none is."""
    first = _bare(stream, at)
    brackets = [_sign(stream, at + 1), _sign(stream, at + 2)] == ["(", ")"]
    if first == "function" and _bare(stream, at + 1):
        name, at = _bare(stream, at + 1), at + 2
        at += 2 if [_sign(stream, at), _sign(stream, at + 1)] == ["(", ")"] else 0
    elif first and brackets:
        name, at = first, at + 3
    else:
        return None
    while _sign(stream, at) == "\n":
        at += 1
    if _bare(stream, at) != "{":
        return None
    depth, start = 1, at + 1
    for place in range(start, len(stream)):
        word = _bare(stream, place)
        begins = isinstance(stream[place - 1], Operator) or place == start
        depth += (word == "{") - (word == "}" and begins)
        if depth == 0:
            return Function(name, stream[start:place], place + 1)
    return Function(name, stream[start:], len(stream))


def _bare(stream: Sequence[Token], at: int) -> str:
    token = stream[at] if at < len(stream) else None
    return token.bare if isinstance(token, Word) else ""


def _sign(stream: Sequence[Token], at: int) -> str:
    token = stream[at] if at < len(stream) else None
    return token.text if isinstance(token, Operator) else ""
