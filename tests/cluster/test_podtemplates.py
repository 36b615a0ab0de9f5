"""A pod that Kubernetes would refuse hours later is refused by `helm install`, and nothing is left of it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from helm.engine import ReleaseError, merged
from tests.cluster.api import until
from tests.cluster.installed import NAMESPACE, OLD_SERVER, Cluster
from tests.cluster.rayjob import define
from tests.cluster.runs import values
from tests.patience import seconds

FAULTS: dict[str, tuple[dict[str, Any], str]] = {
    "a toleration that is none": (
        {"tolerations": [{"key": "gpu", "operator": "Equals"}]},
        'tolerations[0].operator: Unsupported value: "Equals"',
    ),
    "an affinity that is none": (
        {
            "affinity": {
                "nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": []}}
            }
        },
        "must have at least one node selector term",
    ),
    "a contradiction": (
        {"securityContext": {"privileged": True, "allowPrivilegeEscalation": False}},
        "cannot set `allowPrivilegeEscalation` to false and `privileged` to true",
    ),
}
"""Of a pod's parts that go into it as they are given: what the chart can refuse itself, it does before."""

NAME = "rayjobs.ray.io"


@pytest.fixture(scope="module")
def rayjobs(cluster: Cluster) -> Iterator[None]:
    """RayJobs, which no operator looks at here."""
    api = cluster.plane.api
    define(api, ["RayJob"])
    yield
    api.delete("CustomResourceDefinition", None, NAME)
    until("no RayJobs", lambda: api.get("CustomResourceDefinition", None, NAME) is None, 60)


def asked(cluster: Cluster, rollout: dict[str, Any], **preflight: bool) -> dict[str, Any]:
    """Values of a run whose rollout pods, the last of its groups, are so."""
    changes = {"backend": "rayjob", "rollout": rollout, "preflight": preflight}
    no_claim = {"storage": {"checkpoints": {"create": False, "volume": {"emptyDir": {}}}}}
    return merged(merged(values(cluster, changes), no_claim), OLD_SERVER)


@pytest.mark.timeout(200)
@pytest.mark.usefixtures("rayjobs")
@pytest.mark.parametrize("fault", FAULTS)
def test_a_pod_that_kubernetes_refuses_is_refused_at_install_with_its_words(
    cluster: Cluster, fault: str
) -> None:
    wrong, words = FAULTS[fault]
    helm = cluster.helm()
    started = time.monotonic()
    try:
        with pytest.raises(ReleaseError) as refusal:
            helm.install(cluster.chart(), "refused", asked(cluster, wrong, checkJob=False), 100)
        assert time.monotonic() - started < seconds(30)
        assert words in str(refusal.value)
        # nothing but Helm's own record, which ends with the release
        assert [one.split()[0] for one in cluster.left_of("refused")] == ["Secret"]
        assert cluster.plane.api.list("RayJob", NAMESPACE) == []
    finally:
        helm.uninstall("refused")
    assert cluster.left_of("refused") == []


@pytest.mark.timeout(300)
@pytest.mark.usefixtures("rayjobs")
def test_pods_that_kubernetes_takes_leave_nothing_of_their_check(cluster: Cluster) -> None:
    with cluster.release("taken", asked(cluster, {}), timeout_s=200):
        assert {one.split()[0] for one in cluster.left_of("taken")} == {
            *("ConfigMap", "NetworkPolicy", "Secret", "Service", "ServiceAccount")
        }
    until("nothing left", lambda: cluster.left_of("taken") == [], 60)
