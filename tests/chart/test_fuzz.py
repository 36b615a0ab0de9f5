"""Odd values, some every time and thousands by night: refused or valid, never a traceback (tests/chart/fuzz.py)."""

import pytest

from tests.chart import fuzz

FAULTS = ("traceback", "invalid")


def faults(seed, count):
    """Cases that went wrong, and how many of each there were."""
    found, figures = [], dict.fromkeys(("schema", "words", "rendered"), 0)
    for name, given in fuzz.cases(seed, count):
        became, why = fuzz.verdict(name, given)
        figures[became] = figures.get(became, 0) + 1
        if became in FAULTS:
            found.append(f"{became}: {name} {given}: {why[-300:]}")
    return found, figures


def test_odd_values_are_refused_or_valid():
    found, figures = faults(seed=1, count=100)
    assert found == []
    assert min(figures.values()) > 0  # each way out is tried


@pytest.mark.nightly
@pytest.mark.parametrize("seed", range(2, 12))
def test_many_odd_values_are_refused_or_valid(seed):
    assert faults(seed, 500)[0] == []


@pytest.mark.parametrize(
    ("given", "fault"),
    [
        (
            {"extraObjects": [{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": {}}]},
            "invalid",
        ),
        ({"extraObjects": ["{{ .Values.no.such }}"]}, "traceback"),
    ],
    ids=["an invalid object", "a template that fails"],
)
def test_the_judge_sees_faults(given, fault):
    assert fuzz.verdict("kueue", given)[0] == fault
