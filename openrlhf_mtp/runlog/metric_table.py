"""A table of metrics: how one is declared, what its names are, and how a name is looked up."""

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

_DEPTH = "/depth_{j}"
_ENGINE = "/engine_{i}"
_QUARTER = "/quarter_{q}"
_NUMBER = {"{j}": "[1-9][0-9]*", "{i}": "(?:0|[1-9][0-9]*)", "{q}": "[1-4]"}
_HELD_OUT = "eval/"


class UnknownMetric(ValueError):
    """A name is not declared."""


@dataclass(frozen=True)
class Metric:
    """One declared metric; `name` may hold a placeholder: `{j}` a depth, `{i}` an engine, `{q}` a quarter."""

    name: str
    unit: str
    meaning: str


class MetricTable:
    """The declared metrics, in the order of their declaration."""

    def __init__(self) -> None:
        self._by_name: dict[str, Metric] = {}
        self._numbered: list[tuple[re.Pattern[str], Metric]] = []

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """Every declared metric; one that is logged for each depth or engine has a placeholder."""
        return tuple(self._by_name.values())

    def declare(
        self,
        name: str,
        unit: str,
        meaning: str = "",
        *,
        by_depth: str = "",
        by_engine: str = "",
        by_quarter: str = "",
    ) -> str:
        """Enter a metric and return its name.

        Args:
            name: as logged.
            unit: of its values.
            meaning: one line for the report; "" for a metric that is logged by depth alone.
            by_depth: what it means at depth j, if it is logged for each depth.
            by_engine: what it means for engine i, if it is logged for each engine.
            by_quarter: what it means for quarter q of a response, if it is logged for each quarter.
        """
        forms = {
            name: meaning,
            name + _DEPTH: by_depth,
            name + _ENGINE: by_engine,
            name + _QUARTER: by_quarter,
        }
        for form, text in forms.items():
            if text:
                self._by_name[form] = metric = Metric(form, unit, text)
                if form != name:
                    self._numbered.append((_pattern(form), metric))
        return name

    def depth_metric(self, base: str, j: int) -> str:
        """Name of a metric at depth j, for example `depth_metric(MTP_ALPHA, 1) == "mtp/alpha/depth_1"`.

        Raises:
            ValueError: the depth is below 1.
            UnknownMetric: the base is not logged by depth.
        """
        if j < 1:
            raise ValueError(f"depth is counted from 1, got {j}")
        return self._filled(base, _DEPTH, "{j}", j)

    def engine_metric(self, base: str, i: int) -> str:
        """Name of a metric of engine i, for example `engine_metric(PERF_ROLLOUT_TOK_S, 0)`.

        Raises:
            ValueError: the engine's number is below 0.
            UnknownMetric: the base is not logged by engine.
        """
        if i < 0:
            raise ValueError(f"an engine's number is 0 or more, got {i}")
        return self._filled(base, _ENGINE, "{i}", i)

    def quarter_metric(self, base: str, q: int) -> str:
        """Name of a metric in quarter q of a response, for example `quarter_metric(MTP_REPLAYED_LENGTH, 4)`.

        Raises:
            ValueError: the quarter is not 1 to 4.
            UnknownMetric: the base is not logged by quarter.
        """
        if not 1 <= q <= 4:
            raise ValueError(f"a response has the quarters 1 to 4, got {q}")
        return self._filled(base, _QUARTER, "{q}", q)

    def held_out(self, name: str) -> str:
        """Name of a head's metric where it is measured on held-out responses.

        Raises:
            UnknownMetric: it is not measured there.
        """
        self.lookup(_HELD_OUT + name)
        return _HELD_OUT + name

    def lookup(self, name: str) -> Metric:
        """The declaration behind a name, one with a number in it included.

        Raises:
            UnknownMetric: it is not declared; with the nearest name that is.
        """
        metric = self._found(name)
        if metric is None:
            raise UnknownMetric(self._unknown([name]))
        return metric

    def validate(self, row: Mapping[str, object]) -> None:
        """Check every name of a row.

        Raises:
            UnknownMetric: some are not declared; all of them, each with the nearest name that is.
        """
        missing = [name for name in row if self._found(name) is None]
        if missing:
            raise UnknownMetric(self._unknown(missing))

    def _found(self, name: str) -> Metric | None:
        if name in self._by_name and not any(placeholder in name for placeholder in _NUMBER):
            return self._by_name[name]
        return next((metric for pattern, metric in self._numbered if pattern.fullmatch(name)), None)

    def _filled(self, base: str, suffix: str, placeholder: str, number: int) -> str:
        template = base + suffix
        if template not in self._by_name:
            known = sorted(name.removesuffix(suffix) for name in self._by_name if name.endswith(suffix))
            raise UnknownMetric(
                f"no metric {template!r}; {suffix.lstrip('/')} exists for: {', '.join(known)}"
            )
        return template.replace(placeholder, str(number))

    def _unknown(self, names: Iterable[str]) -> str:
        lines = []
        for name in names:
            near = difflib.get_close_matches(name, list(self._by_name), n=1)
            lines.append(f"unknown metric {name!r}" + (f"; did you mean {near[0]!r}?" if near else ""))
        return "\n".join([*lines, "declare it in openrlhf_mtp/runlog/metrics.py with its unit and meaning"])


def _pattern(template: str) -> re.Pattern[str]:
    escaped = re.escape(template)
    for placeholder, number in _NUMBER.items():
        escaped = escaped.replace(re.escape(placeholder), number)
    return re.compile(escaped)
