"""What one of OpenRLHF's command-line flags accepts, as plain data.

`upstream.openrlhf_flags` fills these from OpenRLHF's own parser; nothing here knows any flag by name.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from openrlhf_mtp.config.errors import JobError

Scalar = str | int | float | bool
FlagValue = Scalar | tuple[Scalar, ...] | None
Kind = Literal["switch", "int", "float", "str"]


@dataclass(frozen=True)
class FlagSpec:
    """One flag.

    Attributes:
        name: dotted name without the leading dashes, as written in a job file.
        kind: `switch` takes no value on the command line and true or false in a job file.
        nargs: None for one value, a count, "+" (one or more) or "*" (any number).
        choices: allowed values, empty when free.
        default: OpenRLHF's default.
        help: OpenRLHF's help text, "" when it has none.
        off_name: the switch that turns this one off again, when it is on by default.
    """

    name: str
    kind: Kind
    nargs: int | str | None = None
    choices: tuple[Scalar, ...] = ()
    default: FlagValue = None
    help: str = ""
    off_name: str | None = None

    def coerce(self, value: object) -> FlagValue:
        """Check a job file's value and bring it to the flag's type; null means OpenRLHF's default.

        Raises:
            JobError: got, expected.
        """
        if value is None:
            return None
        if self.kind == "switch":
            return self._switch(value)
        if self.nargs is None:
            return self._scalar(value)
        items = tuple(self._scalar(item) for item in (value if isinstance(value, list | tuple) else [value]))
        if isinstance(self.nargs, int) and len(items) != self.nargs:
            raise self._refusal(value, f"a list of {self.nargs} values")
        if self.nargs == "+" and not items:
            raise self._refusal(value, "a list of one or more values")
        return items

    def argv(self, value: FlagValue) -> list[str]:
        """The command-line words that give this flag `value`; none when it is left at its default."""
        if value is None:
            return []
        if self.kind == "switch":
            if value:
                return [f"--{self.name}"]
            return [f"--{self.off_name}"] if self.off_name else []
        if isinstance(value, tuple):
            return [f"--{self.name}", *map(str, value)]
        return [f"--{self.name}={value}"]

    def _switch(self, value: object) -> bool:
        if not isinstance(value, bool):
            raise self._refusal(value, "true or false")
        if not value and self.default is True and self.off_name is None:
            raise self._refusal(value, "true: OpenRLHF has no way to turn this switch off")
        return value

    def _scalar(self, value: object) -> Scalar:
        wanted = {"int": "a whole number", "float": "a number", "str": "text"}[self.kind]
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise self._refusal(value, wanted)
        result: Scalar = value
        if self.kind == "str":
            result = str(value)
        elif isinstance(value, str) or (self.kind == "int" and value != int(value)):
            raise self._refusal(value, wanted)
        else:
            result = int(value) if self.kind == "int" else float(value)
        if self.choices and result not in self.choices:
            raise self._refusal(value, f"one of {', '.join(map(str, self.choices))}")
        return result

    def _refusal(self, value: object, expected: str) -> JobError:
        return JobError(f"{self.name}: got {value!r}, expected {expected}")


FlagSpecs = Mapping[str, FlagSpec]
