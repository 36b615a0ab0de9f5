"""Roles on a real Ray cluster of three nodes on this machine, labeled as the chart labels pods."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from openrlhf_mtp.cluster.nodes import Node
from openrlhf_mtp.cluster.placement import ROLE_LABEL, ClusterTooSmallError, Placements
from tests.patience import seconds

pytestmark = pytest.mark.alone

BROADCAST_S = seconds(90)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A head without GPUs, a trainer with two and a rollout node with one, all logical."""
    from ray.cluster_utils import Cluster

    made = Cluster()
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("VLLM_LOGGING_LEVEL", raising=False)  # only the rollout node is to have it
        for role, gpus in (("head", 0), ("trainer", 2), ("rollout", 1)):
            add_node(made, role, gpus)
    yield made
    made.shutdown()


def add_node(cluster: Any, role: str, gpus: int) -> Any:
    """One more node of a role, with a variable of its own as a pod has them."""
    return cluster.add_node(
        num_cpus=4,
        num_gpus=gpus,
        labels={ROLE_LABEL: role},
        object_store_memory=80 << 20,
        env_vars={"VLLM_LOGGING_LEVEL": role} if role == "rollout" else {},
    )


@pytest.fixture(scope="module")
def address(cluster: Any) -> str:
    """Where a driver finds the cluster."""
    return str(cluster.address)


@pytest.fixture
def ray_of_three(address: str) -> Iterator[dict[str, str]]:
    """A driver of its own for each test; node id -> role."""
    import ray

    ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    yield {node["NodeID"]: node["Labels"][ROLE_LABEL] for node in ray.nodes()}
    ray.shutdown()


def where(group: object, bundles: int, roles: dict[str, str]) -> set[str]:
    """The roles of the nodes that a placement group lies on."""
    from ray.util.placement_group import placement_group_table

    table = placement_group_table(group)
    assert len(table["bundles_to_node_id"]) == bundles
    return {roles[node] for node in table["bundles_to_node_id"].values()}


def test_each_role_is_placed_on_its_own_nodes(ray_of_three: dict[str, str]) -> None:
    placements = Placements(seconds(30), by_role=True)
    trainer = placements.for_role("trainer")([{"GPU": 1, "CPU": 1}] * 2, strategy="PACK")
    rollout = placements.for_role("rollout")([{"GPU": 1, "CPU": 1}], strategy="PACK")
    assert where(trainer, 2, ray_of_three) == {"trainer"}
    assert where(rollout, 1, ray_of_three) == {"rollout"}
    placements.release()


@pytest.mark.usefixtures("ray_of_three")
def test_a_role_that_is_too_small_ends_with_role_needed_and_present() -> None:
    with pytest.raises(ClusterTooSmallError, match="needs 2 GPUs with role=rollout, the cluster has 1"):
        Placements(3, by_role=True).for_role("rollout")([{"GPU": 1, "CPU": 1}] * 2)


def test_a_single_actor_is_placed_by_role_too(ray_of_three: dict[str, str]) -> None:
    import ray

    from openrlhf_mtp.cluster.placement import placed_actor_group
    from openrlhf_mtp.upstream.processes import prepare_process

    prepare_process()  # OpenRLHF does not import on a host without CUDA otherwise

    class Worker:
        def __init__(self, world_size: int, rank: int, address: object, port: object) -> None:
            pass

        def node(self) -> str:
            return str(ray.get_runtime_context().get_node_id())

    placements = Placements(seconds(30), by_role=True)
    group = placed_actor_group(placements.for_role("rollout"))(1, 1, ray.remote(Worker))
    assert [ray_of_three[node] for node in ray.get(group.async_run_method("node"))] == ["rollout"]
    placements.release()


def test_a_variable_that_a_pod_sets_holds_for_its_workers(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import os

    import ray

    from openrlhf_mtp.upstream.processes import ray_runtime_env

    @ray.remote(num_cpus=1)
    def level() -> str | None:
        return os.environ.get("VLLM_LOGGING_LEVEL")

    monkeypatch.setenv("VLLM_LOGGING_LEVEL", "of the driver")
    ray.init(address=address, runtime_env=ray_runtime_env(), log_to_driver=False, logging_level="ERROR")
    try:
        placed = [level.options(label_selector={ROLE_LABEL: role}) for role in ("trainer", "rollout")]
        assert ray.get([one.remote() for one in placed], timeout=seconds(60)) == ["of the driver", "rollout"]
    finally:
        ray.shutdown()


def test_the_preflight_passes_on_a_cluster_that_can_run(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import ray

    from openrlhf_mtp.cluster import preflight

    monkeypatch.setenv("RAY_ADDRESS", address)
    words = ["--run", str(tmp_path / "run"), "--trainer", "1x2", "--rollout", "1x1", "--shared"]
    try:
        assert preflight.main([*words, "--wait-s", str(seconds(30)), "--broadcast-s", str(seconds(90))]) == 0
    finally:
        ray.shutdown()
    assert "one broadcast reached all pods" in capsys.readouterr().out


@pytest.mark.usefixtures("ray_of_three")
def test_pods_that_cannot_talk_are_named_as_a_pair(monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    from openrlhf_mtp.cluster import broadcast, preflight
    from openrlhf_mtp.cluster.broadcast import Broadcasts
    from openrlhf_mtp.cluster.nodes import living

    class Mute(broadcast.Peer):
        def address(self) -> str:
            return "192.0.2.1:9"  # TEST-NET-1: nobody answers

    monkeypatch.setattr(broadcast, "Peer", Mute)
    with pytest.raises(
        preflight.PreflightError, match=r"to each other:\n  .*\(trainer, .* and .*\(rollout, "
    ):
        preflight.check_network(living(ray.nodes()), 12.0, Broadcasts(ray, nvidia=False, busy=True))


@pytest.mark.usefixtures("ray_of_three")
def test_pods_in_which_torch_finds_no_gpu_do_not_pass_over_gloo() -> None:
    import ray
    import torch

    from openrlhf_mtp.cluster import preflight
    from openrlhf_mtp.cluster.broadcast import Broadcasts
    from openrlhf_mtp.cluster.nodes import living

    if torch.cuda.is_available():
        pytest.skip("this host has a GPU")
    with pytest.raises(
        preflight.PreflightError, match=r"no GPU in these pods:\n.*\(trainer, .*not compiled with CUDA"
    ):
        preflight.check_network(living(ray.nodes()), seconds(60), Broadcasts(ray, nvidia=True, busy=False))


@pytest.fixture
def three_pods(cluster: Any) -> Iterator[list[Node]]:
    """The trainer, the rollout node and a second one, named as three pods would be."""
    import ray

    from openrlhf_mtp.cluster.nodes import living

    second = add_node(cluster, "rollout", 1)
    ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
    with_gpus = [node for node in living(ray.nodes()) if node.gpus]
    yield [replace(node, name=f"pod-{number}") for number, node in enumerate(with_gpus)]
    ray.shutdown()
    cluster.remove_node(second)


def failing_peer(fails: Callable[[int], bool]) -> type:
    """A peer that cannot join a broadcast; `fails` is asked in its own pod, with the number of pods."""
    from openrlhf_mtp.cluster import broadcast

    class Failing(broadcast.Peer):
        def join(self, rank: int, world_size: int, address: str, backend: Any, timeout_s: float) -> None:
            if fails(world_size):
                raise ConnectionError("no route to host")
            super().join(rank, world_size, address, backend, timeout_s)

    return Failing


def refusal(pods: list[Node], peer: type, monkeypatch: pytest.MonkeyPatch) -> str:
    """What the preflight says of a network in which pods take part as `peer` does."""
    import ray

    from openrlhf_mtp.cluster import broadcast, preflight

    monkeypatch.setattr(broadcast, "Peer", peer)
    monkeypatch.setattr(broadcast, "PAIR_LIMIT_S", seconds(broadcast.PAIR_LIMIT_S))
    with pytest.raises(preflight.PreflightError) as caught:
        preflight.check_network(pods, BROADCAST_S, broadcast.Broadcasts(ray, nvidia=False, busy=True))
    return str(caught.value)


def test_a_pod_that_cannot_talk_is_named_with_each_other_and_they_are_not(
    three_pods: list[Node], monkeypatch: pytest.MonkeyPatch
) -> None:
    mute = three_pods[2].id

    def is_mute(world_size: int) -> bool:
        import ray

        return bool(ray.get_runtime_context().get_node_id() == mute)

    said = refusal(three_pods, failing_peer(is_mute), monkeypatch)
    named = re.findall(r"(pod-\d) \(\S+ \S+\) and (pod-\d)", said)
    assert named == [("pod-0", "pod-2"), ("pod-1", "pod-2")]


def test_pods_that_talk_in_pairs_and_not_all_together_are_said_so(
    three_pods: list[Node], monkeypatch: pytest.MonkeyPatch
) -> None:
    said = refusal(three_pods, failing_peer(lambda world_size: world_size > 2), monkeypatch)
    assert f"over all 3 pods did not end within {BROADCAST_S:g} s, though every pair can talk" in said


def test_arguments_of_the_chart_are_understood() -> None:
    from openrlhf_mtp.cluster import preflight

    parsed = preflight.parser().parse_args(["--run", "r", "--trainer", "1x8", "--rollout", "0x0"])
    assert isinstance(parsed, argparse.Namespace)
    assert (parsed.busy, parsed.shared) == (False, False)
