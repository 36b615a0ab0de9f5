"""Which pods are named when a broadcast does not reach all of them."""

import re
import socket

import pytest

from openrlhf_mtp.cluster.broadcast import Broadcasts, Reached, broadcast, free_address
from openrlhf_mtp.cluster.nccl_log import record, transports
from openrlhf_mtp.cluster.nodes import Node
from openrlhf_mtp.cluster.pod_logs.console import is_output
from openrlhf_mtp.cluster.preflight import PreflightError, check_network
from tests.patience import seconds

TRAINER = Node("id-t", "t-0", "10.0.0.1", "trainer", 8.0)
ROLLOUTS = [Node(f"id-r{i}", f"r-{i}", f"10.0.0.{2 + i}", "rollout", 8.0) for i in range(2)]
HEAD = Node("id-h", "h", "10.0.0.9", "head", 0.0)
PODS = [TRAINER, *ROLLOUTS, HEAD]


class Played(Broadcasts):
    """Broadcasts that arrive or not by a rule."""

    def over(self, nodes, limit_s):
        return Reached(1.5, [["NET/IB/GDRDMA"]] * 3) if self.ray({node.name for node in nodes}) else None


def check(arrives):
    return check_network(PODS, 60.0, Played(arrives, nvidia=True, busy=False))


def test_one_broadcast_goes_over_all_pods_with_gpus():
    assert check(lambda names: names == {"t-0", "r-0", "r-1"}) == "in 1.5 s, over NET/IB/GDRDMA"


@pytest.mark.parametrize(("mute", "others"), [("r-1", {"t-0", "r-0"}), ("t-0", {"r-0", "r-1"})])
def test_a_mute_pod_is_in_every_pair_that_is_named(mute, others):
    with pytest.raises(PreflightError) as caught:
        check(lambda names: mute not in names)
    named = re.findall(r"^  (\S+) \(.*\) and (\S+) \(", str(caught.value), flags=re.MULTILINE)
    assert {frozenset(pair) for pair in named} == {frozenset({mute, other}) for other in others}


def test_only_the_pair_that_cannot_talk_is_named():
    with pytest.raises(
        PreflightError, match=r"r-0 \(rollout, 10.0.0.2\) and r-1 \(rollout, 10.0.0.3\)"
    ) as caught:
        check(lambda names: not {"r-0", "r-1"} <= names)
    assert str(caught.value).count(" and r-") == 1


def test_pods_that_talk_in_pairs_and_not_all_together_are_said_so():
    with pytest.raises(
        PreflightError, match="over all 3 pods did not end within 60 s, though every pair can talk"
    ):
        check(lambda names: len(names) == 2)


@pytest.mark.parametrize(("ip", "shown"), [("127.0.0.1", "127.0.0.1"), ("::1", "[::1]")])
def test_a_broadcast_meets_at_an_address_of_either_family(ip, shown):
    if ":" in ip and not socket.has_dualstack_ipv6():
        pytest.skip("no IPv6 here")
    address = free_address(ip)
    assert re.fullmatch(rf"{re.escape(shown)}:\d+", address)
    broadcast(0, 1, address, "gloo", seconds(30))


# as NCCL 2.29.7 prints them; EFA's plug-in calls itself Libfabric
CHANNELS = {
    "1[0] -> 0[0] [receive] via NET/Socket/0": "NET/Socket",
    "0[0] -> 1[0] [send] via NET/IB/0": "NET/IB",
    "0[0] -> 1[0] [send] via NET/IB/2(1)/GDRDMA/Shared": "NET/IB/GDRDMA",
    "1[0] -> 0[0] [receive] via NET/Libfabric/0/GDRDMA": "NET/Libfabric/GDRDMA",
    "1[0] -> 0[0] [receive] via NET/AWS Libfabric/0": "NET/AWS Libfabric",
    "0[0] -> 1[0] via P2P/CUMEM/MNNVL": "P2P",
    "0[0] -> 1[0] via SHM/direct/direct": "SHM",
}


@pytest.mark.parametrize("channel", CHANNELS)
def test_what_nccl_goes_over_is_read_from_its_log(tmp_path, channel):
    environment = {}
    path = record(tmp_path, environment)
    assert environment["NCCL_DEBUG_FILE"] == str(path)
    assert transports(path) == []  # it has logged nothing yet
    lines = [
        "t-0:812:812 [0] NCCL INFO NCCL_IB_HCA set to mlx5",
        "t-0:812:901 [0] NCCL INFO NET/IB : No device found.",
        "t-0:812:901 [0] NCCL INFO Using network Socket",
        f"t-0:812:904 [0] NCCL INFO Channel 00/0 : {channel}",
        f"t-0:812:904 [0] NCCL INFO Channel 01/0 : {channel}",
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    assert transports(path) == [CHANNELS[channel]]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, {"NCCL_DEBUG": "INFO", "NCCL_DEBUG_SUBSYS": "INIT,NET"}),
        ({"NCCL_DEBUG": "WARN"}, {"NCCL_DEBUG": "INFO", "NCCL_DEBUG_SUBSYS": "INIT,NET"}),
        (
            {"NCCL_DEBUG": "TRACE", "NCCL_DEBUG_SUBSYS": "COLL"},
            {"NCCL_DEBUG": "TRACE", "NCCL_DEBUG_SUBSYS": "COLL,INIT,NET"},
        ),
        ({"NCCL_DEBUG_SUBSYS": "^ENV"}, {"NCCL_DEBUG": "INFO", "NCCL_DEBUG_SUBSYS": "^ENV"}),
    ],
)
def test_nccl_says_at_least_what_the_user_asked_for(tmp_path, given, expected):
    environment = dict(given)
    path = record(tmp_path, environment)
    assert environment == {**expected, "NCCL_DEBUG_FILE": str(path)}
    # shown in the pod's output only where it was asked for
    assert is_output(path.name) == (given.get("NCCL_DEBUG") == "TRACE")


def over(*names, rdma=True):
    class Over(Broadcasts):
        def over(self, nodes, limit_s):
            return Reached(1.5, list(names))

    return check_network(PODS, 60.0, Over(None, nvidia=True, busy=False), rdma=rdma)


def test_rdma_that_nccl_does_not_use_is_refused_with_the_pods_that_go_over_tcp():
    with pytest.raises(PreflightError) as caught:
        over(["NET/Socket"], ["NET/IB/GDRDMA"], ["NET/IB", "NET/Socket"])
    assert str(caught.value) == (
        "NCCL goes over TCP (NET/Socket in its log) between these pods, though network.rdma gives them devices:\n"
        "  t-0 (trainer, 10.0.0.1)\n"
        "  r-1 (rollout, 10.0.0.3)\n"
        "InfiniBand and RoCE: look at network.nccl.hca (ibv_devinfo in a pod lists adapters that are up) and at the "
        "secondary network. EFA: the image needs aws-ofi-nccl and libfabric. Each pod's nccl-*.log, beside Ray's logs, "
        "says why; network.rdma.enabled=false takes TCP"
    )


def test_what_went_over_tcp_without_rdma_is_said_and_accepted():
    assert over(["NET/Socket"], ["NET/Socket"], rdma=False) == "in 1.5 s, over NET/Socket"
    assert over(["NET/IB"], ["P2P"], ["NET/IB"]) == "in 1.5 s, over NET/IB and P2P"
    assert over([], [], []) == "in 1.5 s"  # NCCL said nothing of it
