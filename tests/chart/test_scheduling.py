"""What gang schedulers and Kueue read: labels of the RayJob, annotations of the groups that have GPUs."""

import shutil

import pytest

from helm import engine
from helm.engine import job_values, merged, render, render_ci
from tests.chart.test_messages import JOB, one_problem

LEVEL = "cloud.provider.com/topology-block"
TOPOLOGY = {"gang": "kueue", "queue": "team", "topology": {"mode": "required", "level": LEVEL}}


def labels(scheduling, **more):
    return render(job_values(JOB, scheduling=scheduling, **more)).one("RayJob")["metadata"]["labels"]


def annotations(scheduling, **more):
    """Annotations of each group's pods, and of the submitter's, by role."""
    spec = render(job_values(JOB, scheduling=scheduling, **more)).one("RayJob")["spec"]
    cluster = spec["rayClusterSpec"]
    templates = {"head": cluster["headGroupSpec"]["template"], "submitter": spec["submitterPodTemplate"]}
    templates |= {group["groupName"]: group["template"] for group in cluster["workerGroupSpecs"]}
    return {role: template["metadata"].get("annotations", {}) for role, template in templates.items()}


def test_gangs_are_labeled_as_each_scheduler_reads_them():
    queues = {
        "kueue": "kueue.x-k8s.io/queue-name",
        "volcano": "volcano.sh/queue-name",
        "yunikorn": "yunikorn.apache.org/queue",
        "kai": "kai.scheduler/queue",
    }
    for gang, label in queues.items():
        assert labels({"gang": gang, "queue": "2024"})[label] == "2024"
    made = labels({"gang": "yunikorn"})
    assert made["ray.io/gang-scheduling-enabled"] == "true"
    assert made["yunikorn.apache.org/app-id"] == made["openrlhf-mtp.io/run"]
    assert labels({"gang": "kubernetes"})["ray.io/gang-scheduling-enabled"] == "true"
    assert render_ci("kai").one("RayJob")["spec"]["submissionMode"] == "HTTPMode"


PRIORITY = "ray.io/priority-class-name"


def test_volcanos_gang_has_the_priority_of_its_pods():
    volcano = {"gang": "volcano", "queue": "team"}
    assert labels(volcano, pods={"priorityClassName": "high"})[PRIORITY] == "high"
    assert labels(volcano, trainer={"priorityClassName": "2024"})[PRIORITY] == "2024"
    assert PRIORITY not in labels(volcano)
    assert PRIORITY not in labels({"gang": "kai", "queue": "team"}, pods={"priorityClassName": "high"})


def test_kueue_places_the_groups_with_gpus_and_leaves_the_head_to_any_flavor():
    own = {"kueue.x-k8s.io/podset-required-topology": LEVEL}
    assert annotations(TOPOLOGY) == {"head": {}, "submitter": {}, "trainer": own, "rollout": own}
    mixed = annotations(TOPOLOGY, head={"nodeSelector": {"pool": "cpu"}}, pods={"annotations": {"a": "b"}})
    assert mixed["head"] == {"a": "b"}
    assert mixed["trainer"] == {"a": "b", **own}
    assert annotations({"gang": "kueue", "queue": "team"})["trainer"] == {}


def together(**more):
    return job_values(JOB, scheduling=merged(TOPOLOGY, {"topology": {"together": True}}), **more)


def test_both_groups_are_placed_as_one_where_kueue_can():
    for one_pod in ("trainer", "rollout"):
        cluster = render(together(**{one_pod: {"gpus": 4}, "head": {}})).one("RayJob")["spec"][
            "rayClusterSpec"
        ]
        groups = {group["groupName"]: group for group in cluster["workerGroupSpecs"]}
        assert min(group["replicas"] for group in groups.values()) == 1
        names = {
            group["template"]["metadata"]["annotations"]["kueue.x-k8s.io/podset-group-name"]
            for group in groups.values()
        }
        assert len(names) == 1
        assert not names.pop().isdigit()  # Kueue refuses a number
        assert "annotations" not in cluster["headGroupSpec"]["template"]["metadata"]


MESSAGES = {
    "several pods each": (
        together(trainer={"gpus": 2}, rollout={"gpus": 1}),
        "scheduling.topology.together: got true with 2 trainer pods and 4 rollout pods, and Kueue places two groups as "
        "one only where one of them has one pod; set trainer.gpus or rollout.gpus to make it one, or leave it out",
    ),
    "one group": (
        together(placement={"mode": "colocated"}),
        "scheduling.topology.together: got true, and the trainer's pods hold all GPUs; leave it out",
    ),
    "together without a level": (
        job_values(JOB, scheduling={"gang": "kueue", "queue": "q", "topology": {"together": True}}),
        "scheduling.topology.together: got true and no level; set scheduling.topology.level to the node label that "
        "all pods with GPUs share",
    ),
    "a level that is no label": (
        job_values(JOB, scheduling=merged(TOPOLOGY, {"topology": {"level": "a rack"}})),
        'scheduling.topology.level: got "a rack", expected the name of a node label, for example '
        "cloud.provider.com/topology-block",
    ),
    "a queue that no label can say": (
        job_values(JOB, scheduling={"gang": "kueue", "queue": "my queue"}),
        'scheduling.queue: got "my queue", expected up to 63 letters, digits, dashes, dots and underscores, because a '
        "label says it; give the name as the cluster has it",
    ),
    "a priority that no label can say": (
        job_values(JOB, scheduling={"gang": "volcano"}, trainer={"priorityClassName": "p" * 64}),
        f'trainer.priorityClassName: got "{"p" * 64}", expected up to 63 letters, digits, dashes, dots and '
        "underscores, because a label says it; give the name as the cluster has it",
    ),
    "a queue that nobody reads": (
        job_values(JOB, scheduling={"gang": "kubernetes", "queue": "team"}),
        "scheduling.queue: got team, and Kubernetes' own scheduler has no queues; leave it out",
    ),
}


@pytest.mark.parametrize("case", MESSAGES)
def test_what_a_scheduler_would_not_take_is_refused_in_words(case):
    values, expected = MESSAGES[case]
    assert one_problem(values) == expected


RAYJOB = "ray.io/v1/RayJob"
ASKED = ".root.Capabilities.APIVersions.Has .kind"


@pytest.mark.parametrize(
    ("gang", "known", "warned"),
    [
        ("kueue", [RAYJOB], True),
        ("kueue", [RAYJOB, "kueue.x-k8s.io/v1beta1/LocalQueue"], False),
        ("kueue", [RAYJOB, "kueue.x-k8s.io/v1beta2/LocalQueue"], False),
        ("kueue", [], False),  # helm template
        ("volcano", [RAYJOB], True),
        ("volcano", [RAYJOB, "scheduling.volcano.sh/v1beta1/PodGroup"], False),
        ("kubernetes", [RAYJOB, "scheduling.k8s.io/v1alpha2/PodGroup"], False),
        ("yunikorn", [RAYJOB], False),
    ],
)
def test_a_scheduler_that_the_cluster_does_not_have_is_warned_of(gang, known, warned, tmp_path, monkeypatch):
    chart = tmp_path / "chart"  # Helm's engine knows no kinds without a cluster
    shutil.copytree(engine.CHART, chart)
    helper = chart / "templates" / "_kuberay.tpl"
    text = helper.read_text(encoding="utf-8")
    assert ASKED in text
    words = " ".join(f'"{kind}"' for kind in known)
    helper.write_text(text.replace(ASKED, f"has .kind (list {words})"), encoding="utf-8")
    monkeypatch.setattr(engine, "CHART", chart)
    queue = "" if gang == "kubernetes" else "team"
    notes = render(job_values(JOB, scheduling={"gang": gang, "queue": queue})).notes
    assert (f"scheduling.gang={gang}: the cluster does not know" in notes) is warned
