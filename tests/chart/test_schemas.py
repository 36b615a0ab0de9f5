"""Every values file and every example job gives objects that Kubernetes and KubeRay accept."""

import copy

import pytest

from helm.engine import CI_NAMES, JOBS, job_values, render, render_ci
from tests.chart import schemas


def all_problems(rendered, version):
    return [problem for made in rendered.objects for problem in schemas.problems(made, version)]


OLDEST = {"gb200-dra": "1.32"}
"""The first version with what a values file asks for: before 1.31 a pod named its claims otherwise."""


@pytest.mark.parametrize(
    ("name", "version"),
    [(name, version) for name in CI_NAMES for version in schemas.VERSIONS if version >= OLDEST.get(name, "")],
)
def test_a_values_file_gives_valid_objects(name, version):
    assert all_problems(render_ci(name), version) == []


@pytest.mark.parametrize("backend", ["rayjob", "statefulset"])
@pytest.mark.parametrize(
    "job", JOBS, ids=lambda path: "/".join(path.parts[path.parts.index("examples") + 1 :])
)
def test_an_example_job_needs_no_more_than_an_image(job, backend):
    rendered = render(job_values(job, backend=backend))
    assert all_problems(rendered, "1.32") == []
    (text,) = [
        made["data"]["job.yaml"]
        for made in rendered.of_kind("ConfigMap")
        if "job.yaml" in made.get("data", {})
    ]
    assert text.strip() == job.read_text(encoding="utf-8").strip()


def broken(change):
    made = copy.deepcopy(render_ci("kueue").one("RayJob"))
    change(made["spec"])
    return list(schemas.problems(made, "1.32"))


@pytest.mark.parametrize(
    "change",
    [
        lambda spec: spec.update(deletionPolicy="x"),
        lambda spec: spec["rayClusterSpec"]["workerGroupSpecs"][0].pop("maxReplicas"),
        lambda spec: spec["rayClusterSpec"]["headGroupSpec"]["rayStartParams"].update(labels="a=b"),
        lambda spec: spec["rayClusterSpec"]["headGroupSpec"]["rayStartParams"].update({"num-cpus": 4}),
        lambda spec: spec.update(suspend=True, shutdownAfterJobFinishes=False),
        lambda spec: spec.update(shutdownAfterJobFinishes=False),
        lambda spec: spec.update(submissionMode="HTTPMode"),
        lambda spec: spec["submitterPodTemplate"]["spec"].update(nodeselector={}),
        lambda spec: spec["submitterPodTemplate"]["spec"]["containers"][0]["resources"]["limits"].update(
            cpu="two"
        ),
    ],
    ids=[
        "unknown field",
        "no maxReplicas",
        "labels in rayStartParams",
        "a number as parameter",
        "suspend without shutdown",
        "ttl without shutdown",
        "submitter in HTTPMode",
        "misspelt pod field",
        "bad quantity",
    ],
)
def test_our_own_schema_refuses_what_kuberay_would(change):
    assert broken(lambda spec: None) == []
    assert broken(change) != []
