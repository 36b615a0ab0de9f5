"""A random share of the anchors, which belongs to the sample and to the seed."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from openrlhf_mtp.losses.anchor_sampling import sampled_positions


def test_every_position_is_chosen_with_the_same_probability():
    tokens = torch.randint(50, (4, 40), generator=torch.Generator().manual_seed(0))
    draws = torch.stack(
        [sampled_positions(tokens, torch.ones_like(tokens), 0.25, draw) for draw in range(2000)]
    )
    # standard error 0.0097 a position; 160 positions
    torch.testing.assert_close(draws.double().mean(0), torch.full((4, 40), 0.25).double(), atol=0.045, rtol=0)
    # evenly spread within a sample: 40 positions hold 10 give or take two, where coins would scatter by 2.7
    assert (draws.sum(-1) - 10).abs().max() <= 2


@given(st.integers(0, 1000), st.integers(0, 5), st.integers(0, 5))
def test_the_choice_belongs_to_the_sample_not_to_its_place_in_the_batch(draw, left, right):
    tokens = torch.randint(50, (1, 12), generator=torch.Generator().manual_seed(draw))
    alone = sampled_positions(tokens, torch.ones_like(tokens), 0.5, draw)
    padded = torch.nn.functional.pad(tokens, (left, right), value=7)
    segments = torch.nn.functional.pad(torch.ones_like(tokens), (left, right))
    batch = torch.cat([torch.zeros_like(padded), padded])
    both = sampled_positions(batch, torch.cat([torch.ones_like(segments), segments]), 0.5, draw)
    assert both[1, left : left + 12].tolist() == alone[0].tolist()
