"""Warnings from loading the job file about values that may not mean what they look like."""

from collections.abc import Iterator

from openrlhf_mtp.config.job_context import JobContext
from openrlhf_mtp.config.problem import Problem


def notes(context: JobContext) -> Iterator[Problem]:
    """The job's own notes, as warnings."""
    for setting, text in context.job.notes:
        yield Problem("warning", setting, text)
