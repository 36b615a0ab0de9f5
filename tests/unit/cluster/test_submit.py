"""The life of a run without an operator, played with a clock: every end that it can come to."""

from types import SimpleNamespace

import pytest

from openrlhf_mtp.cluster.attempts import NONE_LEFT
from openrlhf_mtp.cluster.scale import Progress
from openrlhf_mtp.cluster.submit import LOST_S, RUN_FAILED, Submitter, parser

UNKNOWN = RuntimeError("Request failed with status code 404: Job x does not exist.")


class Status(str):
    value = property(str)

    def is_terminal(self):
        return self in ("SUCCEEDED", "FAILED", "STOPPED")


class Killed(Exception):
    """The submitter's pod has gone in the middle of this call."""


class World:
    """A head that can be down or restarted, jobs that end as told, pods that can be scaled."""

    def __init__(self, ends, *, head_from=0.0):
        self.now, self.head_from = 0.0, head_from
        self.ends = dict(enumerate(ends, start=1))
        self.jobs, self.scaled, self.stopped, self.said = {}, [], [], ""
        self.memory, self.calls, self.killed_at, self.dies_at = None, [], 0, float("inf")
        self.down = self.api_down = lambda now: False
        self.counts = {}

    def sleep(self, seconds):
        self.now += seconds
        if self.now >= self.dies_at:
            self.dies_at = float("inf")
            raise Killed

    # the head
    def connect(self):
        if self.now < self.head_from or self.down(self.now) or (self.scaled and self.scaled[-1] == "release"):
            raise ConnectionError("no head")
        return self

    def submit_job(self, *, entrypoint, submission_id):
        self.jobs[submission_id] = self.now
        return submission_id

    def get_job_info(self, job_id):
        if self.down(self.now):
            raise ConnectionError("no head")
        if job_id not in self.jobs:
            raise UNKNOWN
        status, code = self.ends[int(job_id.rpartition("-")[2])]
        over = self.now >= self.jobs[job_id] + 60
        return SimpleNamespace(
            status=Status(status if over else "RUNNING"), driver_exit_code=code if over else None
        )

    def get_job_logs(self, job_id):
        return self.counts.get(int(job_id.rpartition("-")[2]), "") + "".join(
            f"{job_id} line {n}\n" for n in range(int(self.now - self.jobs[job_id]) // 20)
        )

    def stop_job(self, job_id):
        self.stopped.append(job_id)
        return True

    # the pods, and what the API server keeps
    def release(self):
        self._api("release")
        self.scaled.append("release")

    def restore(self):
        self._api("restore")
        self.scaled.append("restore")
        self.jobs.clear()

    def recall(self):
        self._api("recall")
        return self.memory

    def remember(self, progress):
        self._api("remember")
        self.memory = progress

    def _api(self, call):
        self.calls.append(call)
        if len(self.calls) == self.killed_at:
            raise Killed
        if self.api_down(self.now):
            raise ConnectionError("no API server")

    def run(self, *, retries=2, pods=True, startup_s=600, deadline_s=float("inf"), most=None):
        submitter = Submitter(
            self.connect,
            self if pods else None,
            name="run",
            entrypoint="bash run.sh",
            startup_s=startup_s,
            deadline_s=deadline_s,
            clock=lambda: self.now,
            sleep=self.sleep,
            say=self._say,
        )
        return submitter.run(retries, 60, most)

    def _say(self, text):
        self.said += text


def test_a_run_that_succeeds_gives_its_pods_back():
    world = World([("SUCCEEDED", 0)], head_from=30)
    assert world.run() == 0
    assert world.scaled == ["release"]
    assert "attempt 1 of 3: SUCCEEDED" in world.said


def test_output_is_printed_once_though_it_is_read_again_and_again():
    world = World([("SUCCEEDED", 0)])
    world.run()
    assert world.said.count("run-1 line 0\n") == 1
    assert world.said.count("run-1 line 2\n") == 1


def test_a_run_that_fails_is_started_again_in_a_fresh_cluster():
    world = World([("FAILED", 1), ("FAILED", None), ("SUCCEEDED", 0)])
    assert world.run() == 0
    assert world.scaled == ["release", "restore", "release", "restore", "release"]


def test_a_run_that_fails_too_often_fails_and_gives_its_pods_back():
    world = World([("FAILED", 1), ("FAILED", 1)])
    assert world.run(retries=1) == RUN_FAILED
    assert world.scaled == ["release", "restore", "release"]
    assert "attempt 2 of 2: FAILED" in world.said


@pytest.mark.parametrize(
    "end", [("FAILED", 2), ("STOPPED", None)], ids=["a job file with an error", "stopped"]
)
def test_what_another_attempt_would_not_change_is_not_tried_again(end):
    world = World([end])
    assert world.run() == RUN_FAILED
    assert world.scaled == ["release"]


def test_a_head_that_is_gone_for_long_costs_an_attempt():
    world = World([("SUCCEEDED", 0), ("SUCCEEDED", 0)])
    world.down = lambda now: 20 <= now < 20 + 2 * LOST_S
    assert world.run() == 0
    assert f"LOST (the head has not answered for {LOST_S:g} s)" in world.said
    assert world.scaled == ["release", "restore", "release"]


def test_a_connection_that_drops_for_a_moment_costs_nothing():
    world = World([("SUCCEEDED", 0)])
    world.down = lambda now: 20 <= now < 50
    assert world.run() == 0
    assert "attempt 1 of 3: SUCCEEDED" in world.said


def test_a_head_that_restarted_does_not_know_the_job():
    world = World([("SUCCEEDED", 0), ("SUCCEEDED", 0)])

    def restart(now):
        if now >= 30 and not world.scaled:
            world.jobs.clear()
        return False

    world.down = restart
    assert world.run() == 0
    assert "LOST (the head restarted)" in world.said


def test_a_head_that_never_comes_ends_the_run_in_time():
    world = World([], head_from=1e9)
    assert world.run(retries=2, startup_s=300) == RUN_FAILED
    assert "no head within 300 s" in world.said
    assert world.now < 400
    assert world.scaled == ["release"]


def test_a_second_submitter_follows_the_job_of_the_first():
    world = World([("SUCCEEDED", 0)])
    world.jobs["run-1"] = 0.0
    world.now = 10
    assert world.run() == 0
    assert "started run-1" not in world.said


def test_a_submitter_after_the_end_says_so_and_starts_nothing():
    world = World([("FAILED", 2)])
    assert world.run() == RUN_FAILED
    world.jobs.clear()
    world.said = ""
    assert world.run() == RUN_FAILED
    assert world.jobs == {}
    assert world.said == "submitter: this run has ended before\n"
    assert world.scaled == ["release", "release"]  # the first may have died before it could


def test_a_submitter_that_takes_over_a_second_attempt_follows_that_one():
    world = World([("FAILED", 1), ("SUCCEEDED", 0)])
    world.dies_at = 90
    with pytest.raises(Killed):
        world.run()
    assert world.memory.attempt == 2
    assert world.run() == 0
    assert world.said.count("started run-2") == 1
    assert "started run-1" in world.said
    assert "attempt 2 of 3: SUCCEEDED" in world.said
    assert world.scaled == ["release", "restore", "release"]


@pytest.mark.parametrize("call", range(1, 10))
def test_a_killed_submitters_successor_ends_the_run_the_same_way(call):
    world = World([("FAILED", 1), ("SUCCEEDED", 0)])
    world.killed_at = call
    try:
        code = world.run()
    except Killed:
        code = world.run()
    assert code == 0
    assert world.scaled[-1] == "release"
    assert world.memory.attempt == 2
    assert world.memory.exit_code == 0
    assert set(world.jobs) == {"run-2"}  # one job in the fresh cluster, none beside it


def test_an_api_server_that_is_away_for_a_moment_is_asked_again():
    world = World([("FAILED", 1), ("SUCCEEDED", 0)])
    world.api_down = lambda now: 55 <= now < 100
    assert world.run() == 0
    assert "does not do as asked" in world.said
    assert world.scaled == ["release", "restore", "release"]


def test_a_run_that_takes_too_long_is_stopped_and_gives_its_pods_back_at_once():
    world = World([("FAILED", 1), ("SUCCEEDED", 0)])
    assert world.run(deadline_s=90) == RUN_FAILED
    assert world.stopped == ["run-2"]
    assert world.scaled == ["release", "restore", "release"]
    assert world.now < 100


def test_the_deadline_counts_from_the_first_submitter():
    world = World([("SUCCEEDED", 0)], head_from=1000)
    world.memory = Progress(started=-50.0)
    assert world.run(deadline_s=90) == RUN_FAILED
    assert world.now < 50


def test_pods_that_are_to_be_kept_are_not_scaled():
    world = World([("FAILED", 1), ("SUCCEEDED", 0)])
    assert world.run(pods=False) == 0
    assert world.scaled == []


def counted(attempt, failed, how="failed (exit code 1)", since="since checkpoint global_step40"):
    return f"attempts: attempt {attempt} {how}; {failed} failed {since}, job.retries=2\n"


def test_where_the_script_counts_a_run_that_gets_on_is_started_again_and_again():
    world = World([("FAILED", 1)] * 6 + [("SUCCEEDED", 0)])
    world.counts = {number: counted(number, 1) for number in range(1, 7)}
    world.counts[7] = counted(7, 1, "begins")
    assert world.run(most=20) == 0
    assert "attempt 6 of 8: FAILED (1 failed since checkpoint global_step40)\n" in world.said
    assert "attempt 7 of 8: SUCCEEDED\n" in world.said


def test_where_the_script_counts_its_exit_code_ends_the_run():
    world = World([("FAILED", 1), ("FAILED", NONE_LEFT)])
    world.counts = {1: counted(1, 2), 2: counted(2, 3)}
    assert world.run(most=20) == RUN_FAILED
    assert "attempt 1 of 2: FAILED (2 failed since checkpoint global_step40)\n" in world.said
    assert "attempt 2 of 2: FAILED (3 failed since checkpoint global_step40)\n" in world.said
    assert world.scaled == ["release", "restore", "release"]


def test_that_exit_code_means_nothing_where_the_script_does_not_count():
    world = World([("FAILED", NONE_LEFT), ("SUCCEEDED", 0)])
    assert world.run() == 0


def test_however_far_a_run_gets_its_attempts_have_an_end():
    world = World([("FAILED", 1)] * 5)
    world.counts = {number: counted(number, 1) for number in range(1, 6)}
    assert world.run(most=5) == RUN_FAILED
    assert "attempt 5 of 5: FAILED (1 failed since checkpoint global_step40)\n" in world.said
    assert world.said.count("that was the last of 5 attempts (job.maxAttempts)") == 1


def test_attempts_that_end_before_their_script_counts_are_counted_here():
    world = World([("FAILED", 1)] * 9)
    world.counts = {number: counted(number, 1) for number in (1, 2, 3, 4, 7)}
    assert world.run(most=20, retries=1) == RUN_FAILED
    assert [
        line for line in world.said.splitlines() if "attempt" in line and "of" in line and "submitter" in line
    ][-2:] == ["submitter: attempt 5 of 6: FAILED", "submitter: attempt 6 of 6: FAILED"]


def test_an_attempt_that_was_lost_is_counted_by_the_next_one():
    world = World([("SUCCEEDED", 0), ("SUCCEEDED", 0)])
    world.counts = {1: counted(1, 0, "begins", "and no checkpoint yet")}
    world.down = lambda now: 20 <= now < 20 + 2 * LOST_S
    assert world.run(most=20) == 0
    assert (
        f"attempt 1 of 3: LOST (the head has not answered for {LOST_S:g} s) (it counts when the next one begins)"
        in world.said
    )


def test_the_chart_passes_the_entrypoint_after_two_dashes():
    words = ["--address", "http://h:8265", "--name", "run", "--group", "a=1", "--", "bash", "/etc/x/run.sh"]
    assert parser().parse_args(words).entrypoint == ["bash", "/etc/x/run.sh"]
