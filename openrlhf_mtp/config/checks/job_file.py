"""What loading the job file found that may not be meant as it stands there."""

from collections.abc import Iterator

from openrlhf_mtp.config.job_context import JobContext
from openrlhf_mtp.config.problem import Problem


def notes(s: JobContext) -> Iterator[Problem]:
    """The job's own notes, as warnings."""
    for setting, text in s.job.notes:
        yield Problem("warning", setting, text)
