"""docs/kubernetes_admin.md says what a run asks of a cluster: its tables and its Role are held to what is rendered."""

import re

import pytest
import yaml

from helm import demands
from helm.engine import CI_NAMES, EXAMPLES, Rendered, job_values, merged, render, render_ci

PAGE = demands.PAGE.read_text(encoding="utf-8")
JOB = EXAMPLES / "llama-3.1-8b_2nodes" / "job.yaml"
PLURALS = {"NetworkPolicy": "networkpolicies"}
HELM = {("", "secrets"), ("", "pods/log"), ("apps", "statefulsets/scale")}
"""What Helm keeps of a release, reads of a test, and what the submitter's Role hands on."""
CREATED = {"checkpoints": {"create": True}}
ROLE = yaml.safe_load(re.findall(r"```yaml\n(.*?)```", PAGE, re.S)[0])


def everything() -> Rendered:
    """A release with everything that values can ask for, of both backends."""
    more = {
        "monitoring": {"podMonitor": True, "dashboard": True, "tensorboard": True},
        "storage": CREATED,
        "networkPolicy": {"metricsFrom": [{"podSelector": {}}], "dashboardFrom": [{"podSelector": {}}]},
    }
    files = {}
    for backend in ("rayjob", "statefulset"):
        made = render(job_values(JOB, backend=backend, **more))
        files |= {f"{backend}/{name}": text for name, text in made.files.items()}
    return Rendered(files)


ALL = everything()


def resource(made):
    group = made["apiVersion"].rpartition("/")[0]
    return group, PLURALS.get(made["kind"], f"{made['kind'].lower()}s")


def granted(rule):
    return {(group, name) for group in rule["apiGroups"] for name in rule["resources"]}


def test_the_installers_role_names_every_kind_that_is_rendered_and_no_other():
    rendered = {resource(made) for name in CI_NAMES for made in render_ci(name).objects}
    rendered |= {resource(made) for made in ALL.objects}
    assert set().union(*map(granted, ROLE["rules"])) == rendered | HELM


def test_the_installer_may_make_change_and_remove_each_kind():
    for rule in ROLE["rules"]:
        wanted = {"get", "list", "watch", "create", "update", "patch", "delete"}
        if granted(rule) == {("", "pods/log")}:
            wanted = {"get"}
        if granted(rule) == {("apps", "statefulsets/scale")}:
            wanted = {"get", "patch"}
        assert set(rule["verbs"]) == wanted


def test_the_installer_has_what_the_submitters_role_hands_on():
    for made in ALL.of_kind("Role"):
        for rule in made["rules"]:
            mine = [one for one in ROLE["rules"] if granted(rule) <= granted(one)]
            assert set(rule["verbs"]) <= set().union(*(one["verbs"] for one in mine)), rule


def test_the_table_of_requests_and_levels_is_up_to_date():
    assert demands.page() == PAGE, "python -m helm.demands writes it"


@pytest.mark.parametrize("backend", ["rayjob", "statefulset"])
def test_a_queue_of_cpu_memory_and_gpus_covers_every_pod_by_default(backend):
    made = render(job_values(JOB, backend=backend, monitoring={"tensorboard": True}, storage=CREATED))
    asked = [c["resources"]["requests"] for one in demands.pods(made) for c in demands.containers(one.spec)]
    assert set().union(*asked) == {"cpu", "memory", "nvidia.com/gpu"}


def ports_of_the_page():
    rows = re.findall(r"^\| .* \| ([0-9, ]+) \| .* \|$", PAGE.partition("## Network")[2], re.M)
    return {int(port) for ports in rows for port in ports.split(",")}


def test_the_table_of_ports_has_those_that_the_policies_let_in():
    policies = [made["spec"] for made in ALL.of_kind("NetworkPolicy")]
    let_in = [rule for policy in policies for rule in policy.get("ingress", [])]
    assert ports_of_the_page() == {port["port"] for rule in let_in for port in rule.get("ports", [])}
    # what lets in all ports lets in the run's own pods alone
    for rule in let_in:
        if "ports" not in rule:
            (peer,) = rule["from"]
            assert "openrlhf-mtp.io/run" in peer["podSelector"]["matchLabels"]


NFS = {"nfs": {"server": "nfs.example.com", "path": "/export"}}


@pytest.mark.parametrize(
    ("values", "level"),
    [
        ({}, "restricted"),
        ({"network": {"rdma": {"enabled": True}}}, "privileged"),
        ({"network": {"hostNetwork": True}}, "privileged"),
        ({"storage": {"data": {"volume": {"hostPath": {"path": "/data"}}}}}, "privileged"),
        ({"storage": {"data": {"volume": NFS}}}, "baseline"),
        ({"storage": {"data": {"volume": {"csi": {"driver": "x.example.com"}}}}}, "restricted"),
        ({"storage": {"data": {"existingClaim": "shared"}}}, "restricted"),
        ({"pods": {"podSecurityContext": {"runAsUser": 1000}}}, "baseline"),
        ({"pods": {"securityContext": {"privileged": True}}}, "privileged"),
    ],
)
@pytest.mark.parametrize("backend", ["rayjob", "statefulset"])
def test_values_need_the_pod_security_level_that_the_page_says(values, level, backend):
    made = render(merged(job_values(JOB, backend=backend), values))
    assert demands.level(made) == level
    # the notes say it too, asked of the pods by the chart itself
    said = re.search(r"the pods need the level (\w+)", made.notes)
    assert (said[1] if said else "restricted") == level


def test_quantities_are_read():
    assert [demands.amount(text) for text in ("4", "500m", "1.5", "2Gi", "1M")] == [
        *(4, demands.amount("0.5"), demands.amount("1500m"), 2 << 30, 10**6)
    ]
