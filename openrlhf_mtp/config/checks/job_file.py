"""What loading the job file found that may not be meant as it stands there."""

from collections.abc import Iterator

from openrlhf_mtp.config.checks.conflict import Conflict
from openrlhf_mtp.config.job_context import Situation


def notes(s: Situation) -> Iterator[Conflict]:
    """The job's own notes, as warnings."""
    for setting, text in s.job.notes:
        yield Conflict("warning", setting, text)
