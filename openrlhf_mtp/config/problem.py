"""A problem of a job: what a check reports."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePath
from typing import Literal

from openrlhf_mtp.config.errors import JobErrors
from openrlhf_mtp.config.reading.values import shown


@dataclass(frozen=True)
class Problem:
    """One problem of a job.

    Attributes:
        level: an error stops the job before anything is started; a warning does not.
        setting: the dotted name to look at, or who complains.
        text: the reason and how to fix it, as one sentence in lower case or as "got ..., expected ...; ...".
    """

    level: Literal["error", "warning"]
    setting: str
    text: str

    def __str__(self) -> str:
        return f"{self.setting}: {self.text}"


def error(setting: str, got: object, expected: str, fix: str) -> Problem:
    """An error about a value: the one that the job gives, the ones that work, and how to get there."""
    return refuse(setting, _text(got, expected, fix))


def warning(setting: str, got: object, expected: str, fix: str) -> Problem:
    """A warning about a value, in the form of `error`."""
    return warn(setting, _text(got, expected, fix))


def refuse(setting: str, sentence: str) -> Problem:
    """An error in the check's own words, for all that is no value."""
    return Problem("error", setting, sentence)


def warn(setting: str, sentence: str) -> Problem:
    """A warning in the check's own words, for all that is no value."""
    return Problem("warning", setting, sentence)


def by_level(problems: Iterable[Problem]) -> list[Problem]:
    """Errors first, otherwise in the given order."""
    return sorted(problems, key=lambda problem: problem.level != "error")


def require_no_errors(problems: Iterable[Problem], title: str) -> None:
    """Stop when a problem is an error.

    Raises:
        JobErrors: all of them.
    """
    errors = [str(problem) for problem in problems if problem.level == "error"]
    if errors:
        raise JobErrors(title, errors)


def _text(got: object, expected: str, fix: str) -> str:
    words = str(got) if isinstance(got, str | PurePath) else shown(got)
    return f"got {words}, expected {expected}; {fix}"
