"""The script behind the table of block verification in docs/measured.md: exact with new numbers, off with used ones."""

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "docs"))

import block_noise
from block_noise import Chains, deviations, sample

CHAINS = Chains.random(2, 1.0)


@pytest.fixture(autouse=True)
def fewer(monkeypatch):
    monkeypatch.setattr(block_noise, "REQUESTS", 30_000)


@pytest.mark.parametrize(("way", "numbers"), [("standard", "vLLM's"), ("block", "new")])
def test_samples_follow_the_target(way, numbers):
    text, accepted = sample(CHAINS, way, numbers)
    assert 1.5 < accepted < 2.5
    assert deviations(CHAINS, text)[1] < 4.5


def test_blocks_with_used_numbers_do_not():
    assert deviations(CHAINS, sample(CHAINS, "block", "vLLM's")[0])[1] > 6


def test_a_draft_like_its_target_is_accepted_whole():
    text, accepted = sample(Chains(CHAINS.p, CHAINS.p), "block", "new")
    assert accepted == 3
    assert text.shape == (30_000, block_noise.POSITIONS + 1)
    assert np.isin(text, [0, 1]).all()
