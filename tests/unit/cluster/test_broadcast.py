"""Which pods are named when a broadcast does not reach all of them."""

import re
import socket

import pytest

from openrlhf_mtp.cluster.broadcast import Broadcasts, broadcast, free_address
from openrlhf_mtp.cluster.nodes import Node
from openrlhf_mtp.cluster.preflight import PreflightError, check_network
from tests.patience import seconds

TRAINER = Node("id-t", "t-0", "10.0.0.1", "trainer", 8.0)
ROLLOUTS = [Node(f"id-r{i}", f"r-{i}", f"10.0.0.{2 + i}", "rollout", 8.0) for i in range(2)]
HEAD = Node("id-h", "h", "10.0.0.9", "head", 0.0)
PODS = [TRAINER, *ROLLOUTS, HEAD]


class Played(Broadcasts):
    """Broadcasts of which a rule says whether they arrive."""

    def over(self, nodes, limit_s):
        return 1.5 if self.ray({node.name for node in nodes}) else None


def check(arrives):
    return check_network(PODS, 60.0, Played(arrives, nvidia=True, busy=False))


def test_one_broadcast_goes_over_all_pods_with_gpus():
    assert check(lambda names: names == {"t-0", "r-0", "r-1"}) == 1.5


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
