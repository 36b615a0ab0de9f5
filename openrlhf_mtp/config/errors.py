"""Errors a user can act on. The command line prints them as one block, without a traceback."""

from collections.abc import Sequence


class JobError(ValueError):
    """A job that cannot run as asked; the message says what was given, what was expected and how to fix it."""


class JobErrors(JobError):
    """Several independent problems, reported together so that one run of `check` shows them all.

    `problems` holds one message each, in the order they were found.
    """

    def __init__(self, title: str, problems: Sequence[str]) -> None:
        assert problems, "JobErrors needs at least one problem"
        self.problems = tuple(problems)
        super().__init__("\n".join([title, *(f"  - {problem}" for problem in self.problems)]))
