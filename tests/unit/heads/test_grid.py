"""Which positions are anchors, which keys each sees, and how they are cut into slices."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from openrlhf_mtp.heads.grid import SHORTEST_SLICE, AnchorGrid


@st.composite
def grids(draw, most_positions=12):
    """Rows of padding and packed samples, with anchors anywhere, unsorted and repeated."""
    rows, length = draw(st.integers(1, 3)), draw(st.integers(1, most_positions))
    ids = st.lists(st.integers(0, 3), min_size=length, max_size=length)
    segment_ids = torch.tensor([draw(ids) for _ in range(rows)])
    if draw(st.booleans()):
        return AnchorGrid(segment_ids)
    anchors = draw(st.integers(0, length + 2))
    positions = st.lists(st.integers(0, length - 1), min_size=anchors, max_size=anchors)
    index = torch.tensor([draw(positions) for _ in range(rows)], dtype=torch.long)
    return AnchorGrid(segment_ids, index)


@settings(max_examples=100)
@given(grid=grids(), heads=st.integers(1, 3), scores=st.integers(1, 200))
def test_the_slices_hold_every_anchor_once_with_every_key_it_sees(grid, heads, scores):
    rows, anchors = grid.position.shape
    sees = torch.zeros(rows, anchors, grid.segment_ids.shape[1], dtype=torch.long)
    visits = torch.zeros(rows, anchors, dtype=torch.long)
    for part in grid.slices(heads, scores):
        shown = ~grid.hidden(part)
        sees[part.rows, part.anchors, part.keys] += shown
        visits[part.rows, part.anchors] += 1
        assert shown.numel() * heads <= scores or shown.shape[:2] == (1, 1)
    assert (visits == 1).all()
    position = torch.arange(grid.segment_ids.shape[1])
    same = grid.segment_ids.gather(1, grid.position)[..., None] == grid.segment_ids[:, None]
    torch.testing.assert_close(sees, (same & (position <= grid.position[..., None])).long())


def test_a_slice_reads_keys_from_its_first_sample_to_its_last_anchor_only():
    segment_ids = torch.tensor([[0, 0, 5, 5, 5, 9, 9, 9, 9, 0]])
    grid = AnchorGrid(segment_ids, torch.tensor([[3, 4, 6, 7]]))
    # room for two anchors at a time
    keys = [part.keys for part in grid.slices(1, 2 * segment_ids.shape[1])]
    assert keys == [slice(2, 5), slice(5, 8)]


def test_a_long_row_is_cut_for_causality_even_where_its_scores_would_fit():
    length = 2 * SHORTEST_SLICE
    keys = [part.keys.stop for part in AnchorGrid(torch.ones(1, length)).slices(1, 2**40)]
    assert keys == [SHORTEST_SLICE, length]


def test_what_belongs_to_the_anchors_is_picked_row_by_row():
    grid = AnchorGrid(torch.ones(2, 4, dtype=torch.long), torch.tensor([[0, 3, 3], [1, 2, 0]]))
    picked = grid.at(torch.arange(16).view(2, 4, 2))
    assert picked.tolist() == [[[0, 1], [6, 7], [6, 7]], [[10, 11], [12, 13], [8, 9]]]


def test_anchors_everywhere_pick_nothing():
    everything = torch.arange(8).view(2, 4)
    assert AnchorGrid(torch.ones(2, 4)).at(everything) is everything


def test_anchors_of_another_batch_are_refused():
    with pytest.raises(AssertionError, match="anchors of 1 rows for a batch of 2"):
        AnchorGrid(torch.ones(2, 4), torch.zeros(1, 4, dtype=torch.long))
