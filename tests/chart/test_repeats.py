"""How often each backend starts a run again, and what the notes say of KubeRay's version and of a RayJob's end."""

import shutil

import pytest

from helm import engine
from helm.engine import ci_values, merged, render, render_ci

UNSHARED = {"storage": {"checkpoints": {"existingClaim": "", "create": False}}}


def values(backend="rayjob", shared=True, **job):
    given = merged(ci_values("cpu-smoke"), {"backend": backend, "job": job})
    return given if shared else merged(given, UNSHARED)


def script(rendered):
    (made,) = [one for one in rendered.of_kind("ConfigMap") if "run.sh" in one.get("data", {})]
    return made["data"]["run.sh"]


@pytest.mark.parametrize(
    ("shared", "job", "limit"),
    [
        (True, {}, 19),
        (True, {"retries": 5, "maxAttempts": 100}, 99),
        # there is nothing to count, and a run whose pods never come need not be repeated for it
        (True, {"retries": 0}, 0),
        (False, {}, 2),
        (False, {"retries": 0}, 0),
    ],
)
def test_kuberay_repeats_as_often_as_the_script_may_ask_for_it(shared, job, limit):
    spec = render(values(shared=shared, **job)).one("RayJob")["spec"]
    assert spec["backoffLimit"] == limit
    assert type(spec["backoffLimit"]) is int


@pytest.mark.parametrize(
    ("backend", "shared", "job", "words"),
    [
        ("rayjob", True, {}, '--run "$RUN" --name "$ME" --retries 2 --stop-job http://127.0.0.1:8265'),
        ("rayjob", False, {}, '--run "$RUN" --name "$ME" --stop-job http://127.0.0.1:8265'),
        ("rayjob", True, {"retries": 0}, '--run "$RUN" --name "$ME" --stop-job http://127.0.0.1:8265'),
        ("statefulset", True, {"retries": 1}, '--run "$RUN" --name "$ME" --retries 1'),
        ("statefulset", False, {}, '--run "$RUN" --name "$ME"'),
        (
            "rayjob",
            True,
            {"overrides": ["ckpt.path=/data/it's"]},
            r"""--run "$RUN" --name "$ME" --retries 2 --checkpoints '/data/it'\''s' --stop-job http://127.0.0.1:8265""",
        ),
    ],
)
def test_the_script_counts_where_its_folder_outlives_the_pods(backend, shared, job, words):
    (line,) = [
        one for one in script(render(values(backend, shared, **job))).splitlines() if "attempt()" in one
    ]
    assert line == f'attempt() {{ python -m openrlhf_mtp.cluster.attempts "$@" {words}; }}'


@pytest.mark.parametrize(
    ("shared", "job", "words"),
    [(True, {}, ["--max-attempts", "20"]), (True, {"retries": 0}, []), (False, {}, [])],
)
def test_the_submitter_is_told_who_counts(shared, job, words):
    made = render(values("statefulset", shared, **job)).one("Job", "-submitter")
    command = made["spec"]["template"]["spec"]["containers"][0]["command"]
    found = command.index("--max-attempts") if "--max-attempts" in command else len(command)
    assert command[found : found + 2] == words


def test_attempts_must_leave_room_for_the_retries():
    with pytest.raises(engine.ChartError) as refusal:
        render(values(retries=3, maxAttempts=3))
    assert str(refusal.value).strip() == (
        "These values cannot run:\n  - job.maxAttempts: got 3, expected more than job.retries, 3: the first attempt "
        "and as many more; raise it, or lower job.retries"
    )
    render(values(shared=False, retries=30))  # nobody reads it there


def test_the_notes_tell_a_failed_rayjob_from_a_finished_one():
    notes = " ".join(render(values()).notes.split())
    assert (
        "A failed attempt is repeated from its last checkpoint, until 3 have failed since the newest one, or 20 were "
        "made in all. The RayJob's JOB STATUS is SUCCEEDED at a good end. STOPPED: the run has failed and is not "
        "repeated, though KubeRay calls that Complete; the end of its output says why, and failed.json in the run "
        "folder."
    ) in notes
    assert "STOPPED" not in render(values("statefulset")).notes
    assert "A failed attempt is repeated 2 time(s)" in render(values(shared=False)).notes


OLD = "the cluster's kinds of ray.io are those of KubeRay 1.5 or older (there is no RayCronJob)"

ASKED = ".root.Capabilities.APIVersions.Has .kind"


@pytest.fixture
def notes_where(tmp_path, monkeypatch):
    """The notes of a run on a cluster that knows these kinds: Helm's engine knows none without a cluster."""
    chart = tmp_path / "chart"
    shutil.copytree(engine.CHART, chart)
    monkeypatch.setattr(engine, "CHART", chart)

    helper = chart / "templates" / "_kuberay.tpl"
    text = helper.read_text(encoding="utf-8")
    assert ASKED in text

    def notes(*kinds, backend="rayjob"):
        known = " ".join(f'"ray.io/v1/{kind}"' for kind in kinds)
        helper.write_text(text.replace(ASKED, f"has .kind (list {known})"), encoding="utf-8")
        return render(values(backend)).notes

    return notes


def test_kinds_of_kuberay_1_5_are_warned_of(notes_where):
    assert OLD in notes_where("RayCluster", "RayJob", "RayService")
    assert OLD not in notes_where("RayCluster", "RayJob", "RayService", "RayCronJob")
    assert OLD not in notes_where()  # helm template
    assert OLD not in notes_where("RayJob", backend="statefulset")


def test_without_a_cluster_nothing_is_said_of_kuberays_kinds():
    assert OLD not in render_ci("cpu-smoke").notes
