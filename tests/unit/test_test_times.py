"""The table at the end of a test run, from a result file as pytest writes it."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "test_times.py"
RUN = """<?xml version="1.0" encoding="utf-8"?>
<testsuites><testsuite name="pytest" errors="1" failures="1" skipped="1" tests="4" time="9.0">
<testcase classname="tests.engine.test_a" name="test_slow[x]" time="7.5" />
<testcase classname="tests.engine.test_a" name="test_broken" time="1.25"><failure message="m">t</failure></testcase>
<testcase classname="tests.unit.config.test_b" name="test_setup" time="0.5"><error message="m">t</error></testcase>
<testcase classname="tests.unit.config.test_b" name="test_left_out" time="0.0"><skipped>t</skipped></testcase>
</testsuite></testsuites>
"""


@pytest.fixture
def said(tmp_path):
    (tmp_path / "run.xml").write_text(RUN, encoding="utf-8")
    words = [sys.executable, str(SCRIPT), str(tmp_path / "run.xml"), str(tmp_path / "cut.xml")]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout.splitlines()


def test_the_slowest_come_first_with_what_became_of_them(said):
    first = said.index("15 slowest:") + 1
    assert said[first : first + 4] == [
        "     7.5 s  engine/test_a::test_slow[x]",
        "     1.2 s  engine/test_a::test_broken  (failed)",
        "     0.5 s  unit/config/test_b::test_setup  (failed)",
        "     0.0 s  unit/config/test_b::test_left_out  (skipped)",
    ]


def test_counts_and_seconds_are_totals_by_tier(said):
    rows = {row[0]: row[1:] for row in (line.split() for line in said[-3:])}
    assert rows == {
        "engine": ["1", "1", "0", "9"],
        "unit": ["0", "1", "1", "0"],
        "all": ["1", "2", "1", "9"],
    }


def test_a_run_without_results_is_named(said):
    assert "cut.xml: no results, the run was cut" in said
