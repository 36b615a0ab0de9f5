"""How a group's settings are laid over those of all pods: the rule at the head of `pods` in values.yaml."""

import pytest

from helm.engine import ci_values, job_values, merged, render, set_values
from tests.chart.test_backends import templates as templates_by_role

BASE = ci_values("four-nodes")
DEFAULT_POD = {
    "runAsNonRoot": True,
    "runAsUser": 1000,
    "runAsGroup": 1000,
    "fsGroup": 1000,
    "fsGroupChangePolicy": "OnRootMismatch",
    "seccompProfile": {"type": "RuntimeDefault"},
}
DEFAULT_CONTAINER = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}


def pods(**values):
    """Role -> pod template, its own spec beside its Ray container."""
    made = templates_by_role(render(merged(BASE, values)))
    return {role: template["spec"] for role, (template, _, _) in made.items()}


def ray(spec):
    return spec["containers"][0]


def variables(spec):
    return {one["name"]: one.get("value") for one in ray(spec)["env"]}


def test_a_groups_variables_are_added_to_those_of_all_pods_and_win_by_name():
    both = [{"name": "HTTPS_PROXY", "value": "http://proxy:3128"}, {"name": "A", "value": "1"}]
    made = pods(pods={"extraEnv": both}, trainer={"extraEnv": [{"name": "A", "value": "2"}]})
    assert (variables(made["head"])["A"], variables(made["trainer"])["A"]) == ("1", "2")
    assert all(variables(spec)["HTTPS_PROXY"] == "http://proxy:3128" for spec in made.values())


def test_a_volume_or_mount_replaces_the_charts_of_its_name_or_path():
    nvme = {"name": "scratch", "hostPath": {"path": "/mnt/nvme"}}
    mounts = [{"name": "scratch", "mountPath": "/tmp/", "subPath": "run"}]
    for spec in pods(pods={"extraVolumes": [nvme], "extraVolumeMounts": mounts}).values():
        assert [one for one in spec["volumes"] if one["name"] == "scratch"] == [nvme]
        at_tmp = [one for one in ray(spec)["volumeMounts"] if one["mountPath"].rstrip("/") == "/tmp"]
        assert at_tmp == mounts


def test_scratch_is_the_nodes_disk_with_a_limit_or_the_volume_that_is_named():
    claim = {"ephemeral": {"volumeClaimTemplate": {"spec": {"accessModes": ["ReadWriteOnce"]}}}}
    made = pods(
        pods={"scratch": {"volume": {"hostPath": {"path": "/mnt/nvme"}}}},
        trainer={"scratch": {"volume": claim}},
        rollout={"scratch": None},
    )
    scratch = {
        role: next({**one, "name": ""} for one in spec["volumes"] if one["name"] == "scratch")
        for role, spec in made.items()
    }
    assert scratch == {
        "head": {"name": "", "hostPath": {"path": "/mnt/nvme"}},
        "trainer": {"name": "", **claim},
        "rollout": {"name": "", "emptyDir": {"sizeLimit": "20Gi"}},
    }
    (head, *_) = pods(pods={"scratch": {"sizeLimit": ""}}).values()
    assert {"name": "scratch", "emptyDir": {}} in head["volumes"]


def test_pods_that_share_a_scratch_volume_have_a_folder_each():
    claim = {"persistentVolumeClaim": {"claimName": "scratch"}}
    own = {"ephemeral": {"volumeClaimTemplate": {"spec": {"accessModes": ["ReadWriteOnce"]}}}}
    made = pods(
        pods={"scratch": {"volume": claim}}, trainer={"scratch": {"volume": own}}, rollout={"scratch": None}
    )
    folders = {
        role: [one.get("subPathExpr") for one in ray(spec)["volumeMounts"] if one["mountPath"] == "/tmp"]
        for role, spec in made.items()
    }
    assert folders == {"head": ["$(POD_NAME)"], "trainer": [None], "rollout": [None]}
    assert {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}} in ray(
        made["head"]
    )["env"]


CONTEXTS = {
    "nothing given": ({}, {}, DEFAULT_POD),
    "one key replaces the whole": ({"runAsUser": 2000}, {}, {"runAsUser": 2000}),
    "nulls alone take away": ({"runAsUser": None, "fsGroup": None}, {}, {"runAsUser", "fsGroup"}),
    "a null of a group takes away": ({}, {"runAsUser": None}, {"runAsUser"}),
    "a null beside a value is left out": ({"runAsUser": 2000, "fsGroup": None}, {}, {"runAsUser": 2000}),
    "a group replaces that of all pods": ({"runAsUser": 1}, {"runAsUser": 2}, {"runAsUser": 2}),
    "a group takes away from all pods'": (
        {"runAsUser": 1, "fsGroup": 2},
        {"fsGroup": None},
        {"runAsUser": 1},
    ),
    "a group goes back to the default": ({"runAsUser": 1}, None, DEFAULT_POD),
}


@pytest.mark.parametrize("case", CONTEXTS)
def test_a_security_context_replaces_the_default_and_nulls_alone_take_away(case):
    of_all, of_head, expected = CONTEXTS[case]
    if isinstance(expected, set):
        expected = {key: value for key, value in DEFAULT_POD.items() if key not in expected}
    made = pods(pods={"podSecurityContext": of_all}, head={"podSecurityContext": of_head})
    assert made["head"]["securityContext"] == expected


def test_a_null_on_the_command_line_is_one_in_a_file():
    given = set_values(
        "pods.podSecurityContext.fsGroup=null,head.podSecurityContext.runAsUser=null,pods.tolerations=null"
    )
    assert given["pods"] == {"podSecurityContext": {"fsGroup": None}, "tolerations": None}
    made = pods(**given)
    assert set(DEFAULT_POD) - set(made["head"]["securityContext"]) == {"fsGroup", "runAsUser"}
    assert set(DEFAULT_POD) - set(made["trainer"]["securityContext"]) == {"fsGroup"}
    assert "tolerations" not in made["head"]


def test_a_privileged_container_is_nothing_else():
    made = pods(pods={"securityContext": {"privileged": True}}, rollout={"securityContext": None})
    assert ray(made["head"])["securityContext"] == {"privileged": True}
    assert ray(made["rollout"])["securityContext"] == DEFAULT_CONTAINER


def test_whole_numbers_and_strings_stay_what_they_are():
    toleration = {"key": "1", "operator": "Exists", "tolerationSeconds": 1209600}
    text = render(
        job_values(
            "actor: {num_gpus_per_node: 4}\nvllm: {num_engines: 4}\nreward: {remote_url: r.py}\n",
            pods={"tolerations": [toleration], "priorityClassName": "1000", "runtimeClassName": "yes"},
        )
    )
    for spec in [template["spec"] for template, _, _ in templates_by_role(text).values()]:
        assert toleration in spec["tolerations"]
        assert (spec["priorityClassName"], spec["runtimeClassName"]) == ("1000", "yes")
    assert "e+06" not in text.files["openrlhf-mtp/templates/rayjob.yaml"]
