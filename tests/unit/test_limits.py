"""Limits of tests go through `tests.patience`: a machine three times slower, or a busy one, meets none of them."""

import re
from pathlib import Path

import pytest

from tests import patience

TESTS = Path(__file__).parents[1]
NUMBER = r"\d+(?:\.\d+)?"
PLAIN = re.compile(
    rf"communicate\(timeout={NUMBER}|(?:run|check_output|wait|join|result|get|poll|acquire)\((?:[^()]*\b)?timeout={NUMBER}"
    rf"|^\s+timeout={NUMBER},|\.(?:poll|join|wait)\({NUMBER}\)|(?:monotonic|perf_counter|time)\(\) \+ {NUMBER}\b"
    rf"|(?:monotonic|perf_counter|time)\(\) - \w+ <=? {NUMBER}\b",
    re.M,
)


@pytest.mark.parametrize("path", sorted(TESTS.rglob("*.py")), ids=lambda path: str(path.relative_to(TESTS)))
def test_no_limit_is_written_in_plain_seconds(path):
    found = [match.group().strip() for match in PLAIN.finditer(path.read_text(encoding="utf-8"))]
    assert found == [], "wrap the limit: seconds(30), from tests.patience"


def test_a_limit_grows_with_the_slowness_of_the_machine(monkeypatch):
    monkeypatch.setenv(patience.VARIABLE, "3")
    assert patience.seconds(20) == 60
    monkeypatch.delenv(patience.VARIABLE)
    monkeypatch.setattr(patience, "measured_s", lambda: 4 * patience.REFERENCE_S)
    assert patience.seconds(20) == 80


def test_a_faster_machine_gets_no_shorter_limits(monkeypatch):
    monkeypatch.delenv(patience.VARIABLE)
    monkeypatch.setattr(patience, "measured_s", lambda: patience.REFERENCE_S / 4)
    assert patience.seconds(20) == 20


def test_the_slowness_is_measured_once_a_run(monkeypatch):
    monkeypatch.delenv(patience.VARIABLE)
    answers = iter([2 * patience.REFERENCE_S, 9 * patience.REFERENCE_S])
    monkeypatch.setattr(patience, "measured_s", lambda: next(answers))
    assert patience.slow_by() == patience.slow_by() == 2
