"""What a benchmark installs and removes, and what it reads of its run, with an API server that is played."""

from types import SimpleNamespace

import pytest
from kubernetes.client import ApiException
from urllib3.exceptions import HTTPError

from ci import benchmark, cluster, on_cluster
from ci.cluster import BenchmarkError, Cluster
from ci.on_cluster import ClusterRun, has_submitter, news, rayjob_end
from helm.engine import NameTakenError, ReleaseError, ci_values, merged, render, render_ci


class Api:
    """One namespace: what is in it, what was asked for, and how often an answer fails first."""

    def __init__(self, *, claims=(), releases=(), failures=()):
        self.claims, self.releases = list(claims), list(releases)
        self.failures = list(failures)
        self.asked, self.state = [], {}

    def _do(self, what):
        self.asked.append(what)
        if self.failures:
            raise self.failures.pop(0)

    def has(self, release):
        return release in self.releases

    def uninstall(self, release):
        self._do(f"uninstall {release}")

    def list_namespaced_persistent_volume_claim(self, namespace, label_selector):
        named = [SimpleNamespace(metadata=SimpleNamespace(name=claim)) for claim in self.claims]
        return SimpleNamespace(items=named)

    def delete_namespaced_pod(self, name, namespace, grace_period_seconds):
        self._do(f"delete {name}")
        raise ApiException(status=404)

    def delete_collection_namespaced_persistent_volume_claim(self, namespace, label_selector):
        self._do(f"delete claims {label_selector}")

    def delete_collection_namespaced_pod(self, namespace, label_selector):
        self._do(f"delete pods {label_selector}")

    def delete_namespaced_replica_set(self, name, namespace):
        self._do(f"delete {name}")
        raise ApiException(status=404)

    def list_namespaced_pod(self, namespace, label_selector):
        return SimpleNamespace(items=[])

    def get_namespaced_custom_object(self, group, version, namespace, plural, name):
        return {"metadata": {"name": name}, "status": self.state}


REMOVED = [
    "uninstall bench-1",
    "delete bench-1-fetch",
    "delete claims app.kubernetes.io/instance=bench-1",
    "delete pods app.kubernetes.io/instance=bench-1,openrlhf-mtp.io/role in (check,test)",
    "delete bench-1-podcheck",
]


@pytest.fixture
def play(monkeypatch):
    """A run on an API server that is played; `end` is how the install ends."""
    monkeypatch.setattr(cluster, "POLL_S", 0.0)

    def made(api, end=None, values=None):
        def install(*_):
            api.asked.append("install")
            if end is not None:
                raise end

        played = Cluster.__new__(Cluster)
        played.namespace, played.helm, played.install = "team", api, install
        played.core = played.apps = played.batch = played.custom = api
        return ClusterRun(values or ci_values("cpu-smoke"), played, release="bench-1")

    return made


def test_what_was_installed_is_removed(play):
    api = Api()
    with play(api).installed(1):
        assert api.asked == ["install"]
    assert api.asked == ["install", *REMOVED]


@pytest.mark.parametrize("there", [{"releases": ["bench-1"]}, {"claims": ["bench-1-checkpoints"]}])
def test_a_name_that_is_not_free_is_refused_and_what_is_there_stays(play, there):
    api = Api(**there)
    expected = (
        "got bench-1, expected a new name: namespace team has (the release|its claim bench-1-checkpoints)"
    )
    with pytest.raises(BenchmarkError, match=expected), play(api).installed(1):
        pass
    assert api.asked == []


def test_a_release_that_another_install_was_quicker_with_stays(play):
    api = Api()
    taken = NameTakenError("cannot reuse a name that is still in use")
    with pytest.raises(BenchmarkError, match="still in use"), play(api, taken).installed(1):
        pass
    assert api.asked == ["install"]


@pytest.mark.parametrize(
    ("end", "raised"),
    [(ReleaseError("failed pre-install"), BenchmarkError), (KeyboardInterrupt(), KeyboardInterrupt)],
    ids=["refused", "cancelled"],
)
def test_a_refused_or_cancelled_install_is_removed(play, end, raised):
    api = Api()
    with pytest.raises(raised), play(api, end).installed(1):
        pass
    assert api.asked == ["install", *REMOVED]


def test_a_removal_is_tried_again_while_the_api_server_is_away(play):
    api = Api(failures=[ReleaseError("unreachable"), HTTPError(), ApiException(status=503)])
    play(api).cluster.remove("bench-1")
    assert api.asked == [REMOVED[0]] * 3 + REMOVED


@pytest.mark.parametrize("failure", [ReleaseError("no permission for Secrets"), KeyError("no permission")])
def test_what_cannot_be_removed_is_said_and_the_rest_is_removed(play, monkeypatch, failure):
    monkeypatch.setattr(cluster, "REMOVE_S", 0.0)
    api = Api(failures=[failure])
    with pytest.raises(
        BenchmarkError, match=r"bench-1 was not removed from namespace team.*\n.*no permission"
    ):
        play(api).cluster.remove("bench-1")
    assert api.asked == REMOVED


def test_a_run_that_failed_and_cannot_be_removed_is_told_with_both(play, monkeypatch):
    monkeypatch.setattr(cluster, "REMOVE_S", 0.0)
    api = Api(failures=[ReleaseError("unreachable")])
    with pytest.raises(BenchmarkError) as caught, play(api).installed(1):
        raise BenchmarkError("the run failed")
    said = benchmark.told(caught.value).splitlines()
    assert said[0] == "the run failed"
    assert said[-1] == "the release: unreachable"


@pytest.mark.parametrize("name", ["cpu-smoke", "statefulset", "kai"])
def test_a_run_has_a_name_with_every_backend_and_without_a_network_policy(play, name):
    values = merged(ci_values(name), {"networkPolicy": {"enabled": False}})
    run = play(Api(), values=values)
    (script,) = [made for made in run.rendered.of_kind("ConfigMap") if "run.sh" in made.get("data", {})]
    assert run.run == script["metadata"]["labels"]["openrlhf-mtp.io/run"]


def test_only_a_gang_of_kai_has_no_pod_that_prints_its_output():
    assert [has_submitter(render_ci(name)) for name in ("cpu-smoke", "statefulset", "kai")] == [
        True,
        True,
        False,
    ]


def test_a_run_of_which_nothing_could_be_read_is_refused_before_it_is_installed(tmp_path, monkeypatch):
    values = merged(ci_values("kai"), {"storage": {"checkpoints": {"existingClaim": ""}}})
    without = ClusterRun.__new__(ClusterRun)
    without.rendered, without.release = render(values), "bench-1"
    monkeypatch.setattr(benchmark, "Cluster", lambda *_: None)
    monkeypatch.setattr(benchmark, "ClusterRun", lambda *_, **__: without)
    (tmp_path / "job.yaml").write_text("actor: {}\n", encoding="utf-8")
    words = ["tiny", "--job", str(tmp_path / "job.yaml"), "--out", str(tmp_path / "out")]
    with pytest.raises(
        BenchmarkError, match=r"scheduling\.gang: got kai.*give the benchmark storage\.checkpoints"
    ):
        benchmark.run_on_cluster(benchmark.parser().parse_args(words))


@pytest.mark.parametrize(
    ("deployment", "job", "end"),
    [
        ("", "", ""),
        ("Initializing", "", ""),
        ("Running", "STOPPED", ""),
        ("Retrying", "FAILED", ""),
        ("Complete", "SUCCEEDED", "Complete"),
        ("Complete", "STOPPED", "Failed"),
        ("Failed", "FAILED", "Failed"),
        ("Failed", "SUCCEEDED", "Failed"),
        ("ValidationFailed", "", "Failed"),
    ],
)
def test_a_rayjob_has_succeeded_only_where_its_job_has(deployment, job, end):
    assert rayjob_end({"jobDeploymentStatus": deployment, "jobStatus": job}) == end


def test_a_run_that_ended_itself_is_told_as_stopped(play):
    api = Api()
    api.state = {
        "jobDeploymentStatus": "Complete",
        "jobStatus": "STOPPED",
        "message": "Job was intentionally stopped.",
    }
    with pytest.raises(BenchmarkError, match=r"the run failed; STOPPED Job was intentionally stopped\."):
        play(api, values=ci_values("kai")).follow(1.0, lambda _: None)


def test_a_run_without_output_fails_with_the_operators_message(play):
    api = Api()
    api.state = {"jobDeploymentStatus": "Failed", "reason": "AppFailed", "message": "KeyError: 'answer'"}
    with pytest.raises(BenchmarkError, match="the run failed; AppFailed KeyError: 'answer'"):
        play(api, values=ci_values("kai")).follow(1.0, lambda _: None)


def test_a_failure_shows_what_the_submitter_before_the_last_one_printed(play, monkeypatch):
    run = play(Api())
    outputs = iter(["error: SyncTimeout\n", "submitter: this run has ended before\n"])
    states = iter(["", "Failed"])
    monkeypatch.setattr(run, "status", lambda: next(states))
    monkeypatch.setattr(run, "log", lambda: next(outputs))
    monkeypatch.setattr(on_cluster, "POLL_S", 0.0)
    with pytest.raises(BenchmarkError, match=r"error: SyncTimeout\nsubmitter: this run has ended before"):
        run.follow(10.0, lambda _: None)


@pytest.mark.parametrize(
    ("before", "now", "new"),
    [
        ("", "one\n", "one\n"),
        ("one\n", "one\n", ""),
        ("one\n", "one\ntwo\n", "two\n"),
        ("one\ntwo\n", "three\n", "three\n"),
        ("one\n", "three\nfour\n", "three\nfour\n"),
        ("x" * 2000 + "\ufffd", "x" * 2000 + "é\n", "\n"),
    ],
    ids=["first", "same", "more", "rotated", "rotated and longer", "cut within a character"],
)
def test_what_is_new_is_printed_also_after_the_kubelet_has_begun_a_new_file(before, now, new):
    assert news(before, now) == new
