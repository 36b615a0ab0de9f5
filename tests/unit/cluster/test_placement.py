"""Counting GPUs before anything starts; a Ray cluster that is too small would make upstream wait for ever."""

import sys
from types import ModuleType

import pytest

from openrlhf_mtp.cluster.placement import ClusterTooSmallError, Placements, require_gpus, total_gpus

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


LABELED = [
    {"Alive": True, "Resources": {"GPU": 8.0}, "Labels": {"openrlhf-mtp.io/role": "trainer"}},
    {"Alive": True, "Resources": {"GPU": 4.0}, "Labels": {"openrlhf-mtp.io/role": "rollout"}},
    {"Alive": True, "Resources": {"CPU": 4.0}, "Labels": {"openrlhf-mtp.io/role": "head"}},
]


def test_gpus_are_counted_by_role():
    assert total_gpus(LABELED) == 12
    assert total_gpus(LABELED, "rollout") == 4
    assert total_gpus(NODES, "rollout") == 0


@pytest.fixture
def groups(monkeypatch):
    """What Ray was asked for; a group is ready when its selector finds GPUs."""
    asked = []

    class Group:
        def __init__(self, ready):
            self.ready = ready

        def wait(self, timeout_seconds):
            return self.ready

    def placement_group(bundles, strategy, **kwargs):
        asked.append({"bundles": len(bundles), "strategy": strategy, **kwargs})
        roles = {selector["openrlhf-mtp.io/role"] for selector in kwargs.get("bundle_label_selector", [])}
        return Group(all(total_gpus(LABELED, role) >= len(bundles) for role in roles))

    ray = ModuleType("ray")
    ray.nodes, ray.available_resources = lambda: LABELED, lambda: {"GPU": 12.0, "CPU": 4.0}
    module = ModuleType("ray.util.placement_group")
    module.placement_group, module.remove_placement_group = placement_group, lambda group: None
    monkeypatch.setitem(sys.modules, "ray", ray)
    monkeypatch.setitem(sys.modules, "ray.util", ModuleType("ray.util"))
    monkeypatch.setitem(sys.modules, "ray.util.placement_group", module)
    return asked


def test_every_bundle_asks_for_its_role(groups):
    Placements(5, by_role=True).for_role("trainer")([{"GPU": 1, "CPU": 1}] * 2, strategy="PACK")
    assert groups == [
        {
            "bundles": 2,
            "strategy": "PACK",
            "bundle_label_selector": [{"openrlhf-mtp.io/role": "trainer"}] * 2,
        }
    ]


def test_without_roles_nothing_is_selected(groups):
    Placements(5).for_role("rollout")([{"GPU": 1}], strategy="PACK")
    assert groups == [{"bundles": 1, "strategy": "PACK"}]


@pytest.mark.usefixtures("groups")
def test_a_role_that_is_too_small_is_named_with_needed_and_present():
    with pytest.raises(
        ClusterTooSmallError,
        match=r"no place for 6 GPUs .* within 5 s: .*; needs 6 GPUs with role=rollout, the cluster has 4\.",
    ):
        Placements(5, by_role=True).for_role("rollout")([{"GPU": 1}] * 6)


def test_the_chart_says_by_environment_how_to_place():
    assert not Placements.from_environment(50, {}).by_role
    placed = Placements.from_environment(
        50, {"OPENRLHF_MTP_PLACEMENT": "roles", "OPENRLHF_MTP_PLACEMENT_TIMEOUT_S": "300"}
    )
    assert (placed.by_role, placed.timeout_s) == (True, 300.0)
    with pytest.raises(ValueError, match="got 'role', expected roles or anywhere"):
        Placements.from_environment(50, {"OPENRLHF_MTP_PLACEMENT": "role"})
