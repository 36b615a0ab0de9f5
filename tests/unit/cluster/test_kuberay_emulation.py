"""The emulation of KubeRay's operator on an API server and a Ray that are played: which attempts it makes of a run."""

import copy
import urllib.error

import pytest

from helm.engine import ci_values, merged, render
from tests.cluster.kuberay import KubeRay
from tests.cluster.rayjob import TAGS


class Server:
    """What is used of the API server, in memory; pods are ready at once unless they are held back."""

    def __init__(self):
        self.made, self.ready = {}, True

    def list(self, kind, namespace):
        return [copy.deepcopy(one) for (known, _), one in self.made.items() if known == kind]

    def get(self, kind, namespace, name):
        return self.made.get((kind, name))

    def create(self, kind, namespace, body):
        one = copy.deepcopy(body)
        if kind == "Pod":
            ready = [{"type": "Ready", "status": "True"}] if self.ready else []
            one["status"] = {"podIP": "10.0.0.1", "conditions": ready}
        self.made[kind, body["metadata"]["name"]] = one

    def patch(self, kind, namespace, name, changes, status=False):
        one = self.made[kind, name]
        for key, value in changes.items():
            one[key] = {**one.get(key, {}), **value}

    def delete(self, kind, namespace, name):
        self.made.pop((kind, name), None)


class World:
    """An operator, its RayJob, and the Ray job of each attempt."""

    def __init__(self, version="1.6.2", **limits):
        self.server = Server()
        values = merged(ci_values("cpu-smoke"), {"backend": "rayjob", "job": limits})
        made = render(values).one("RayJob")
        made["metadata"]["uid"] = "u1"
        self.server.create("RayJob", "team", made)
        self.name = made["metadata"]["name"]
        self.operator = KubeRay(self.server, "team", version, status_check_s=0.0)
        self.job = "RUNNING"
        self.operator._ask_ray = self.ask

    def ask(self, run, path, method="GET"):
        if self.job == "silent":
            raise OSError("no head")
        if self.job == "unknown":
            raise urllib.error.HTTPError("", 404, "", {}, None)
        return {"status": self.job}

    def round(self, job=None, submitter=None):
        """Look once more, as after the Ray job and its submitter have come to this; the RayJob's status."""
        self.job = job or self.job
        if submitter:
            (job,) = self.server.list("Job", "team")
            condition = {"type": submitter, "status": "True"}
            self.server.patch("Job", "team", job["metadata"]["name"], {"status": {"conditions": [condition]}})
        self.operator._round()
        return self.server.get("RayJob", "team", self.name)["status"]

    def begin(self):
        """Until an attempt's job is submitted."""
        for _ in range(4):
            if (told := self.round("RUNNING"))["jobDeploymentStatus"] == "Running":
                return told
        raise AssertionError(told)


VERSIONS = pytest.mark.parametrize("version", ["1.6.2", "1.7.0"])


@VERSIONS
def test_a_failed_job_is_repeated_in_fresh_pods_up_to_the_limit(version):
    world = World(version, retries=1, maxAttempts=3)
    for attempt in (1, 2, 3):
        world.begin()
        names = {pod["metadata"]["name"] for pod in world.server.list("Pod", "team")}
        assert all(name.startswith(f"{world.name}-{attempt}-") for name in names)
        told = world.round("FAILED", "Complete")
    assert (told["jobDeploymentStatus"], told["jobStatus"], told["failed"]) == ("Failed", "FAILED", 3)


@VERSIONS
def test_a_stopped_job_is_complete_and_not_repeated(version):
    world = World(version)
    world.begin()
    told = world.round("STOPPED", "Complete")
    assert (told["jobDeploymentStatus"], told["jobStatus"], told["failed"]) == ("Complete", "STOPPED", 0)
    world.round()
    assert len(world.server.list("Job", "team")) == 1


@pytest.mark.parametrize(
    ("version", "state", "reason"),
    [("1.6.2", "Running", ""), ("1.7.0", "Failed", "JobStatusCheckTimeoutExceeded")],
)
def test_a_silent_head_ends_the_run_with_1_7_alone(version, state, reason):
    world = World(version)
    world.begin()
    for _ in range(3):
        told = world.round("silent")
    assert (told["jobDeploymentStatus"], told["reason"]) == (state, reason)


def test_a_submitter_that_fails_costs_an_attempt():
    world = World()
    world.begin()
    assert world.round("unknown", "Failed")["reason"] == "SubmissionFailed"
    assert world.begin()["failed"] == 1


def test_pods_that_never_come_are_not_submitted_to():
    world = World()
    world.server.ready = False
    for _ in range(3):
        assert world.round()["jobDeploymentStatus"] == "Initializing"
    assert world.server.list("Job", "team") == []


@VERSIONS
def test_each_head_is_told_the_operators_version(version):
    world = World(version)
    world.begin()
    heads = [pod for pod in world.server.list("Pod", "team") if "-head" in pod["metadata"]["name"]]
    (tags,) = [one["value"] for one in heads[0]["spec"]["containers"][0]["env"] if one["name"] == TAGS]
    assert tags == f"kuberay_version=v{version};kuberay_crd=RayJob"
    waits = "gcs_healthz" in str(world.server.list("Job", "team")[0]["spec"]["template"])
    assert waits == (version == "1.7.0")
