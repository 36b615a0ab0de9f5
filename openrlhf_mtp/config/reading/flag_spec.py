"""The values that one of OpenRLHF's command-line flags accepts, as plain data.

`upstream.openrlhf.flags` fills these from OpenRLHF's own parser.
"""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

from openrlhf_mtp.config.errors import JobError
from openrlhf_mtp.config.reading import values
from openrlhf_mtp.config.reading.values import UnfitError, shown

Scalar = str | int | float | bool
FlagValue = Scalar | tuple[Scalar, ...] | None
Kind = Literal["switch", "int", "float", "str"]

_READ: dict[Kind, Callable[[object], Scalar]] = {
    "switch": values.switch,
    "int": values.whole_number,
    "float": values.number,
    "str": values.text,
}
_PLURAL = {"int": "whole numbers", "float": "numbers", "str": "texts"}
_NEGATIVE = re.compile(r"-\d+|-\d*\.\d+")
"""The form that argparse takes for a negative number; anything else with a dash in front is an option to it."""


@dataclass(frozen=True)
class FlagSpec:
    """One of OpenRLHF's command-line flags.

    Attributes:
        name: dotted name without the leading dashes, as written in a job file.
        kind: `switch` takes no value on the command line and true or false in a job file.
        nargs: None for one value, a count, "+" (one or more) or "*" (any number).
        choices: allowed values, empty when free.
        default: OpenRLHF's default.
        help: OpenRLHF's help text, "" when it has none.
        off_name: the switch that turns this one off again, when it is on by default.
        opposite: the switch that this one turns off; a job that sets this one sets that one to the contrary.
    """

    name: str
    kind: Kind
    nargs: int | str | None = None
    choices: tuple[Scalar, ...] = ()
    default: FlagValue = None
    help: str = ""
    off_name: str | None = None
    opposite: str | None = None

    @property
    def is_text(self) -> bool:
        """Whether any one word is a value."""
        return self.kind == "str" and self.nargs is None

    def coerce(self, value: object) -> FlagValue:
        """Check a job file's value and bring it to the flag's type; null means OpenRLHF's default.

        Raises:
            JobError: got, expected.
        """
        if value is None:
            return None
        try:
            return self._one(value) if self.nargs is None else self._list(value)
        except UnfitError as unfit:
            raise JobError(f"{self.name}: got {shown(value)}, expected {unfit}") from unfit

    def argv(self, value: FlagValue) -> list[str]:
        """The command-line words that give this flag `value`; none when it is left at its default."""
        if value is None:
            return []
        if self.kind == "switch":
            if value:
                return [f"--{self.name}"]
            return [f"--{self.off_name}"] if self.off_name else []
        if isinstance(value, tuple):
            return [f"--{self.name}", *map(_list_word, value)]
        return [f"--{self.name}={value}"]

    def _one(self, value: object) -> Scalar:
        if self.choices:
            return self._choice(value)
        result = _READ[self.kind](value)
        if self.kind == "switch" and not result and self.default is True and self.off_name is None:
            raise UnfitError("true: OpenRLHF has no way to turn this switch off")
        return result

    def _choice(self, value: object) -> Scalar:
        try:
            result: Scalar = _READ[self.kind](value)
        except UnfitError:
            result = ""
        if result not in self.choices:
            raise UnfitError(f"one of {', '.join(map(str, self.choices))}")
        return result

    def _list(self, value: object) -> tuple[Scalar, ...]:
        items = value if isinstance(value, list | tuple) else [value]
        try:
            result = tuple(self._one(item) for item in items)
        except UnfitError as unfit:
            raise UnfitError(self._wanted_list(value)) from unfit
        if (isinstance(self.nargs, int) and len(result) != self.nargs) or (self.nargs == "+" and not result):
            raise UnfitError(self._wanted_list(value))
        for item in result:
            if item == -math.inf or (isinstance(item, str) and _is_option(item)):
                raise UnfitError(
                    f"a list without {shown(item)}, which OpenRLHF's command line takes for an option"
                )
        return result

    def _wanted_list(self, value: object) -> str:
        """The list to write; the user's own, if it was given as `0.2 0.27` or `0.2,0.27`."""
        count = {"+": "one or more ", "*": ""}.get(str(self.nargs), f"{self.nargs} ")
        if self.choices:
            return f"a list of {count}of {', '.join(map(str, self.choices))}"
        words = f"a list of {count}{_PLURAL[self.kind]}"
        meant = re.findall(r"[^\s,\[\]()]+", value) if isinstance(value, str) else []
        if len(meant) == self.nargs or (meant and isinstance(self.nargs, str)):
            try:
                [float(word) for word in meant]
            except ValueError:
                meant = []
            else:
                return f"{words}, [{', '.join(meant)}]"
        if isinstance(self.default, tuple):
            return f"{words}, for example {shown(self.default)}"
        return words


def _list_word(item: Scalar) -> str:
    """A list's item as a word that argparse takes for a value: -1e-06 would be an option to it."""
    if isinstance(item, float) and item < 0 and not _NEGATIVE.fullmatch(str(item)):
        return format(Decimal(str(item)), "f")
    return str(item)


def _is_option(word: str) -> bool:
    """Whether argparse would take a list's word for an option."""
    return word.startswith("-") and word != "-" and " " not in word and not _NEGATIVE.fullmatch(word)


FlagSpecs = Mapping[str, FlagSpec]
