"""The small pods beside a run have what an organization gives every pod, and nothing that ties them to GPU nodes."""

import pytest

from helm.engine import EXAMPLES, ChartError, job_values, merged, render
from tests.chart.schemas import pod_templates, problems

JOB = EXAMPLES / "dapo_qwen3-8b_8gpu" / "job.yaml"
WITH_ALL = {
    "monitoring": {"tensorboard": True},
    "storage": {"checkpoints": {"existingClaim": "shared"}},
}
ROLES = {"check", "submitter", "tensorboard", "test"}
BACKENDS = pytest.mark.parametrize("backend", ["rayjob", "statefulset"])


def helpers(backend="rayjob", **values):
    """Role to template of every pod beside the run; the whole is valid."""
    rendered = render(merged(job_values(JOB, backend=backend, **WITH_ALL), values))
    assert [one for made in rendered.objects for one in problems(made, "1.32")] == []
    found = {}
    for made in rendered.objects:
        for template in [] if made["kind"] == "ReplicaSet" else pod_templates(made):
            role = template["metadata"]["labels"]["openrlhf-mtp.io/role"]
            if role not in ("head", "trainer", "rollout"):
                found[role] = template
    assert set(found) == ROLES
    return found


def container(template):
    (one,) = template["spec"]["containers"]
    return one


def env(template):
    return {one["name"]: one for one in container(template)["env"]}


@BACKENDS
def test_what_every_pod_of_an_organisation_has_is_theirs_too(backend):
    pods = {
        "labels": {"cost": "42"},
        "annotations": {"sidecar.istio.io/inject": "false"},
        "extraEnv": [{"name": "HTTPS_PROXY", "value": "http://proxy:3128"}],
        "envFrom": [{"configMapRef": {"name": "site"}}],
        "extraVolumes": [{"name": "ca", "configMap": {"name": "ca"}}],
        "extraVolumeMounts": [{"name": "ca", "mountPath": "/etc/ca"}],
        "tolerations": [{"key": "dedicated", "operator": "Exists"}],
        "priorityClassName": "research",
        "hostAliases": [{"ip": "10.0.0.1", "hostnames": ["mirror"]}],
        "podSecurityContext": {"runAsNonRoot": True, "runAsUser": 2000},
    }
    for template in helpers(backend, pods=pods, labels={"team": "rl"}).values():
        assert {"team": "rl", "cost": "42"}.items() <= template["metadata"]["labels"].items()
        assert template["metadata"]["annotations"]["sidecar.istio.io/inject"] == "false"
        assert env(template)["HTTPS_PROXY"]["value"] == "http://proxy:3128"
        assert container(template)["envFrom"][0]["configMapRef"]["name"] == "site"
        assert {"name": "ca", "mountPath": "/etc/ca"} in container(template)["volumeMounts"]
        assert "ca" in [volume["name"] for volume in template["spec"]["volumes"]]
        assert template["spec"]["tolerations"] == pods["tolerations"]
        assert template["spec"]["priorityClassName"] == "research"
        assert template["spec"]["hostAliases"] == pods["hostAliases"]
        assert template["spec"]["securityContext"] == pods["podSecurityContext"]


@BACKENDS
def test_what_is_of_the_gpu_nodes_is_not_theirs(backend):
    pods = {
        "nodeSelector": {
            "cloud.google.com/gke-accelerator": "nvidia-h100-80gb",
            "kubernetes.io/arch": "amd64",
        },
        "affinity": {"nodeAffinity": {}},
        "runtimeClassName": "nvidia",
        "annotations": {
            "k8s.v1.cni.cncf.io/networks": "ib",
            "networking.gke.io/interfaces": "[]",
            "kept": "true",
        },
        "extraResources": {"hugepages-2Mi": "5120Mi"},
        "extraVolumes": [
            {"name": "nvme", "hostPath": {"path": "/mnt/nvme", "type": "Directory"}},
            {"name": "claim", "persistentVolumeClaim": {"claimName": "rwo"}},
        ],
        "extraVolumeMounts": [
            {"name": "nvme", "mountPath": "/nvme"},
            {"name": "data", "mountPath": "/mnt/data"},  # one of the run's own volumes
        ],
        "initContainers": [{"name": "plugin", "image": "x"}],
        "extraContainers": [{"name": "daemon", "image": "x"}],
    }
    for template in helpers(backend, pods=pods).values():
        spec = template["spec"]
        assert spec["nodeSelector"] == {"kubernetes.io/arch": "amd64"}
        assert not {"affinity", "runtimeClassName", "initContainers"} & set(spec)
        assert len(spec["containers"]) == 1
        assert "kept" in template["metadata"]["annotations"]
        assert not any("networks" in name or "gke" in name for name in template["metadata"]["annotations"])
        assert set(container(template)["resources"]["requests"]) == {"cpu", "memory"}
        assert {volume["name"] for volume in spec["volumes"]} <= {"scratch", "checkpoints"}
        assert {mount["name"] for mount in container(template)["volumeMounts"]} <= {"scratch", "checkpoints"}


@BACKENDS
def test_their_own_settings_win(backend):
    values = {
        "pods": {
            "labels": {"cost": "42"},
            "annotations": {"mesh": "on"},
            "extraEnv": [{"name": "HTTPS_PROXY", "value": "a"}, {"name": "LANG", "value": "C"}],
            "ephemeralStorage": "20Gi",
        },
        "tools": {
            "image": {"repository": "reg.example.com/tools"},
            "cpu": "500m",
            "memory": "1Gi",
            "nodeSelector": {"pool": "cpu"},
            "tolerations": [{"key": "cpu-only", "operator": "Exists"}],
            "labels": {"cost": "7"},
            "annotations": {"mesh": None, "more": "yes"},
            "extraEnv": [{"name": "HTTPS_PROXY", "value": "b"}],
            "runtimeClassName": "gvisor",
            "securityContext": {"readOnlyRootFilesystem": True},
        },
    }
    for template in helpers(backend, **values).values():
        one = container(template)
        assert one["image"] == "reg.example.com/tools:0.1.0-tools"
        assert one["imagePullPolicy"] == "IfNotPresent"
        assert one["resources"]["limits"] == {"cpu": "500m", "memory": "1Gi", "ephemeral-storage": "2Gi"}
        assert one["resources"]["requests"] == one["resources"]["limits"]
        assert one["securityContext"] == {"readOnlyRootFilesystem": True}
        assert template["spec"]["nodeSelector"] == {"pool": "cpu"}
        assert template["spec"]["runtimeClassName"] == "gvisor"
        assert template["metadata"]["labels"]["cost"] == "7"
        assert (env(template)["HTTPS_PROXY"]["value"], env(template)["LANG"]["value"]) == ("b", "C")
        annotations = template["metadata"]["annotations"]
        assert "mesh" not in annotations
        assert annotations["more"] == "yes"


def test_the_run_keeps_its_own_image_and_settings():
    tools = {"image": {"repository": "x", "tag": "1"}, "cpu": 3, "labels": {"a": "b"}}
    cluster = render(job_values(JOB, tools=tools)).one("RayJob")["spec"]["rayClusterSpec"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        assert container(group["template"])["image"].startswith("registry.example.com/openrlhf-mtp:")
        assert "a" not in group["template"]["metadata"]["labels"]
        assert container(group["template"])["resources"]["limits"]["cpu"] != "3"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, "registry.example.com/openrlhf-mtp:0.1.0-gpu"),
        ({"repository": "r/tools", "tag": "2"}, "r/tools:2"),
        (
            {"repository": "r/tools", "tag": "2", "digest": f"sha256:{'0' * 64}"},
            f"r/tools@sha256:{'0' * 64}",
        ),
    ],
)
def test_their_image_is_the_runs_until_another_is_named(given, expected):
    templates = helpers(tools={"image": given}).values()
    assert {container(template)["image"] for template in templates} == {expected}


@pytest.mark.parametrize(
    ("tools", "message"),
    [
        (
            {"image": {"tag": "1"}},
            "tools.image.tag: got 1 and no tools.image.repository; name the repository of the helper pods' image, or "
            "leave it out: they have the run's image then",
        ),
        (
            {"extraVolumeMounts": [{"name": "data", "mountPath": "/d"}]},
            "tools.extraVolumeMounts: got data at /d, expected a volume of the helper pods: scratch; add it to "
            "tools.extraVolumes",
        ),
        (
            {"extraVolumes": [{"name": "a", "emptyDir": {}}, {"name": "a", "emptyDir": {}}]},
            "tools.extraVolumes: got two entries with the name a, expected one; leave the other out",
        ),
    ],
)
def test_what_cannot_be_meant_is_refused(tools, message):
    with pytest.raises(ChartError) as refusal:
        render(job_values(JOB, tools=tools))
    assert str(refusal.value).strip() == f"These values cannot run:\n  - {message}"


@pytest.mark.parametrize("key", ["shmSize", "topologySpread", "extraResources", "initContainers", "scratch"])
def test_what_they_have_no_use_for_is_not_taken(key):
    with pytest.raises(ChartError, match=f"'{key}' not allowed"):
        render(job_values(JOB, tools={key: None}))


def test_a_queue_for_them_is_on_the_objects_that_make_them():
    queue = {"kueue.x-k8s.io/queue-name": "small"}
    rendered = render(job_values(JOB, backend="statefulset", **WITH_ALL, tools={"labels": queue}))
    makers = [
        rendered.one("Job", "-submitter"),
        rendered.one("Deployment", "-tensorboard"),
        rendered.one("Pod", "-check"),
        rendered.one("Pod", "-test"),
    ]
    for made in makers:
        assert queue.items() <= made["metadata"]["labels"].items()
    for made in rendered.of_kind("StatefulSet"):
        assert not queue.items() <= made["metadata"]["labels"].items()


def test_the_check_does_not_wait_for_what_the_release_brings():
    pods = {
        "extraEnv": [
            {"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
            {"name": "B", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
        ],
        "envFrom": [{"secretRef": {"name": "s"}}],
        "extraVolumes": [
            {"name": "ca", "secret": {"secretName": "s"}},
            {"name": "all", "projected": {"sources": [{"configMap": {"name": "c"}}]}},
        ],
    }
    made = helpers(pods=pods)
    check = made["check"]
    assert env(check)["A"]["valueFrom"]["secretKeyRef"] == {"name": "s", "key": "k", "optional": True}
    assert env(check)["B"] == pods["extraEnv"][1]
    assert container(check)["envFrom"] == [{"secretRef": {"name": "s", "optional": True}}]
    volumes = {volume["name"]: volume for volume in check["spec"]["volumes"]}
    assert volumes["ca"]["secret"] == {"secretName": "s", "optional": True}
    assert volumes["all"]["projected"]["sources"] == [{"configMap": {"name": "c", "optional": True}}]
    assert env(made["submitter"])["A"] == pods["extraEnv"][0]


@pytest.mark.parametrize("bound", [{"nodeSelector": {"pool": "gpu"}}, {"affinity": {"nodeAffinity": {}}}])
def test_a_head_that_is_bound_to_nodes_accepts_the_taint_of_gpu_nodes(bound):
    def tolerations(**values):
        cluster = render(job_values(JOB, **values)).one("RayJob")["spec"]["rayClusterSpec"]
        return cluster["headGroupSpec"]["template"]["spec"].get("tolerations", [])

    taint = {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}
    assert tolerations() == []
    assert tolerations(pods=bound) == tolerations(head=bound) == [taint]


def test_the_check_and_the_pods_check_may_change_beside_a_running_job():
    name = render(job_values(JOB)).one("RayJob")["metadata"]["name"]
    off = job_values(JOB, preflight={"checkJob": False, "checkPods": False})
    assert render(off).one("RayJob")["metadata"]["name"] == name
    assert render(off).of_kind("ReplicaSet") == []
    assert [pod["metadata"]["name"] for pod in render(off).of_kind("Pod")] == [f"{name}-test"]
