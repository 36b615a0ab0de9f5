"""The life of a run without an operator, played with a clock: every end that it can come to."""

from types import SimpleNamespace

import pytest

from openrlhf_mtp.cluster.submit import LOST_S, Submitter, parser

UNKNOWN = RuntimeError("Request failed with status code 404: Job x does not exist.")


class Status(str):
    value = property(str)

    def is_terminal(self):
        return self in ("SUCCEEDED", "FAILED", "STOPPED")


class World:
    """A head that can be down or anew, jobs that end as told, pods that can be scaled."""

    def __init__(self, ends, *, head_from=0.0):
        self.now, self.head_from = 0.0, head_from
        self.ends = dict(enumerate(ends, start=1))
        self.jobs, self.scaled, self.said = {}, [], ""
        self.down = lambda now: False

    def sleep(self, seconds):
        self.now += seconds

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
        return "".join(f"{job_id} line {n}\n" for n in range(int(self.now - self.jobs[job_id]) // 20))

    # the pods
    def released(self):
        return bool(self.scaled) and self.scaled[-1] == "release"

    def release(self):
        self.scaled.append("release")

    def restore(self):
        self.scaled.append("restore")
        self.jobs.clear()

    def run(self, *, retries=2, pods=True, startup_s=600):
        submitter = Submitter(
            self.connect,
            self if pods else None,
            name="run",
            entrypoint="bash run.sh",
            startup_s=startup_s,
            clock=lambda: self.now,
            sleep=self.sleep,
            say=self._say,
        )
        return submitter.run(retries, 60)

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
    assert world.run(retries=1) == 1
    assert world.scaled == ["release", "restore", "release"]
    assert "attempt 2 of 2: FAILED" in world.said


@pytest.mark.parametrize(
    "end", [("FAILED", 2), ("STOPPED", None)], ids=["a job file with an error", "stopped"]
)
def test_what_another_attempt_would_not_change_is_not_tried_again(end):
    world = World([end])
    assert world.run() == 1
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


def test_a_head_that_was_started_anew_does_not_know_the_job():
    world = World([("SUCCEEDED", 0), ("SUCCEEDED", 0)])

    def restart(now):
        if now >= 30 and not world.scaled:
            world.jobs.clear()
        return False

    world.down = restart
    assert world.run() == 0
    assert "LOST (the head was started anew)" in world.said


def test_a_head_that_never_comes_ends_the_run_in_time():
    world = World([], head_from=1e9)
    assert world.run(retries=0, startup_s=300) == 1
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
    world = World([("SUCCEEDED", 0)])
    world.scaled = ["release"]
    assert world.run() == 1
    assert world.jobs == {}
    assert world.said == "submitter: this run has ended before, and its pods were released\n"


def test_pods_that_are_to_be_kept_are_not_scaled():
    world = World([("FAILED", 1), ("SUCCEEDED", 0)])
    assert world.run(pods=False) == 0
    assert world.scaled == []


def test_the_chart_passes_the_entrypoint_after_two_dashes():
    words = ["--address", "http://h:8265", "--name", "run", "--group", "a=1", "--", "bash", "/etc/x/run.sh"]
    assert parser().parse_args(words).entrypoint == ["bash", "/etc/x/run.sh"]
