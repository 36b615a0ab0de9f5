"""What pods take beside the chart's own: containers, resources, claims, names, and where each of it ends up."""

import pytest

from helm.engine import ChartError, ci_values, job_values, merged, render
from tests.chart import schemas
from tests.chart.test_backends import templates

BASE = ci_values("four-nodes")
EXTRAS = {
    "initContainers": [{"name": "nccl-plugin", "image": "x"}],
    "extraContainers": [{"name": "rxdm", "image": "x", "resources": {"limits": {"cpu": "1"}}}],
    "extraResources": {"hugepages-2Mi": "5120Mi"},
    "resourceClaims": [{"name": "roce", "resourceClaimTemplateName": "roce"}],
    "containerClaims": [{"name": "roce"}],
    "envFrom": [{"secretRef": {"name": "s3"}}],
    "hostAliases": [{"ip": "10.0.0.1", "hostnames": ["registry.local"]}],
    "dnsConfig": {"options": [{"name": "ndots", "value": "2"}]},
}


def pods(backend, **values):
    made = render(merged(BASE, {"backend": backend, **values}))
    assert [problem for one in made.objects for problem in schemas.problems(one, "1.32")] == []
    return {role: template["spec"] for role, (template, _, _) in templates(made).items()}


@pytest.mark.parametrize("backend", ["rayjob", "statefulset"])
def test_everything_is_where_a_pod_has_it_and_in_that_group_alone(backend):
    made = pods(backend, trainer=EXTRAS)
    spec, ray = made["trainer"], made["trainer"]["containers"][0]
    assert spec["initContainers"] == EXTRAS["initContainers"]
    assert spec["containers"] == [ray, *EXTRAS["extraContainers"]]
    assert ray["name"] == "ray"
    assert (
        ray["resources"]["requests"]["hugepages-2Mi"]
        == ray["resources"]["limits"]["hugepages-2Mi"]
        == "5120Mi"
    )
    assert ray["resources"]["claims"] == EXTRAS["containerClaims"]
    assert ray["envFrom"] == EXTRAS["envFrom"]
    for field in ("resourceClaims", "hostAliases", "dnsConfig"):
        assert spec[field] == EXTRAS[field]
    plain = pods(backend)
    assert not set(EXTRAS) & {field for spec in plain.values() for field in spec}
    assert set(made["head"]) == set(plain["head"])


def test_the_pods_beside_the_run_ask_for_nothing_of_it():
    made = render(merged(BASE, {"pods": EXTRAS}))
    spec = made.one("RayJob")["spec"]["submitterPodTemplate"]["spec"]
    assert len(spec["containers"]) == 1
    assert set(spec["containers"][0]["resources"]["requests"]) == {"cpu", "memory"}
    assert not {"initContainers", "resourceClaims"} & set(spec)


def test_local_disk_is_asked_for_only_where_it_is_named():
    made = pods("rayjob", trainer={"ephemeralStorage": "50Gi"})
    for role, spec in made.items():
        resources = spec["containers"][0]["resources"]
        assert resources["limits"].get("ephemeral-storage") == ("50Gi" if role == "trainer" else None)
        assert resources["requests"] == resources["limits"]


def test_gpus_may_come_by_a_claim_and_must_come_somehow():
    claim = {"resourceClaims": EXTRAS["resourceClaims"], "containerClaims": EXTRAS["containerClaims"]}
    by_claim = {"accelerator": {"resource": ""}, "trainer": claim}
    for spec in pods("rayjob", **by_claim, rollout=claim).values():
        assert not {"nvidia.com/gpu", ""} & set(spec["containers"][0]["resources"]["requests"])
    with pytest.raises(ChartError, match=r"rollout\.containerClaims claims no GPUs either"):
        render(merged(BASE, by_claim))


def test_a_name_of_digits_stays_a_text():
    job = "actor: {num_gpus_per_node: 1}\nvllm: {num_engines: 1}\nreward: {remote_url: r.py}\n"
    values = {
        "storage": {"checkpoints": {"existingClaim": "2024", "subPath": "1e3"}},
        "secrets": {"huggingface": {"name": "0x1", "key": "1"}, "wandb": {"name": "2", "key": "null"}},
        "auth": {"existingSecret": "3"},
        "image": {"pullSecrets": ["4"]},
        "scheduling": {"schedulerName": "5"},
        "serviceAccount": {"name": "8"},
        "monitoring": {"tensorboard": True, "podMonitor": True, "podMonitorLabels": {"release": "9"}},
        "pods": {"priorityClassName": "1000", "runtimeClassName": "6", "nodeSelector": {"zone": "7"}},
    }
    queued = {"scheduling": {"gang": "kueue", "queue": "10", "kueuePriorityClass": "11"}}
    for more in ({}, {"backend": "statefulset"}, queued):
        made = render(job_values(job, **merged(values, more)), name="no", namespace="12")
        assert [problem for one in made.objects for problem in schemas.problems(one, "1.32")] == []
