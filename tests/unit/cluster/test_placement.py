"""Counting GPUs before anything starts; a Ray cluster that is too small would make upstream wait for ever."""

import sys
from types import ModuleType

import pytest

from openrlhf_mtp.cluster.placement import ClusterTooSmallError, require_gpus, total_gpus

NODES = [
    {"Alive": True, "Resources": {"CPU": 16.0, "GPU": 2.0}},
    {"Alive": True, "Resources": {"CPU": 4.0}},
    {"Alive": False, "Resources": {"CPU": 16.0, "GPU": 8.0}},
]


def test_only_living_nodes_count_and_a_node_may_have_no_gpu():
    assert total_gpus(NODES) == 2.0
    assert total_gpus([]) == 0


@pytest.fixture
def cluster(monkeypatch):
    ray = ModuleType("ray")
    ray.nodes = lambda: NODES
    monkeypatch.setitem(sys.modules, "ray", ray)


@pytest.mark.usefixtures("cluster")
def test_a_job_that_just_fits_is_accepted():
    require_gpus(2, what="policy 1, engines 1")


@pytest.mark.usefixtures("cluster")
def test_a_job_that_is_too_large_is_refused_with_the_numbers_and_the_way_out():
    with pytest.raises(
        ClusterTooSmallError, match=r"needs 3 GPUs \(policy 1, engines 2\).*has 2\..*colocate_all"
    ):
        require_gpus(3, what="policy 1, engines 2")
