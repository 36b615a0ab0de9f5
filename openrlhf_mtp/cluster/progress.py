"""The record that a submitter leaves for its successor."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """The progress of a run, for a submitter that takes over.

    Attributes:
        started: when the first submitter began (seconds since 1970).
        attempt: number of the attempt, from 1.
        uncounted: attempts that failed in a row without the run's script having counted them.
        clearing: the pods of the attempt before are being replaced.
        exit_code: the run has ended with it; None before.
    """

    started: float
    attempt: int = 1
    uncounted: int = 0
    clearing: bool = False
    exit_code: int | None = None
