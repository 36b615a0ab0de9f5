"""Rules that every object of every values file keeps."""

import re

import pytest

from helm.engine import CI_NAMES, ci_values, merged, render, render_ci
from tests.chart.schemas import containers, pod_templates

NAMESPACED = {
    "ConfigMap",
    "Deployment",
    "Job",
    "NetworkPolicy",
    "PersistentVolumeClaim",
    "Pod",
    "PodDisruptionBudget",
    "PodMonitor",
    "RayJob",
    "ReplicaSet",
    "Role",
    "RoleBinding",
    "Service",
    "ServiceAccount",
    "StatefulSet",
}

every_values_file = pytest.mark.parametrize("name", CI_NAMES)


def pods(name):
    return [template for made in render_ci(name).objects for template in pod_templates(made)]


@every_values_file
def test_nothing_is_cluster_scoped_and_nothing_is_a_secret(name):
    assert {made["kind"] for made in render_ci(name).objects} <= NAMESPACED


@every_values_file
def test_no_pod_runs_as_root_or_keeps_a_capability_it_does_not_need(name):
    rdma = ci_values(name).get("network", {}).get("rdma", {}).get("enabled", False)
    for template in pods(name):
        context = template["spec"]["securityContext"]
        assert context["runAsNonRoot"] is True
        assert context.get("runAsUser", 1000) > 0  # OpenShift chooses one
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not template["spec"].get("hostNetwork", False)
        for container in containers(template):
            own = container["securityContext"]
            assert own["allowPrivilegeEscalation"] is False
            assert own["capabilities"]["drop"] == ["ALL"]
            has_gpu = "nvidia.com/gpu" in container["resources"]["limits"]
            assert own["capabilities"].get("add", []) == (["IPC_LOCK"] if rdma and has_gpu else [])


@every_values_file
def test_every_container_states_the_same_requests_and_limits(name):
    for template in pods(name):
        for container in containers(template):
            limits = container["resources"]["limits"]
            assert {"cpu", "memory"} <= set(limits)
            assert container["resources"]["requests"] == limits


@every_values_file
def test_no_pod_asks_for_a_resource_that_its_values_do_not_name(name):
    values = ci_values(name)
    named = {"cpu", "memory", "nvidia.com/gpu"}
    if values.get("network", {}).get("rdma", {}).get("enabled"):
        named.add(values["network"]["rdma"]["resource"])
    if values.get("pods", {}).get("ephemeralStorage"):
        named.add("ephemeral-storage")
    for section in ("pods", "head", "trainer", "rollout"):
        named.update(values.get(section, {}).get("extraResources", {}))
    for template in pods(name):
        for container in containers(template):
            assert set(container["resources"]["requests"]) <= named


@every_values_file
def test_only_the_submitter_that_scales_pods_has_a_token(name):
    for template in pods(name):
        scales = any("--group" in container.get("command", []) for container in containers(template))
        assert template["spec"]["automountServiceAccountToken"] is scales
    for made in render_ci(name).of_kind("ServiceAccount"):
        assert made["automountServiceAccountToken"] is False


@every_values_file
def test_the_submitter_may_scale_its_pods_and_keep_progress_alone(name):
    for role in render_ci(name).of_kind("Role"):
        own = role["metadata"]["name"]
        run = own.removesuffix("-submitter")
        scales, memory = role["rules"]
        assert scales["resources"] == ["statefulsets/scale"]
        assert all(one.startswith(f"{run}-") for one in scales["resourceNames"])
        assert (memory["resources"], memory["resourceNames"]) == (["configmaps"], [own])
        assert scales["verbs"] == memory["verbs"] == ["get", "patch"]


@every_values_file
def test_the_submitter_ends_a_run_before_kubernetes_ends_the_submitter(name):
    for made in render_ci(name).of_kind("Job"):
        command = containers(made["spec"]["template"])[0].get("command", [])
        if "openrlhf_mtp.cluster.submit" in command:
            deadline = int(command[command.index("--deadline-s") + 1])
            assert deadline + 300 <= made["spec"]["activeDeadlineSeconds"]


@every_values_file
def test_every_port_names_its_protocol(name):
    for made in render_ci(name).of_kind("Service"):
        assert all(port["protocol"] == "TCP" for port in made["spec"]["ports"])
    for template in pods(name):
        for container in containers(template):
            assert all(port["protocol"] == "TCP" for port in container.get("ports", []))


@every_values_file
def test_no_variable_and_no_mount_is_given_twice(name):
    for template in pods(name):
        for container in containers(template):
            variables = [one["name"] for one in container.get("env", [])]
            places = [one["mountPath"] for one in container.get("volumeMounts", [])]
            assert len(variables) == len(set(variables))
            assert len(places) == len(set(places))


@every_values_file
def test_secrets_are_references(name):
    for template in pods(name):
        for container in containers(template):
            for variable in container.get("env", []):
                if re.search("TOKEN|SECRET|PASSWORD|API_KEY", variable["name"]):
                    assert set(variable["valueFrom"]) == {"secretKeyRef"}


@every_values_file
def test_an_image_is_never_latest(name):
    for template in pods(name):
        for container in containers(template):
            assert re.search(r":\d+\.\d+\.\d+-(cpu|gpu)$|@sha256:", container["image"])


@every_values_file
def test_shared_memory_is_in_memory_and_sized(name):
    for template in pods(name):
        volumes = {volume["name"]: volume for volume in template["spec"]["volumes"]}
        for container in containers(template):
            mounted = {mount["mountPath"]: mount["name"] for mount in container.get("volumeMounts", [])}
            if container["name"] == "ray":
                assert volumes[mounted["/dev/shm"]]["emptyDir"]["medium"] == "Memory"
                assert volumes[mounted["/dev/shm"]]["emptyDir"]["sizeLimit"]
            assert set(mounted.values()) <= set(volumes)


@every_values_file
def test_services_and_budgets_select_this_run_alone(name):
    rendered = render_ci(name)
    run = rendered.of_kind("NetworkPolicy")[0]["metadata"]["name"]
    for made in [*rendered.of_kind("Service"), *rendered.of_kind("PodDisruptionBudget")]:
        selector = made["spec"]["selector"]
        labels = selector.get("matchLabels", selector)
        assert labels.get("openrlhf-mtp.io/run", run) == run
        assert labels["app.kubernetes.io/instance"] == "run1"


def test_tensorboard_admits_those_who_may_see_the_dashboard():
    given = {"monitoring": {"tensorboard": True}, "networkPolicy": {"dashboardFrom": [{"podSelector": {}}]}}
    rendered = render(merged(ci_values("one-gpu"), given))
    policy = rendered.one("NetworkPolicy", "-tensorboard")["spec"]
    assert policy["podSelector"] == rendered.one("Deployment", "-tensorboard")["spec"]["selector"]
    assert policy["ingress"] == [
        {"from": [{"podSelector": {}}], "ports": [{"port": 6006, "protocol": "TCP"}]}
    ]
    closed = render(merged(ci_values("one-gpu"), {"monitoring": {"tensorboard": True}}))
    assert "ingress" not in closed.one("NetworkPolicy", "-tensorboard")["spec"]
    open_ended = merged(given, {"networkPolicy": {"enabled": False}})
    notes = render(merged(ci_values("one-gpu"), open_ended)).notes
    assert "every pod of the cluster can read the run folders' figures" in notes


@every_values_file
def test_everything_ends_by_itself(name):
    rendered = render_ci(name)
    for made in [*rendered.of_kind("RayJob"), *rendered.of_kind("Job")]:
        assert made["spec"]["activeDeadlineSeconds"] > 0
    for made in rendered.of_kind("RayJob"):
        assert made["spec"]["preRunningDeadlineSeconds"] < made["spec"]["activeDeadlineSeconds"]
        assert made["spec"]["shutdownAfterJobFinishes"] is True
