"""Our statements of KubeRay's, Kueue's and the Prometheus operator's rules can fail: whatever is changed is noticed."""

import copy

import pytest

from helm.engine import ci_values, job_values, merged, render, render_ci
from tests.chart import kueue, schemas
from tests.chart.test_messages import JOB

FREE = {"labels", "annotations", "matchLabels"}
"""Maps whose keys are names of the user's: another one is as good, one that is no name is not."""


def whole_rayjob():
    """One with every field that the chart can emit."""
    values = merged(ci_values("kueue"), {"job": {"suspend": True}, "pods": {"annotations": {"a/b": "c"}}})
    return render(values).one("RayJob")


def monitor():
    return render_ci("one-node-colocated").one("PodMonitor")


def places(tree, path=()):
    """Every place of an object below pods' specs, which Kubernetes' own schemas check: (path, value)."""
    children = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in children:
        yield (*path, key), value
        if not (key == "spec" and path and path[-1] in ("template", "submitterPodTemplate")):
            yield from places(value, (*path, key))


def at(tree, path):
    for key in path:
        tree = tree[key]
    return tree


def changed(made, path, change):
    """What is noticed once `change` was done to the parent of a path, and its last key."""
    other = copy.deepcopy(made)
    change(at(other, path[:-1]), path[-1])
    return noticed(other, made["kind"])


def noticed(made, kind):
    own = [error.message for error in schemas.OWN[kind].iter_errors(made)]
    return own or (kind == "RayJob" and list(kueue.problems(made)))


def is_free(path):
    return len(path) > 1 and path[-2] in FREE


OTHER_TYPE = {str: 7, bool: "true", int: "7", list: {}, dict: []}


def retype(parent, key):
    parent[key] = OTHER_TYPE[type(parent[key])]


def misspell(parent, key):
    parent[f"{key}x"] = parent.pop(key)


def spoil(parent, key):
    parent["no name"] = parent.pop(key)


@pytest.mark.parametrize("make", [whole_rayjob, monitor])
def test_a_misspelled_key_and_a_wrong_type_are_noticed_anywhere(make):
    made = make()
    assert not noticed(made, made["kind"])
    paths = [path for path, _ in places(made)]
    assert len(paths) > 20
    for path in paths:
        assert changed(made, path, retype), f"another type at {path}"
        if isinstance(path[-1], str):
            assert changed(made, path, spoil if is_free(path) else misspell), f"misspelt {path}"


# what KubeRay and the Prometheus operator have a default for, or do without
OPTIONAL = {
    "spec.submitterConfig",
    "spec.submitterPodTemplate",
    "spec.backoffLimit",
    "spec.activeDeadlineSeconds",
    "spec.preRunningDeadlineSeconds",
    "spec.suspend",
    "spec.ttlSecondsAfterFinished",
    "spec.rayClusterSpec.authOptions",
    "spec.rayClusterSpec.headGroupSpec.serviceType",
    "spec.rayClusterSpec.headGroupSpec.labels",
    "spec.rayClusterSpec.workerGroupSpecs.labels",
    "spec.podTargetLabels",
}
OPTIONAL_PARAMETERS = {
    "metrics-export-port",
    "dashboard-agent-listen-port",
    "dashboard-host",
    "disable-usage-stats",
}


@pytest.mark.parametrize("make", [whole_rayjob, monitor])
def test_what_is_missing_is_noticed_unless_it_has_a_default(make):
    made = make()
    spared = {
        ".".join(key for key in path if isinstance(key, str))
        for path, _ in places(made)
        if isinstance(path[-1], str)
        and not is_free(path)
        and path[-1] != "annotations"
        and not changed(made, path, lambda parent, key: parent.pop(key))
    }
    names = {name for name in spared if name.rsplit(".", 1)[-1] not in OPTIONAL_PARAMETERS}
    assert names <= OPTIONAL


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("metadata.name", "Run1"),
        ("metadata.name", "r" * 48),
        ("spec.submissionMode", "SidecarMode"),
        ("spec.backoffLimit", -1),
        ("spec.activeDeadlineSeconds", 2**31),
        ("spec.preRunningDeadlineSeconds", 0),
        ("spec.shutdownAfterJobFinishes", False),
        ("spec.rayClusterSpec.rayVersion", "latest"),
        ("spec.rayClusterSpec.authOptions.mode", "Token"),
        ("spec.rayClusterSpec.headGroupSpec.serviceType", "clusterIP"),
        ("spec.rayClusterSpec.headGroupSpec.labels", {"a": "b c"}),
        ("spec.rayClusterSpec.headGroupSpec.rayStartParams.num-cpus", "4.5"),
        ("spec.rayClusterSpec.headGroupSpec.template.spec.schedulingGroup", {"podGroupName": "x"}),
        ("spec.rayClusterSpec.workerGroupSpecs", []),
    ],
)
def test_a_value_out_of_its_range_is_noticed(path, value):
    *above, last = path.split(".")
    made = whole_rayjob()
    at(made, above)[last] = value
    assert noticed(made, "RayJob")


TOGETHER = {"mode": "required", "level": "cloud.provider.com/topology-block", "together": True}


def queued():
    """Two groups that Kueue places as one, and their annotations, the first group's first."""
    scheduling = {"gang": "kueue", "queue": "team", "topology": TOGETHER}
    made = render(job_values(JOB, scheduling=scheduling)).one("RayJob")
    groups = made["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    return made, groups, [group["template"]["metadata"]["annotations"] for group in groups]


KUEUE = {
    "no queue": lambda made, groups, notes: made["metadata"]["labels"].pop(kueue.QUEUE),
    "a label it does not know": lambda made, groups, notes: made["metadata"]["labels"].update(
        {"kueue.x-k8s.io/queue": "x"}
    ),
    "a cluster that stays": lambda made, groups, notes: made["spec"].update(shutdownAfterJobFinishes=False),
    "the head in a topology": lambda made, groups, notes: made["spec"]["rayClusterSpec"]["headGroupSpec"][
        "template"
    ]["metadata"].update(annotations={kueue.TOPOLOGIES[0]: "rack"}),
    "two topologies": lambda made, groups, notes: notes[0].update({kueue.TOPOLOGIES[1]: "rack"}),
    "a level that is no label": lambda made, groups, notes: notes[0].update({kueue.TOPOLOGIES[0]: "a rack"}),
    "an annotation it does not know": lambda made, groups, notes: notes[0].update({f"{kueue.PREFIX}x": "y"}),
    "a number as group": lambda made, groups, notes: [one.update({kueue.GROUP: "1"}) for one in notes],
    "one alone in a group": lambda made, groups, notes: notes[0].pop(kueue.GROUP),
    "other levels in a group": lambda made, groups, notes: notes[0].update({kueue.TOPOLOGIES[0]: "rack"}),
    "two of several pods": lambda made, groups, notes: [group.update(replicas=2) for group in groups],
}


@pytest.mark.parametrize("case", KUEUE)
def test_what_kueues_webhook_would_refuse_is_noticed(case):
    made, groups, notes = queued()
    assert list(kueue.problems(made)) == []
    KUEUE[case](made, groups, notes)
    assert list(kueue.problems(made)) != []


def test_a_pod_monitor_reads_ports_that_the_pods_have():
    rendered = render_ci("one-node-colocated")
    ports = {
        port["name"]
        for template in schemas.pod_templates(rendered.one("RayJob"))
        for container in schemas.containers(template)
        for port in container.get("ports", [])
    }
    assert {end["port"] for end in rendered.one("PodMonitor")["spec"]["podMetricsEndpoints"]} <= ports
