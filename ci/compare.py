"""A benchmark's figures against the committed ones: what is worse than its tolerance is a regression."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

BASELINES = Path(__file__).parent / "baselines.yaml"
TAKES = ("first", "last", "min", "max", "mean", "median")
Verdict = Literal["ok", "better", "worse", "missing"]


@dataclass(frozen=True)
class Expectation:
    """One figure of a benchmark.

    Attributes:
        metric: its name in summary.json or bench_all.json.
        take: which of a metric's figures over the steps, or over the repeats of a measurement.
        value: what was measured when the baseline was committed.
        tolerance: how far a figure may be on the worse side, in the metric's own unit.
        better: higher or lower.
    """

    metric: str
    take: str
    value: float
    tolerance: float
    better: Literal["higher", "lower"]

    def __post_init__(self) -> None:
        if self.take not in TAKES or self.better not in ("higher", "lower") or not self.tolerance >= 0:
            raise ValueError(
                f"{self.metric}: got {self}, expected take one of {', '.join(TAKES)}, better higher or lower, "
                "tolerance 0 or more"
            )

    @property
    def name(self) -> str:
        """As in the table: `eval/accuracy (last)`."""
        return f"{self.metric} ({self.take})"

    @property
    def limit(self) -> float:
        """The last value that is no regression."""
        return self.value - self.tolerance if self.better == "higher" else self.value + self.tolerance


@dataclass(frozen=True)
class Result:
    """One figure compared; `got` is None when the run did not log it."""

    expected: Expectation
    got: float | None

    @property
    def verdict(self) -> Verdict:
        """Worse or missing is a regression."""
        if self.got is None or not math.isfinite(self.got):
            return "missing"
        sign = 1.0 if self.expected.better == "higher" else -1.0
        if sign * (self.got - self.expected.limit) < 0:
            return "worse"
        return "better" if sign * (self.got - self.expected.value) > self.expected.tolerance else "ok"


def load_baseline(name: str, path: Path = BASELINES) -> list[Expectation]:
    """The figures of a benchmark.

    Raises:
        ValueError: no such benchmark, or an entry that cannot be used.
    """
    known = yaml.safe_load(path.read_text(encoding="utf-8"))
    if name not in known:
        raise ValueError(f"{path.name}: got {name!r}, expected one of {', '.join(known)}")
    return [Expectation(**entry) for entry in known[name]]


def compare(summary: Mapping[str, Any], expected: Sequence[Expectation]) -> list[Result]:
    """Every expectation against a run's summary.json."""
    figures = summary.get("metrics", {})
    return [Result(one, figures.get(one.metric, {}).get(one.take)) for one in expected]


def regressions(results: Sequence[Result]) -> list[Result]:
    """What fails the benchmark."""
    return [result for result in results if result.verdict in ("worse", "missing")]
