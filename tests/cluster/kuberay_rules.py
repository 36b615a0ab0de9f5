"""What KubeRay's operator makes of what it sees of a RayJob, by version, without a cluster.

From `rayjob_controller.go` at v1.5.2, v1.6.2 and v1.7.0, K8sJobMode: the order of its questions is the order here. That
the operator does the same is not tested.
"""

from __future__ import annotations

from dataclasses import dataclass

ENDED = ("SUCCEEDED", "FAILED", "STOPPED")
"""What Ray says of a job that has ended."""
UNKNOWN, SILENT = "unknown", "silent"
"""Ray does not know the job; there is no answer from Ray at all."""
TRANSITION_S = 300.0
"""So long after a Ray job's end its submitter may take to end."""


@dataclass(frozen=True)
class Rules:
    """One version's.

    Attributes:
        version: for example "1.6.2".
        status_check_s: how long Ray may be silent where that ends a run (RAYJOB_STATUS_CHECK_TIMEOUT_SECONDS of the
            operator's environment).
        submitter_s: so long after its submitter's end a Ray job may take to have ended.
    """

    version: str = "1.6.2"
    status_check_s: float = 300.0
    submitter_s: float = 30.0

    @property
    def number(self) -> tuple[int, int]:
        """For example (1, 6)."""
        major, minor, *_ = self.version.split(".")
        return int(major), int(minor)

    @property
    def gives_up_s(self) -> float | None:
        """How long Ray may be silent; None for ever."""
        return self.status_check_s if self.number >= (1, 7) else None

    @property
    def submitter_waits(self) -> bool:
        """Whether the submitter waits until the head answers; before that it fails, and Kubernetes starts another."""
        return self.number >= (1, 7)

    @property
    def has_pre_running_deadline(self) -> bool:
        """Whether the RayJob's definition knows the field; it is dropped before."""
        return self.number >= (1, 6)

    @property
    def kinds(self) -> tuple[str, ...]:
        """Those of the group ray.io that a test may ask for."""
        return ("RayJob", "RayCronJob") if self.number >= (1, 6) else ("RayJob",)

    def repeats(self, reason: str, failed: int, backoff_limit: int) -> bool:
        """Whether an attempt that has failed is followed by another.

        Args:
            reason: why it has.
            failed: how many have, this one included.
            backoff_limit: the RayJob's, as it is now: it is read each time.
        """
        final = {"DeadlineExceeded"} | ({"JobStatusCheckTimeoutExceeded"} if self.number >= (1, 7) else set())
        return failed <= backoff_limit and reason not in final


@dataclass(frozen=True)
class Seen:
    """What the operator sees of an attempt.

    Attributes:
        waited_s: since it began.
        active_s, pre_running_s: the RayJob's deadlines.
        submitted: the submitter's Job was made: all pods were ready.
        submitter: "Complete" or "Failed" when that Job has ended.
        submitter_ended_s: since then.
        job: Ray's answer: a status, `UNKNOWN` or `SILENT`.
        known: the last status that Ray told; "" for none yet.
        silent_s: since Ray was asked in vain first; 0 when it answers.
        job_ended_s: since the Ray job's end, as far as Ray has told; None before.
    """

    waited_s: float = 0.0
    active_s: float = 604800.0
    pre_running_s: float = 3600.0
    submitted: bool = True
    submitter: str = ""
    submitter_ended_s: float = 0.0
    job: str = "RUNNING"
    known: str = ""
    silent_s: float = 0.0
    job_ended_s: float | None = None


def judge(rules: Rules, seen: Seen) -> tuple[str, str] | None:
    """JobDeploymentStatus and reason of an attempt that has ended; None while it runs."""
    if seen.waited_s >= seen.active_s:
        return "Failed", "DeadlineExceeded"
    if not seen.submitted:
        late = rules.has_pre_running_deadline and seen.waited_s >= seen.pre_running_s
        return ("Failed", "PreRunningDeadlineExceeded") if late else None
    if seen.job_ended_s is not None and seen.job_ended_s >= TRANSITION_S:
        state = "Failed" if seen.known == "FAILED" else "Complete"
        return state, "JobDeploymentStatusTransitionGracePeriodExceeded"
    if rules.gives_up_s is not None and seen.silent_s and seen.silent_s >= rules.gives_up_s:
        return "Failed", "JobStatusCheckTimeoutExceeded"
    if seen.submitter and seen.submitter_ended_s >= rules.submitter_s:
        return "Failed", "JobDeploymentStatusTransitionGracePeriodExceeded"
    if seen.submitter == "Failed":
        return "Failed", "AppFailed" if seen.known == "FAILED" else "SubmissionFailed"
    if seen.submitter and seen.job == UNKNOWN:
        return "Failed", "AppFailed"
    if seen.submitter and seen.job in ENDED:
        return ("Failed", "AppFailed") if seen.job == "FAILED" else ("Complete", "")
    return None
