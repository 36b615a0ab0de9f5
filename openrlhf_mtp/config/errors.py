"""Errors a user can act on. The command line prints them as one block, without a traceback."""

from collections.abc import Sequence

USER_ERROR = 2
"""Exit code when a job, a folder or a cluster is not as it must be: another attempt would end the same way. Nothing was
started, or nothing could be trained, or the job's own limit ended it. The preflight of a pod ends with it too."""


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
