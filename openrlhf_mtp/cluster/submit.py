"""`python -m openrlhf_mtp.cluster.submit`: the submitter of the `statefulset` backend, which has no operator.

It submits the Ray job, follows it through broken connections, starts a failed run again in a fresh Ray cluster, and
gives the pods back at the end, which may be a deadline. If the run folder is shared, the run's script counts there
how many attempts have failed since the newest checkpoint (`cluster.attempts`), and its exit code says when they are too
many; without it, and as long as the script does not come to count, each attempt counts here.

A submitter that was killed is replaced by another, which continues where it was: its state is kept on the API
server (`Progress`).
"""

from __future__ import annotations

import argparse
import shlex
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Protocol

from openrlhf_mtp.cluster.attempts import NONE_LEFT, said_in
from openrlhf_mtp.cluster.scale import Progress
from openrlhf_mtp.config.errors import USER_ERROR

LOST_S = 120.0
"""The head has not answered for this long: its pod has gone, and the job with it."""
POLL_S = 3.0
RUN_FAILED = 3
"""Exit code of this module when the run is over and has failed: do not restart the submitter. A crashed submitter exits
with a different code."""


class Jobs(Protocol):
    """The part of Ray's JobSubmissionClient that is used here."""

    def submit_job(self, *, entrypoint: str, submission_id: str) -> str:
        """Start a job."""

    def get_job_info(self, job_id: str) -> Any:
        """Status and exit code; RuntimeError when there is no such job."""

    def get_job_logs(self, job_id: str) -> str:
        """All of its output."""

    def stop_job(self, job_id: str) -> bool:
        """Ask Ray to end a job."""


class Pods(Protocol):
    """The part of `cluster.scale.RunPods` that is used here."""

    def release(self) -> None:
        """Give all pods back."""

    def restore(self) -> None:
        """Ask for all pods again."""

    def recall(self) -> Progress | None:
        """The record of an earlier submitter; None for the first."""

    def remember(self, progress: Progress) -> None:
        """Leave it for a later one."""


class DeadlineError(Exception):
    """The run has taken longer than it may."""


class Submitter:
    """One run's life. Clock and clients are arguments so that a test can play them.

    Args:
        connect: the head's jobs; OSError or RuntimeError while it is not there.
        pods: of the run; None where they are kept as they are.
        name: of the run; attempts are NAME-1, NAME-2, ...
        entrypoint: the command of the Ray job.
        startup_s: how long the head may take to come.
        deadline_s: how long the run may take from its first submitter on.
        clock: seconds since 1970.
        sleep: waits seconds.
        say: prints.
    """

    def __init__(
        self,
        connect: Callable[[], Jobs],
        pods: Pods | None,
        *,
        name: str,
        entrypoint: str,
        startup_s: float,
        deadline_s: float = float("inf"),
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
        say: Callable[[str], None] = lambda text: print(text, end="", flush=True),
    ) -> None:
        self.connect, self.pods = connect, pods
        self.name, self.entrypoint = name, entrypoint
        self.startup_s, self.deadline_s = startup_s, deadline_s
        self.clock, self.sleep, self.say = clock, sleep, say
        self.progress = Progress(clock())
        self._output = ""

    def run(self, retries: int, release_after_s: float, most: int | None = None) -> int:
        """Until the run succeeds or has no attempt left; returns the exit code.

        Args:
            retries: attempts that may fail; with `most`, since the newest checkpoint.
            release_after_s: how long the pods stay after the end.
            most: attempts in all, whatever their end, where the run's script counts the failed ones itself.
        """
        self._take_over()
        if self.progress.exit_code is not None:
            self.say("submitter: this run has ended before\n")
            self._insist(self.pods.release if self.pods else None)
            return self.progress.exit_code
        try:
            code = self._attempts(retries, most)
        except DeadlineError:
            self.say(f"submitter: the run has not ended within {self.deadline_s:g} s and is stopped\n")
            self._stop_job()
            code, release_after_s = RUN_FAILED, 0.0
        if self.pods is not None:
            self.say(f"submitter: the pods are released in {release_after_s:g} s\n")
            self.sleep(release_after_s)
            self._remember(exit_code=code)
            self._insist(self.pods.release)
        return code

    def _take_over(self) -> None:
        if self.pods is None:
            return
        found = self._insist(self.pods.recall)
        if found is None:
            self._remember()
        else:
            self.progress = found

    def _remember(self, **changes: Any) -> None:
        self.progress = replace(self.progress, **changes)
        if self.pods is not None:
            pods, progress = self.pods, self.progress
            self._insist(lambda: pods.remember(progress))

    def _insist(self, ask: Callable[[], Any] | None) -> Any:
        """Ask the API server until it answers; it may be away for a while, as in an upgrade."""
        end = self.clock() + self.startup_s
        while ask is not None:
            try:
                return ask()
            except OSError as problem:
                if self.clock() > end:
                    raise
                self.say(f"submitter: the API server does not do as asked ({problem}), asking again\n")
                self.sleep(POLL_S)
        return None

    def _attempts(self, retries: int, most: int | None) -> int:
        while True:
            number = self.progress.attempt
            if self.progress.clearing:
                self._fresh_cluster()
            self._output = ""
            outcome, code = self._attempt(f"{self.name}-{number}")
            self.say(f"submitter: attempt {number} of {self._told(number, outcome, retries, most)}\n")
            if outcome == "SUCCEEDED":
                return 0
            if code == USER_ERROR or outcome == "STOPPED" or (code == NONE_LEFT and most is not None):
                return RUN_FAILED
            uncounted = 0 if most is not None and said_in(self._output) else self.progress.uncounted + 1
            if uncounted > retries:
                return RUN_FAILED
            if number == most:
                self.say(f"submitter: that was the last of {most} attempts (job.maxAttempts)\n")
                return RUN_FAILED
            self._remember(attempt=number + 1, uncounted=uncounted, clearing=self.pods is not None)

    def _told(self, number: int, outcome: str, retries: int, most: int | None) -> str:
        """The number of attempts allowed, as far as is known now, the outcome, and the count."""
        if most is None:
            return f"{retries + 1}: {outcome}"
        before, words = said_in(self._output) or (self.progress.uncounted, "")
        told = f"{min(most, number + max(0, retries - before))}: {outcome}"
        if outcome == "SUCCEEDED" or not words:
            return told
        return f"{told} ({words})" if outcome == "FAILED" else f"{told} (it counts when the next one begins)"

    def _attempt(self, job_id: str) -> tuple[str, int | None]:
        """Submit a job, or find it from an earlier submitter, and follow it; its outcome and the driver's exit code."""
        deadline = self.clock() + self.startup_s
        while self.clock() < deadline:
            try:
                jobs = self.connect()
                if not _knows(jobs, job_id):
                    jobs.submit_job(entrypoint=self.entrypoint, submission_id=job_id)
                    self.say(f"submitter: started {job_id}\n")
                return self._follow(jobs, job_id)
            except (OSError, RuntimeError):  # not there yet, or only half
                self._wait()
        # most likely its pod cannot be scheduled, and another attempt could not change that
        return f"no head within {self.startup_s:g} s", USER_ERROR

    def _follow(self, jobs: Jobs, job_id: str) -> tuple[str, int | None]:
        printed, answered = 0, self.clock()
        while True:
            try:
                info = jobs.get_job_info(job_id)
                output = jobs.get_job_logs(job_id)
            except (OSError, RuntimeError) as problem:
                if _unknown(problem):
                    return "LOST (the head restarted)", None
                if self.clock() - answered > LOST_S:
                    return f"LOST (the head has not answered for {LOST_S:g} s)", None
                self._wait()
                continue
            answered = self.clock()
            self._output = output
            self.say(output[printed:])
            printed = len(output)
            if info.status.is_terminal():
                return str(info.status.value), info.driver_exit_code
            self._wait()

    def _wait(self) -> None:
        """Until the next look.

        Raises:
            DeadlineError: the run has no time left.
        """
        if self.clock() - self.progress.started > self.deadline_s:
            raise DeadlineError
        self.sleep(POLL_S)

    def _stop_job(self) -> None:
        """The driver ends by SIGTERM, as far as it can still be asked."""
        try:
            self.connect().stop_job(f"{self.name}-{self.progress.attempt}")
        except (OSError, RuntimeError) as problem:
            self.say(f"submitter: the job could not be asked to stop: {problem}\n")

    def _fresh_cluster(self) -> None:
        """Replace all pods: what the failed attempt left in memory is gone, and a lost pod is replaced."""
        assert self.pods is not None
        self.say("submitter: starting again in a fresh Ray cluster\n")
        self._insist(self.pods.release)
        deadline = self.clock() + self.startup_s
        while self.clock() < deadline:
            try:
                self.connect()
            except (OSError, RuntimeError):
                break
            self._wait()
        self._insist(self.pods.restore)
        self._remember(clearing=False)


def _knows(jobs: Jobs, job_id: str) -> bool:
    try:
        jobs.get_job_info(job_id)
    except RuntimeError as problem:
        if _unknown(problem):
            return False
        raise
    return True


def _unknown(problem: Exception) -> bool:
    """Whether Ray's answer was that there is no such job; everything else may pass."""
    return isinstance(problem, RuntimeError) and "status code 404" in str(problem)


def parser() -> argparse.ArgumentParser:
    """The command line; the entrypoint follows `--`."""
    made = argparse.ArgumentParser(prog="python -m openrlhf_mtp.cluster.submit", description=__doc__)
    made.add_argument("--address", required=True, help="http://HEAD:8265")
    made.add_argument("--name", required=True, help="the run's name; attempts are NAME-1, NAME-2, ...")
    made.add_argument("--retries", type=int, default=0, help="how often a failed run is started again")
    made.add_argument(
        "--max-attempts",
        type=int,
        metavar="N",
        help="the run's script counts failures since the newest checkpoint; at most N attempts in all",
    )
    made.add_argument("--startup-s", type=float, default=3600.0, help="how long the head may take to come")
    made.add_argument(
        "--deadline-s", type=float, default=float("inf"), help="how long the run may take in all"
    )
    made.add_argument(
        "--memory",
        metavar="NAME",
        help="the ConfigMap in which a run's progress is kept; without it pods are left as they are",
    )
    made.add_argument(
        "--release-after-s", type=float, default=60.0, help="between the end and the release of pods"
    )
    made.add_argument(
        "--group", action="append", default=[], metavar="NAME=PODS", help="a StatefulSet of the run"
    )
    made.add_argument("--again", action="store_true", help="a new job at every call, as for a test")
    made.add_argument("entrypoint", nargs="+", help="the command of the Ray job")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """0 when the job succeeded."""
    arguments = parser().parse_args(argv)
    # the first process of a container ignores a signal that it does not handle, and would be waited for
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    from ray.job_submission import JobSubmissionClient

    from openrlhf_mtp.cluster.scale import RunPods

    groups = dict(text.split("=", 1) for text in arguments.group)
    replicas = {name: int(count) for name, count in groups.items()}
    submitter = Submitter(
        lambda: JobSubmissionClient(arguments.address),
        RunPods(replicas, arguments.memory) if arguments.memory else None,
        name=f"{arguments.name}-{time.time():.0f}" if arguments.again else arguments.name,
        entrypoint=shlex.join(arguments.entrypoint),
        startup_s=arguments.startup_s,
        deadline_s=arguments.deadline_s,
    )
    return submitter.run(arguments.retries, arguments.release_after_s, arguments.max_attempts)


if __name__ == "__main__":
    sys.exit(main())
