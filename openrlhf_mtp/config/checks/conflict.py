"""What a check reports."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Conflict:
    """One problem of a job.

    Attributes:
        level: an error stops the job before anything is started; a warning does not.
        setting: the dotted name to look at.
        got: what the job says.
        expected: what would work, and why.
        fix: what to change.
    """

    level: Literal["error", "warning"]
    setting: str
    got: object
    expected: str
    fix: str

    def __str__(self) -> str:
        return f"{self.setting}: got {self.got}, expected {self.expected}; {self.fix}"


def error(setting: str, got: object, expected: str, fix: str) -> Conflict:
    """A conflict that stops the job."""
    return Conflict("error", setting, got, expected, fix)


def warning(setting: str, got: object, expected: str, fix: str) -> Conflict:
    """A conflict that is only reported."""
    return Conflict("warning", setting, got, expected, fix)
