"""Values of a job file: numbers that remember their text, the kinds that settings take, and how messages show them.

Messages speak YAML: true rather than True, "nothing" rather than None, and no value fills a screen.
"""

import json
import math
import re
from collections.abc import Mapping
from itertools import islice

SHOWN = 80
"""Characters of a value that a message shows."""
LARGEST_WHOLE = 2**31 - 1
"""A whole number above this is a slip of the keyboard: no size, count or length of a job comes near it."""
_SURROGATE = re.compile("[\ud800-\udfff]")


class WrittenInt(int):
    """A whole number that knows its text (`007`), for a setting that is text."""

    written: str

    def __new__(cls, text: str) -> "WrittenInt":
        number = super().__new__(cls, text)
        number.written = text
        return number


class WrittenFloat(float):
    """A number that knows its text (`1e3`, `1.10`), for a setting that is text."""

    written: str

    def __new__(cls, text: str) -> "WrittenFloat":
        bare = text.lower().replace(".inf", "inf").replace(".nan", "nan")
        number = super().__new__(cls, bare)
        number.written = text
        return number


class UnfitError(ValueError):
    """A value of another kind than its setting; the message says what is expected."""


def switch(value: object) -> bool:
    """True or false.

    Raises:
        UnfitError: anything else.
    """
    if not isinstance(value, bool):
        raise UnfitError("true or false")
    return value


def whole_number(value: object) -> int:
    """A whole number, also from 1e3.

    Raises:
        UnfitError: text, true, a fraction, infinity or nan.
    """
    wanted = "a whole number"
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UnfitError(wanted + _unquoted(value))
    if isinstance(value, float) and not value.is_integer():
        raise UnfitError(wanted)
    return int(value)


def number(value: object) -> float:
    """A number; infinity only where it is written as one.

    Raises:
        UnfitError: text, true, nan, or a number too large for a double.
    """
    wanted = "a number"
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UnfitError(wanted + _unquoted(value))
    try:
        result = float(value)
    except OverflowError:
        result = math.inf
    if math.isnan(result):
        raise UnfitError(wanted)
    if math.isinf(result) and "inf" not in written(value).lower():
        raise UnfitError(f"{wanted} of at most 1.8e308")
    return result


def text(value: object) -> str:
    """Text; a number as it was written.

    Raises:
        UnfitError: true, a list, a mapping, or text that no file holds.
    """
    if isinstance(value, bool):
        raise UnfitError(f"text; write '{shown(value)}' in quotes if you mean the word")
    if not isinstance(value, str | int | float):
        raise UnfitError("text")
    result = written(value)
    if _SURROGATE.search(result):
        raise UnfitError("text that UTF-8 can hold, without half a surrogate pair")
    if "\0" in result:
        raise UnfitError("text without a NUL character")
    return result


def written(value: str | int | float) -> str:
    """The text that a value was given as."""
    return value.written if isinstance(value, WrittenInt | WrittenFloat) else str(value)


def shown(value: object, most: int = SHOWN) -> str:
    """A value as YAML writes it on one line, cut to about `most` characters; "nothing" for null."""
    return cut("nothing" if value is None else _flow(value, most), most)


def cut(words: str, most: int = SHOWN) -> str:
    """`words`, or their beginning and how long they are."""
    if len(words) <= most + 20:
        return words
    return f"{words[:most]}… ({len(words):,} characters)"


def digits(number: int) -> str:
    """A whole number; a very large one in words, because Python refuses to print one of more than 4,300 digits."""
    length = int(number.bit_length() * math.log10(2)) + 1
    return str(number) if length < 20 else f"a number of {length} digits"


def _flow(value: object, most: int) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and not isinstance(value, WrittenFloat):
        special = {"inf": ".inf", "-inf": "-.inf", "nan": ".nan"}
        return special.get(str(float(value)), str(float(value)))
    if isinstance(value, WrittenFloat) or (isinstance(value, WrittenInt) and len(value.written) < most):
        return value.written
    if isinstance(value, int):
        return digits(value)
    if isinstance(value, Mapping):
        pairs = (f"{printable(str(key))}: {_flow(item, most)}" for key, item in islice(value.items(), most))
        return "{" + ", ".join(pairs) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_flow(item, most) for item in islice(value, most)) + "]"
    words = str(value)
    if words.isprintable():
        return "'" + words.replace("'", "''") + "'"
    return '"' + "".join(map(_escaped, words[: most + 1])) + "…" * (len(words) > most + 1) + '"'


def printable(words: str) -> str:
    """`words` on one line and without what a terminal would obey, escaped as inside YAML's double quotes."""
    return words if words.isprintable() else "".join(map(_escaped, words))


def _escaped(letter: str) -> str:
    """A letter inside YAML's double quotes."""
    if letter.isprintable() and letter not in '"\\':
        return letter
    return json.dumps(letter)[1:-1] if letter < "\U00010000" else f"\\U{ord(letter):08x}"


def _unquoted(value: object) -> str:
    """The remedy for a number in quotes."""
    looks = isinstance(value, str) and re.fullmatch(r"[-+]?\d+(\.\d*)?([eE][-+]?\d+)?", value)
    return ", without quotes" if looks else ""
