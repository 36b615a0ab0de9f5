"""Where sampling wins: the crossing of two ways of drafting is where it was put."""

import numpy as np
import pytest

from openrlhf_mtp.analysis.figures.sampling_gain import compare
from openrlhf_mtp.analysis.positions import positions
from openrlhf_mtp.runlog.anchor_records import Records
from tests.unit.analysis.recorded import recorded


def test_sampling_wins_above_the_entropy_at_which_the_lines_cross():
    # 0.8 - 0.1 H = 1.0 - 0.5 H at H = 0.5
    crossed = compare(positions([recorded(sampled=(0.8, -0.1), greedy=(1.0, -0.5))], 1))
    assert crossed.crossing == pytest.approx(0.5, abs=0.05)
    assert crossed.verdict == f"above {crossed.crossing:.2f} nat"
    assert crossed.share == pytest.approx(2 / 3, abs=0.05)
    assert crossed.gain.value == pytest.approx(crossed.sampled - crossed.greedy, abs=1e-6)
    assert crossed.gain.value == pytest.approx(0.1, abs=0.02)


@pytest.mark.parametrize(
    ("sampled", "greedy", "verdict"),
    [((0.95, 0.0), (0.8, -0.4), "at every entropy"), ((0.5, 0.0), (0.9, 0.0), "nowhere")],
)
def test_one_way_that_always_wins_has_no_crossing(sampled, greedy, verdict):
    compared = compare(positions([recorded(sampled=sampled, greedy=greedy)], 1))
    assert (compared.crossing, compared.verdict) == (None, verdict)


def test_greedy_acceptance_that_was_not_recorded_has_no_comparison():
    one = recorded()
    without = Records(one.entropy, one.alpha, np.full_like(one.alpha, np.nan), one.response)
    assert compare(positions([without], 1)) is None


def test_no_records_have_no_comparison():
    assert compare(positions([], 1)) is None
