"""Which tokens, states and masks belong to a depth."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from openrlhf_mtp.losses.alignment import action_positions, anchor_mask, find_anchors, next_tokens


def test_openrlhfs_action_mask_is_for_the_next_column():
    # column t-1 of OpenRLHF's mask is about token t: here tokens 2 and 3 are actions
    assert action_positions(torch.tensor([[0, 1, 1]])).tolist() == [[False, False, True, True]]


def test_the_worked_example_of_the_module():
    actions = torch.tensor([[0, 1, 1, 1, 1]])
    mask = anchor_mask(actions, torch.ones(1, 5, dtype=torch.long), 3)
    assert mask[0].tolist() == [
        [True, True, True],
        [True, True, False],
        [True, False, False],
        [False, False, False],
        [False, False, False],
    ]


def test_the_first_action_token_is_never_predicted():
    # the engine samples it from the policy before it can draft; token 2 is the first action here
    anchors = find_anchors(
        torch.arange(6)[None], torch.tensor([[0, 0, 1, 1, 1, 1]]), torch.ones(1, 6, dtype=torch.long), 2
    )
    assert anchors.index.tolist() == [1, 2, 3]
    assert anchors.tokens[anchors.mask].min() == 3


def test_an_anchor_never_reaches_into_the_next_packed_segment():
    actions = torch.ones(1, 6, dtype=torch.long)
    segments = torch.tensor([[1, 1, 1, 2, 2, 2]])
    mask = anchor_mask(actions, segments, 2)[0]
    assert mask.nonzero().tolist() == [[0, 0], [3, 0]]


def test_a_response_shorter_than_the_horizon_still_counts_at_its_own_depths():
    mask = anchor_mask(torch.tensor([[0, 1, 1, 0]]), torch.ones(1, 4, dtype=torch.long), 8)
    assert mask.sum() == 1
    assert mask[0, 0, 0]


def test_next_tokens_do_not_wrap_around():
    assert next_tokens(torch.tensor([[7, 8, 9]]), 3)[0].tolist() == [[8, 9, 0], [9, 0, 0], [0, 0, 0]]


@st.composite
def layouts(draw):
    """Action mask and segments of one row [T]: padding on both sides, packed samples, prompts, turns."""
    length = draw(st.integers(2, 14))
    actions = draw(st.lists(st.booleans(), min_size=length, max_size=length))
    segments, current = [], draw(st.integers(0, 1))
    for _ in range(length):
        current += draw(st.booleans())
        segments.append(0 if draw(st.integers(0, 9)) == 0 else current)
    return actions, segments


@given(layouts(), st.integers(1, 5))
def test_the_mask_equals_its_definition(layout, depths):
    actions, segments = layout
    length = len(actions)
    mask = anchor_mask(torch.tensor([actions]), torch.tensor([segments]), depths)
    for i in range(length):
        for j in range(1, depths + 1):
            needed = range(i + 1, i + j + 2)
            counts = segments[i] != 0 and all(
                t < length and actions[t] and segments[t] == segments[i] for t in needed
            )
            assert mask[0, i, j - 1].item() == counts


@given(layouts(), st.integers(1, 5))
def test_anchors_point_at_the_state_and_token_their_depth_is_about(layout, depths):
    actions, segments = (torch.tensor([row, row]) for row in layout)
    tokens = torch.arange(actions.numel()).view(2, -1)  # each token is its own flat position
    anchors = find_anchors(tokens, actions, segments, depths)
    for n, i in enumerate(anchors.index.tolist()):
        for j in range(1, depths + 1):
            used = j if anchors.mask[n, j - 1] else 1  # uncounted entries repeat depth 1
            assert anchors.target_index[n, j - 1] == i + used
            assert anchors.tokens[n, j - 1] == i + used + 1


@given(layouts(), st.integers(1, 5), st.integers(0, 5))
def test_the_grid_lists_each_rows_anchors_in_order(layout, depths, draw):
    actions, segments = (torch.tensor([row, row[::-1], row]) for row in layout)
    tokens = torch.arange(actions.numel()).view(3, -1)
    for fraction in (1.0, 0.4):
        anchors = find_anchors(tokens, actions, segments, depths, fraction=fraction, seed=draw)
        per_row = [anchors.grid[b][anchors.present[b]].tolist() for b in range(3)]
        assert all(row == sorted(set(row)) for row in per_row)
        assert [i for b, row in enumerate(per_row) for i in (b * len(layout[0]) + p for p in row)] == (
            anchors.index.tolist()
        )
        assert anchors.row.tolist() == [b for b, row in enumerate(per_row) for _ in row]
        # padding of the grid repeats a position, so that gathering there is harmless
        assert ((anchors.grid >= 0) & (anchors.grid < tokens.shape[1])).all()


@given(layouts(), st.integers(1, 5))
def test_each_depth_reads_the_token_that_many_places_ahead(layout, depths):
    actions, segments = (torch.tensor([row, row]) for row in layout)
    tokens = torch.arange(1, 1 + actions.numel()).view(2, -1)
    anchors = find_anchors(tokens, actions, segments, depths)
    first, *deeper = anchors.reads
    for b, row in enumerate(tokens.tolist()):
        ahead = [*row, *([0] * depths)]
        assert first[b].tolist() == ahead[1 : len(row) + 1], "depth 1 reads at every position"
        for j, read in enumerate(deeper, start=2):
            assert read[b].tolist() == [ahead[i + j] for i in anchors.grid[b].tolist()]


@given(layouts(), st.integers(1, 5))
def test_a_predicted_tokens_column_is_the_one_of_openrlhfs_layout(layout, depths):
    actions, segments = (torch.tensor([row, row]) for row in layout)
    tokens = torch.arange(actions.numel()).view(2, -1)
    anchors = find_anchors(tokens, actions, segments, depths)
    # column t - 1 is about token t, as in OpenRLHF's log-probs, advantages and masks
    about = tokens[:, 1:]
    assert anchors.columns == about.shape
    counted = anchors.column[anchors.mask]
    assert about.flatten()[counted].tolist() == anchors.tokens[anchors.mask].tolist()
