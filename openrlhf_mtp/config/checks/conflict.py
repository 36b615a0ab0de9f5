"""What a check reports."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Conflict:
    """One problem of a job.

    Attributes:
        level: an error stops the job before anything is started; a warning does not.
        setting: the dotted name to look at, or who complains.
        text: what was got, what was expected, how to fix it.
    """

    level: Literal["error", "warning"]
    setting: str
    text: str

    def __str__(self) -> str:
        return f"{self.setting}: {self.text}"


def error(setting: str, got: object, expected: str, fix: str) -> Conflict:
    """A conflict that stops the job."""
    return Conflict("error", setting, _text(got, expected, fix))


def warning(setting: str, got: object, expected: str, fix: str) -> Conflict:
    """A conflict that is only reported."""
    return Conflict("warning", setting, _text(got, expected, fix))


def _text(got: object, expected: str, fix: str) -> str:
    return f"got {got}, expected {expected}; {fix}"
