"""The rules by which the emulation of KubeRay's operator judges an attempt, one by one and by version."""

import pytest

from tests.cluster.kuberay_rules import ENDED, SILENT, UNKNOWN, Rules, Seen, judge

OLD, V16, V17 = Rules("1.5.2"), Rules("1.6.2"), Rules("1.7.0")
ALL = pytest.mark.parametrize("rules", [OLD, V16, V17], ids=lambda rules: rules.version)


@ALL
@pytest.mark.parametrize("job", ENDED)
def test_a_job_ends_with_its_submitter_and_fails_if_it_failed(rules, job):
    assert judge(rules, Seen(job=job, known=job)) is None
    end = ("Failed", "AppFailed") if job == "FAILED" else ("Complete", "")
    assert judge(rules, Seen(job=job, known=job, submitter="Complete")) == end


@ALL
def test_a_submitter_that_gives_up_is_a_failure_of_the_attempt(rules):
    assert judge(rules, Seen(submitter="Failed", job="RUNNING")) == ("Failed", "SubmissionFailed")
    assert judge(rules, Seen(submitter="Failed", job="FAILED", known="FAILED")) == ("Failed", "AppFailed")


@ALL
def test_an_unknown_job_is_awaited_as_long_as_it_may_be_submitted(rules):
    assert judge(rules, Seen(job=UNKNOWN)) is None
    assert judge(rules, Seen(job=UNKNOWN, submitter="Complete")) == ("Failed", "AppFailed")


@ALL
def test_a_finished_run_that_cannot_be_asked_for_has_failed_after_half_a_minute(rules):
    grace = ("Failed", "JobDeploymentStatusTransitionGracePeriodExceeded")
    assert judge(rules, Seen(job=SILENT, submitter="Complete", submitter_ended_s=29)) is None
    assert judge(rules, Seen(job=SILENT, submitter="Complete", submitter_ended_s=30)) == grace
    assert rules.repeats(grace[1], 1, 19)


def test_a_silent_head_ends_the_run_for_good_since_1_7_and_is_waited_for_before():
    week = Seen(job=SILENT, silent_s=500000)
    assert judge(V16, week) is None
    assert judge(V17, Seen(job=SILENT, silent_s=299)) is None
    assert judge(V17, week) == ("Failed", "JobStatusCheckTimeoutExceeded")
    assert judge(Rules("1.7.0", status_check_s=600000), week) is None
    assert not V17.repeats("JobStatusCheckTimeoutExceeded", 1, 19)


@ALL
def test_a_submitter_that_hangs_after_the_end_is_waited_for_five_minutes(rules):
    reason = "JobDeploymentStatusTransitionGracePeriodExceeded"
    for job, state in (("SUCCEEDED", "Complete"), ("STOPPED", "Complete"), ("FAILED", "Failed")):
        assert judge(rules, Seen(job=job, known=job, job_ended_s=299)) is None
        assert judge(rules, Seen(job=job, known=job, job_ended_s=300)) == (state, reason)


def test_missing_pods_end_at_a_deadline_that_1_5_does_not_know():
    late = Seen(submitted=False, waited_s=3600)
    assert judge(V16, Seen(submitted=False, waited_s=3599)) is None
    assert judge(V16, late) == judge(V17, late) == ("Failed", "PreRunningDeadlineExceeded")
    assert judge(OLD, late) is None
    assert judge(V16, Seen(waited_s=3600)) is None  # it runs
    assert V16.repeats("PreRunningDeadlineExceeded", 1, 19)
    assert V17.repeats("PreRunningDeadlineExceeded", 1, 19)


@ALL
def test_an_attempt_that_takes_too_long_ends_the_run(rules):
    assert judge(rules, Seen(waited_s=604800, job="SUCCEEDED", submitter="Complete")) == (
        "Failed",
        "DeadlineExceeded",
    )
    assert not rules.repeats("DeadlineExceeded", 1, 19)


@ALL
@pytest.mark.parametrize(
    ("failed", "limit", "again"), [(1, 0, False), (1, 1, True), (2, 1, False), (19, 19, True)]
)
def test_what_has_failed_is_repeated_up_to_the_limit(rules, failed, limit, again):
    assert rules.repeats("AppFailed", failed, limit) == again
