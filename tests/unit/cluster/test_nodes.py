"""Which pods are missing, in words; and how long the preflight waits for them."""

import pytest

from openrlhf_mtp.cluster.broadcast import pairs
from openrlhf_mtp.cluster.nodes import Need, Node, living, missing
from openrlhf_mtp.cluster.preflight import PreflightError, main, wait_for_pods


def ray_node(name, role, gpus, *, alive=True):
    return {
        "NodeID": f"id-{name}",
        "NodeManagerHostname": name,
        "NodeManagerAddress": "10.0.0.1",
        "Alive": alive,
        "Resources": {"CPU": 4.0, **({"GPU": gpus} if gpus else {})},
        "Labels": {"openrlhf-mtp.io/role": role, "ray.io/node-id": "x"},
    }


ALL = [ray_node("r-1", "rollout", 8.0), ray_node("t-0", "trainer", 8.0), ray_node("h", "head", 0.0)]
ALL += [ray_node("r-0", "rollout", 8.0), ray_node("dead", "trainer", 8.0, alive=False)]
NEEDS = [Need("trainer", 1, 8), Need("rollout", 2, 8)]


def test_trainers_come_first_and_the_dead_do_not_count():
    assert [node.name for node in living(ALL)] == ["t-0", "r-0", "r-1", "h"]


def test_a_node_without_our_label_is_not_a_pod_of_the_run():
    stranger = {**ray_node("x", "trainer", 8.0), "Labels": {}}
    assert living([stranger]) == []


def test_nothing_is_missing_when_every_role_has_its_gpus():
    assert missing(NEEDS, living(ALL)) == []


def test_a_missing_pod_is_said_with_role_needed_and_present():
    assert missing(NEEDS, living(ALL[1:])) == [
        "role rollout: needed 2 pod(s) with 16 GPUs in all, present 1 with 8"
    ]


def test_a_pod_with_too_few_gpus_is_missing_too():
    half = [ray_node("t-0", "trainer", 4.0)]
    assert missing(NEEDS[:1], living(half)) == [
        "role trainer: needed 1 pod(s) with 8 GPUs in all, present 1 with 4"
    ]


def test_a_need_is_pods_times_gpus():
    assert Need.parse("trainer", "2x8") == Need("trainer", 2, 8)
    with pytest.raises(ValueError, match="rollout: got '16', expected PODSxGPUS"):
        Need.parse("rollout", "16")


class Time:
    def __init__(self):
        self.now = 0.0

    def sleep(self, seconds):
        self.now += seconds

    def __call__(self):
        return self.now


def test_pods_that_come_late_are_waited_for(capsys):
    time = Time()
    found = wait_for_pods(
        NEEDS, 100, nodes=lambda: ALL if time.now >= 10 else ALL[1:], clock=time, sleep=time.sleep
    )
    assert time.now == 10
    assert len(found) == 4
    assert capsys.readouterr().out.count("waiting:") == 1


def test_pods_that_never_come_end_the_wait_with_the_reason():
    time = Time()
    with pytest.raises(
        PreflightError, match=r"within 30 s\.\n  role rollout: needed 2 .* present 1 .*\n.*kubectl"
    ):
        wait_for_pods(NEEDS, 30, nodes=lambda: ALL[1:], clock=time, sleep=time.sleep)
    assert time.now == 30


def test_wrong_arguments_are_a_users_error(capsys, monkeypatch):
    monkeypatch.setattr("openrlhf_mtp.cluster.preflight.run", lambda arguments: Need.parse("trainer", "8"))
    assert main(["--run", "r", "--trainer", "8", "--rollout", "1x1"]) == 2
    assert "expected PODSxGPUS" in capsys.readouterr().err


def test_pairs_are_a_star_and_then_neighbors():
    nodes = [Node(str(i), f"n{i}", "", "trainer", 1.0) for i in range(4)]
    named = [(one.name, other.name) for one, other in pairs(nodes)]
    assert named == [("n0", "n1"), ("n0", "n2"), ("n0", "n3"), ("n1", "n2"), ("n2", "n3")]
