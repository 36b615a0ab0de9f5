"""Values that the ranks have different numbers of, put together with nothing but sums."""

import pytest
import torch
import torch.distributed as dist

from openrlhf_mtp.training import reduce
from openrlhf_mtp.training.reduce import all_gather_values

RANKS = [torch.tensor([1.0, 2.0]), torch.zeros(0), torch.tensor([3.0])]


@pytest.mark.parametrize("rank", [0, 1, 2])
def test_every_rank_gets_all_values_in_the_order_of_the_ranks(monkeypatch, rank):
    others = iter(
        [
            torch.tensor([float(len(part)) * (other != rank) for other, part in enumerate(RANKS)]),
            torch.cat([part * (other != rank) for other, part in enumerate(RANKS)]),
        ]
    )
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "get_rank", lambda: rank)
    monkeypatch.setattr(dist, "get_world_size", lambda: len(RANKS))
    monkeypatch.setattr(reduce, "all_reduce_sum", lambda own: own + next(others))
    assert all_gather_values(RANKS[rank]).tolist() == [1.0, 2.0, 3.0]


def test_without_ranks_the_values_are_returned():
    assert all_gather_values(torch.tensor([4.0])).tolist() == [4.0]
