"""Response lengths of a whole rollout: one number for all, or a log-normal distribution with its long tail."""

from __future__ import annotations

import random
from dataclasses import dataclass
from math import exp, log
from statistics import NormalDist

from openrlhf_mtp.config.errors import JobError

FORM = "a number of tokens, or lognormal:MEDIAN:SIGMA:MOST"


@dataclass(frozen=True)
class Lengths:
    """A log-normal distribution of lengths in tokens.

    Attributes:
        median: half of the responses are shorter.
        sigma: standard deviation of the length's logarithm; 0 for one length.
        most: no response is longer, as a limit of new tokens has it.
    """

    median: float
    sigma: float
    most: int

    def draw(self, count: int, seed: int = 0) -> list[int]:
        """So many lengths: the distribution's quantiles in an order drawn from the seed.

        Quantiles instead of draws, so that every count has the whole distribution and no luck with its tail.

        >>> sorted(Lengths(100, 1.0, 400).draw(5))
        [28, 59, 100, 169, 360]
        """
        normal = NormalDist(log(self.median), self.sigma) if self.sigma else None
        quantiles = [(at + 0.5) / count for at in range(count)]
        drawn = [self.median if normal is None else exp(normal.inv_cdf(each)) for each in quantiles]
        lengths = [min(self.most, max(1, round(each))) for each in drawn]
        random.Random(seed).shuffle(lengths)
        return lengths


def parse_lengths(text: str) -> Lengths:
    """Read the value of `--lengths`.

    Raises:
        JobError: it has another form, or a value out of its range.
    """
    name, *numbers = text.split(":")
    try:
        if not numbers:
            return _checked(int(name), 0.0, int(name), text)
        median, sigma, most = numbers
        if name == "lognormal":
            return _checked(float(median), float(sigma), int(most), text)
    except ValueError as problem:
        if isinstance(problem, JobError):
            raise
    raise JobError(f"--lengths: got {text!r}, expected {FORM}")


def _checked(median: float, sigma: float, most: int, text: str) -> Lengths:
    if not (1 <= median <= most and 0 <= sigma <= 10):
        raise JobError(f"--lengths: got {text!r}, expected 1 <= MEDIAN <= MOST and SIGMA from 0 to 10")
    return Lengths(median, sigma, most)
