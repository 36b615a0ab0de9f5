"""Every pod's template is shown to the API server before anything of a run is made, as it is."""

import copy

import pytest

from helm.engine import CI_NAMES, render_ci
from tests.chart.schemas import pod_templates

MARK = "openrlhf-mtp.io/podcheck"
LEFT_OUT = ("restartPolicy", "activeDeadlineSeconds")
"""What a ReplicaSet does not take. KubeRay and we set them to values that Kubernetes knows."""


def shown(made):
    """A pod's template as a ReplicaSet may hold it."""
    made = copy.deepcopy({"metadata": made["metadata"], "spec": made["spec"]})
    made["metadata"] = {
        key: made["metadata"][key] for key in ("labels", "annotations") if key in made["metadata"]
    }
    for key in LEFT_OUT:
        made["spec"].pop(key, None)
    for container in made["spec"]["containers"]:
        if made["metadata"]["labels"]["openrlhf-mtp.io/role"] in ("head", "trainer", "rollout"):
            container.pop("command", None)  # KubeRay makes it, and a StatefulSet is validated itself
            container.pop("args", None)
    return made


def by_role(templates):
    return {template["metadata"]["labels"]["openrlhf-mtp.io/role"]: shown(template) for template in templates}


@pytest.mark.parametrize("name", CI_NAMES)
def test_what_is_shown_is_every_pod_but_the_tests_as_it_is(name):
    rendered = render_ci(name)
    checked = rendered.of_kind("ReplicaSet")
    assert {made["spec"]["template"]["metadata"]["labels"].pop(MARK) for made in copy.deepcopy(checked)} == {
        "true"
    }
    made = [
        one
        for one in rendered.objects
        if one["kind"] != "ReplicaSet" and one["metadata"]["name"][-5:] != "-test"
    ]
    own = by_role(template for one in made for template in pod_templates(one))
    templates = by_role(one["spec"]["template"] for one in checked)
    for template in templates.values():
        del template["metadata"]["labels"][MARK]
    (job,) = [one for one in own["check"]["spec"]["containers"][0]["env"] if one["name"] == "JOB_CONFIG"]
    job["value"] = ""  # the file may be long, and the next hook brings it
    for hook in ("helm.sh/hook", "helm.sh/hook-delete-policy", "helm.sh/hook-output-log-policy"):
        own["check"]["metadata"]["annotations"].pop(hook)
    own["check"]["metadata"] = {key: one for key, one in own["check"]["metadata"].items() if one}
    assert templates == own


@pytest.mark.parametrize("name", CI_NAMES)
def test_pod_checks_replace_each_other_first_and_start_no_pods(name):
    checked = render_ci(name).of_kind("ReplicaSet")
    assert {made["metadata"]["name"] for made in checked} == {"run1-podcheck"}
    weights = [int(made["metadata"]["annotations"]["helm.sh/hook-weight"]) for made in checked]
    assert weights == sorted(set(weights))
    assert max(weights) < 0  # the check of the job file has none
    for made in checked:
        assert made["metadata"]["annotations"]["helm.sh/hook"] == "pre-install,pre-upgrade"
        policy = made["metadata"]["annotations"]["helm.sh/hook-delete-policy"]
        assert policy == "before-hook-creation,hook-succeeded"
        assert made["spec"]["replicas"] == 0
        # of a label that no pod has: it would take pods that have no owner for its own, and remove them
        assert made["spec"]["selector"] == {"matchLabels": {MARK: "true"}}
    others = [made for made in render_ci(name).objects if made["kind"] != "ReplicaSet"]
    for made in others:
        assert not any(MARK in template["metadata"]["labels"] for template in pod_templates(made))
