"""What ci/e2e.py reads of a run, and what is left of it in a namespace, from an API server that is played over HTTP."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from kubernetes.client import ApiClient, ApiException, Configuration

from ci import e2e
from ci.leftovers import listed
from helm.engine import render_ci


def test_steps_are_read_from_a_runs_output():
    first = "preflight: pods    1 trainer\nRL 0  held-out 0.1\nRL 1/4  reward 0.30\nRL 2/4  reward 0.40\n"
    again = "preflight: pods    1 trainer\nRL 3/4  reward 0.50\nRL 4/4  reward 0.60\n"
    assert e2e.steps_in(first) == [0, 1, 2]
    assert e2e.steps_of_second(first, first) == []
    assert e2e.steps_of_second(first, first + "RL 3/4  reward 0.5\n") == []  # the first attempt's last words
    assert e2e.steps_of_second(first, first + again) == [3, 4]  # one submitter prints both
    assert e2e.steps_of_second(first, again) == [3, 4]  # another submitter prints the second


def test_the_claims_that_the_notes_name_are_those_that_are_kept():
    rendered = render_ci("cpu-smoke")
    kept = [claim["metadata"]["name"] for claim in rendered.of_kind("PersistentVolumeClaim")]
    assert e2e.claims_in(rendered.notes) == kept == ["run1-checkpoints"]


class Played:
    """A run and its cluster, with nothing but what a test sets."""

    def __init__(self, *, log="", status="", everything=(), summary=None):
        self.log, self.status = lambda role="": log, lambda: status
        self.why = lambda output: "no reason"
        self.follow = lambda deadline_s, say: log
        self.release, self.cluster = "e2e", self
        self.answered, self.everything = lambda ask: ask(), lambda: set(everything)


BEFORE = "preflight: pods\n" + "".join(f"RL {step}/9  reward 0\n" for step in range(6))


@pytest.mark.parametrize(
    ("run", "act", "told"),
    [
        (
            Played(log=f"{BEFORE}preflight: pods\nRL 1/9  reward 0\n"),
            lambda life: life.wait_for_the_second_attempt(BEFORE),
            "the second attempt: got step 1 first, expected one after 4: the pod was lost after step 5, and a "
            "checkpoint is saved at every 2",
        ),
        (
            Played(log=BEFORE, status="Failed"),
            lambda life: life.wait_for_the_second_attempt(BEFORE),
            "the run failed for good; no reason",
        ),
        (
            Played(log=BEFORE, status="Complete"),
            lambda life: life.wait_for_steps(),
            "the run ended before step 3; no reason",
        ),
        (
            Played(log=f'{BEFORE}summary: {{"steps": 5}}\n'),
            lambda life: life.end(BEFORE),
            "the run's 5 steps did not end in its second attempt:",
        ),
        (
            Played(everything={"Pod old", "Pod e2e-test", "PersistentVolumeClaim e2e-checkpoints"}),
            lambda life: life.require_left({"Pod old"}, {"PersistentVolumeClaim e2e-checkpoints"}),
            "left in the namespace: got PersistentVolumeClaim e2e-checkpoints, Pod e2e-test, "
            "expected PersistentVolumeClaim e2e-checkpoints",
        ),
    ],
    ids=["from the beginning", "failed", "too early", "one attempt", "left"],
)
def test_what_is_not_as_promised_is_said(run, act, told, monkeypatch):
    monkeypatch.setattr(e2e.time, "sleep", lambda seconds: None)
    monkeypatch.setattr(e2e, "GONE_S", 0.0)
    with pytest.raises(e2e.BenchmarkError) as refusal:
        act(e2e.Life(run, deadline_s=1.0))
    assert str(refusal.value).startswith(told)


def kind(name, plural, verbs=("list", "delete"), namespaced=True):
    return {"kind": name, "name": plural, "verbs": list(verbs), "namespaced": namespaced}


def items(*names):
    return {"items": [{"metadata": {"name": name}} for name in names]}


ANSWERS = {
    "/apis": {
        "groups": [{"preferredVersion": {"groupVersion": group}} for group in ("ray.io/v1", "away.io/v1")]
    },
    "/api/v1": {
        "resources": [
            kind("Pod", "pods"),
            kind("Pod", "pods/log"),
            kind("Event", "events"),
            kind("Node", "nodes", namespaced=False),
            kind("Binding", "bindings", verbs=["create"]),
        ]
    },
    "/apis/ray.io/v1": {"resources": [kind("RayCluster", "rayclusters")]},
    "/api/v1/namespaces/team/pods": items("run1-head", "other"),
    "/apis/ray.io/v1/namespaces/team/rayclusters": items("run1-abcde"),
}


@pytest.fixture
def server():
    """Answers by path; 503 where there is none, as of an aggregated API whose server is away."""
    answers = dict(ANSWERS)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            code, body = (200, answers[self.path]) if self.path in answers else (503, {})
            self.send_response(answers.get("code", code))
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())

        def log_message(self, *_):
            pass

    made = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=made.serve_forever, daemon=True).start()
    yield made, answers
    made.shutdown()


def client(made):
    return ApiClient(Configuration(host=f"http://127.0.0.1:{made.server_port}"))


def test_a_namespace_is_read_with_every_kind_that_its_server_knows(server):
    made, _ = server
    assert listed(client(made), "team") == {"Pod run1-head", "Pod other", "RayCluster run1-abcde"}


def test_a_server_that_fails_is_no_empty_namespace(server):
    made, answers = server
    answers["code"] = 500
    with pytest.raises(ApiException):
        listed(client(made), "team")
