"""How often a run is started again: failures since the newest checkpoint, through anything that can happen to it."""

import json
import os
import signal
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openrlhf_mtp.cluster import attempts, own_job
from openrlhf_mtp.cluster.attempts import (
    ATTEMPTS,
    DONE,
    FAILED,
    NONE_LEFT,
    TOLD_TO_STOP,
    USER_ERROR,
    main,
    read,
)
from openrlhf_mtp.config.checkpoints import Checkpoint
from tests.unit.config.test_checkpoints import save


class Run:
    """A run folder and its script's two calls."""

    def __init__(self, folder, *, name="run1-1", retries=2):
        self.folder, self.name, self.retries = folder, name, retries
        folder.mkdir(exist_ok=True)

    def begin(self):
        return main(["begin", *self.words()])

    def end(self, code, *more):
        return main(["end", *self.words(), "--code", str(code), *more])

    def fails(self, code=1):
        """A whole attempt; its exit code."""
        return self.begin() or self.end(code)

    def words(self):
        counted = [] if self.retries is None else ["--retries", str(self.retries)]
        return ["--run", str(self.folder), "--name", self.name, *counted]

    def saves(self, step):
        save(self.folder / "checkpoints", step)

    @property
    def failed(self):
        return json.loads((self.folder / FAILED).read_text(encoding="utf-8"))


@pytest.fixture
def run(tmp_path):
    return Run(tmp_path / "run1")


def test_a_run_without_progress_is_started_again_as_often_as_retries_says(run, capsys):
    assert [run.fails(), run.fails(7), run.fails()] == [1, 7, NONE_LEFT]
    assert capsys.readouterr().out.splitlines() == [
        "attempts: attempt 1 begins; 0 failed and no checkpoint yet, job.retries=2",
        "attempts: attempt 1 failed (exit code 1); 1 failed and no checkpoint yet, job.retries=2",
        "attempts: attempt 2 begins; 1 failed and no checkpoint yet, job.retries=2",
        "attempts: attempt 2 failed (exit code 7); 2 failed and no checkpoint yet, job.retries=2",
        "attempts: attempt 3 begins; 2 failed and no checkpoint yet, job.retries=2",
        "attempts: attempt 3 failed (exit code 1); 3 failed and no checkpoint yet, job.retries=2",
        "attempts: the run has failed and is not started again: 3 failed and no checkpoint yet, and job.retries=2",
    ]
    assert run.failed == {
        "reason": "3 failed and no checkpoint yet, and job.retries=2",
        "exit_code": NONE_LEFT,
        "attempts": 3,
        "checkpoint": "",
    }


def test_a_run_that_gets_on_may_fail_as_often_as_it_likes(run, capsys):
    for step in range(1, 30):
        assert run.begin() == 0
        run.saves(step)
        assert run.end(1) == 1
    assert (
        "attempt 29 failed (exit code 1); 1 failed since checkpoint global_step29" in capsys.readouterr().out
    )


def test_attempts_that_were_killed_count_when_the_next_one_begins(run, capsys):
    assert [run.begin() for _ in range(3)] == [0, 0, 0]
    assert run.begin() == NONE_LEFT
    assert run.end(NONE_LEFT) == NONE_LEFT  # as the script's own end does
    assert run.failed["attempts"] == 3
    said = capsys.readouterr().out.splitlines()
    assert said[-2:] == [
        "attempts: attempt 3 failed (killed); 3 failed and no checkpoint yet, job.retries=2",
        "attempts: the run has failed and is not started again: 3 failed and no checkpoint yet, and job.retries=2",
    ]


def test_an_error_that_another_attempt_would_not_change_ends_the_run_at_once(run, capsys):
    assert run.fails(USER_ERROR) == USER_ERROR
    assert capsys.readouterr().out.splitlines()[-1] == (
        "attempts: the run has failed and is not started again: exit code 2 says that another attempt would end the "
        "same way; the reason is printed above"
    )
    assert run.failed["exit_code"] == USER_ERROR


def test_an_attempt_that_was_told_to_stop_has_not_failed(run):
    for _ in range(10):
        assert run.fails(TOLD_TO_STOP) == TOLD_TO_STOP
    assert read(run.folder, run.name).failed == 0


def test_a_checkpoint_that_was_cut_off_or_made_before_is_no_progress(run):
    run.saves(4)
    run.begin()
    newest = Checkpoint(run.folder / "checkpoints", "global_step8")
    run.saves(8)
    file = next(newest.files())
    file.write_bytes(file.read_bytes()[:10])
    run.end(1)
    assert (read(run.folder, run.name).step, read(run.folder, run.name).failed) == (4, 1)
    run.begin()
    run.saves(8)
    run.end(1)
    assert (read(run.folder, run.name).step, read(run.folder, run.name).failed) == (8, 1)


def test_another_run_in_the_folder_starts_its_own_count(run):
    before = Run(run.folder, name="run1-0")
    before.fails()
    before.begin()
    run.begin()
    assert before.end(1) == 1
    assert read(run.folder, run.name).begun == 1
    assert read(run.folder, run.name).failed == 0


def test_a_run_that_has_succeeded_is_not_run_again(run, capsys):
    run.fails()
    run.fails(0)
    assert run.begin() == DONE
    assert run.end(0) == 0
    assert run.begin() == DONE
    assert capsys.readouterr().out.splitlines()[-1] == (
        "attempts: this run has succeeded before, in attempt 2; nothing is left to do"
    )
    assert Run(run.folder, name="run1-2").begin() == 0


@pytest.mark.parametrize("code", [USER_ERROR, 1])
def test_a_run_that_has_failed_for_good_starts_over(run, code):
    run.retries = 0
    run.fails(code)
    assert run.begin() == 0
    assert read(run.folder, run.name).begun == 1
    assert not (run.folder / FAILED).exists()


ODD = [
    "",
    "{",
    "[]",
    "null",
    '{"run": 3}',
    '{"run": "run1-1", "failed": -1}',
    '{"run": "run1-1", "failed": true}',
    '{"run": "run1-1", "begun": "many"}',
    '{"run": "run1-1", "other": 1}',
    "\x00\xff",
]


@pytest.mark.parametrize("text", ODD)
def test_an_odd_file_is_said_and_counted_from_zero(run, text, capsys):
    (run.folder / ATTEMPTS).write_bytes(text.encode("latin-1"))
    assert run.begin() == 0
    assert "counting from zero" in capsys.readouterr().out
    assert read(run.folder, run.name).begun == 1


def test_a_folder_in_place_of_the_file_is_survived(run, capsys):
    (run.folder / ATTEMPTS).mkdir()
    assert run.fails() == 1
    assert "cannot be written" in capsys.readouterr().out


def test_an_unwritable_folder_ends_the_run_without_a_retry(run, monkeypatch):
    monkeypatch.setattr(attempts.os, "access", lambda path, mode: path != run.folder)
    assert run.end(1) == USER_ERROR  # the script could not even say that an attempt begins
    assert run.failed["reason"] == (
        f"{run.folder} cannot be written to by uid {os.getuid()}; give the volume to it, or set pods.podSecurityContext"
    )


def test_a_folder_that_could_not_be_made_is_one_that_cannot_be_written_to(tmp_path, monkeypatch):
    monkeypatch.setattr(attempts.os, "access", lambda path, mode: path != tmp_path)
    assert f"{tmp_path} cannot be written to" in attempts.unwritable(tmp_path / "runs" / "run1")


def test_without_a_shared_folder_the_exit_code_alone_decides(run):
    run.retries = None
    assert [run.fails() for _ in range(5)] == [1] * 5
    assert not (run.folder / ATTEMPTS).exists()
    assert run.fails(USER_ERROR) == USER_ERROR
    assert run.failed == {
        "reason": "exit code 2 says that another attempt would end the same way; the reason is printed above",
        "exit_code": USER_ERROR,
    }


def test_a_users_command_that_ends_with_our_code_has_only_failed(run):
    assert run.fails(NONE_LEFT) == 1


def test_what_was_counted_can_be_read_from_the_output_alone(run, capsys):
    def said():
        return attempts.said_in("epoch 1; 3 failed tests, job.retries=9\n" + capsys.readouterr().out)

    assert said() is None
    run.begin()
    assert said() == (0, "0 failed and no checkpoint yet")
    run.saves(40)
    run.end(1)
    assert said() == (0, "1 failed since checkpoint global_step40")
    run.begin()
    assert said() == (1, "1 failed since checkpoint global_step40")
    run.end(1)
    assert said() == (1, "2 failed since checkpoint global_step40")
    run.begin()
    run.end(0)
    assert said() == (2, "2 failed since checkpoint global_step40")


def test_checkpoints_are_looked_for_where_the_job_keeps_them(run, tmp_path):
    save(tmp_path / "elsewhere", 6)
    main(["begin", *run.words(), "--checkpoints", str(tmp_path / "elsewhere")])
    assert read(run.folder, run.name).checkpoint == "global_step6"


EVENTS = st.lists(st.sampled_from(["fails", "killed", "told to stop", "saves"]), max_size=40)


@given(events=EVENTS, retries=st.integers(0, 3))
def test_a_run_ends_after_too_many_failures_since_a_checkpoint(events, retries):
    """Against a plain count, without files: `Attempts` is all that is kept between two attempts."""
    now, failed, step = attempts.Attempts("run"), 0, 0
    newest = None
    for event in events:
        now = now.begin(newest)
        assert now.failed == failed
        if failed > retries:
            break
        if event == "saves":
            step, failed = step + 1, 0
            newest = Checkpoint(None, f"global_step{step}")
        if event == "killed":
            failed += 1
            continue
        code = TOLD_TO_STOP if event == "told to stop" else 1
        failed += code == 1
        now = attempts.Attempts(**json.loads(json.dumps(now.end(newest, code).__dict__)))
        assert (now.failed, now.step) == (failed, step or -1)


class Ray:
    """Ray's jobs: one is told to stop after a while, or never, or cannot be."""

    def __init__(self, after_s=0.0, problem=None, answer=True):
        self.after_s, self.problem, self.answer, self.asked = after_s, problem, answer, []

    def stop_job(self, job_id):
        self.asked.append(job_id)
        if self.problem:
            raise self.problem
        if self.after_s is not None:
            threading.Timer(self.after_s, os.kill, (os.getpid(), signal.SIGTERM)).start()
        return self.answer


@pytest.fixture
def job(monkeypatch):
    monkeypatch.setenv(own_job.CONFIG, json.dumps({"metadata": {"job_submission_id": "run1-x"}}))


@pytest.mark.usefixtures("job")
def test_a_job_that_asks_to_be_stopped_waits_until_it_is():
    usual, ray = signal.getsignal(signal.SIGTERM), Ray(0.2)
    assert own_job.stop_own_job("http://h:8265", lambda _: ray)
    assert ray.asked == ["run1-x"]
    assert signal.getsignal(signal.SIGTERM) == usual


@pytest.mark.usefixtures("job")
@pytest.mark.parametrize(
    "ray",
    [Ray(None), Ray(problem=ConnectionError("no head")), Ray(None, answer=False)],
    ids=["silent", "no head", "no"],
)
def test_a_job_that_is_not_stopped_ends_with_its_exit_code(ray):
    assert not own_job.stop_own_job("http://h:8265", lambda _: ray, wait_s=0.2)


@pytest.mark.parametrize(
    "text", [None, "", "{}", '{"metadata": null}', '{"metadata": {"job_submission_id": 3}}']
)
def test_outside_a_ray_job_nothing_is_stopped(monkeypatch, text, capsys):
    monkeypatch.delenv(own_job.CONFIG, raising=False)
    if text is not None:
        monkeypatch.setenv(own_job.CONFIG, text)
    assert not own_job.stop_own_job("http://h:8265", lambda _: Ray())
    assert "this Ray job cannot be stopped" in capsys.readouterr().out


@pytest.mark.parametrize("stopped", [True, False])
def test_a_run_is_over_only_when_its_job_was_stopped(run, monkeypatch, stopped):
    monkeypatch.setattr(attempts, "stop_own_job", lambda address: stopped and address == "http://h:8265")
    run.retries = 0
    run.begin()
    assert run.end(1, "--stop-job", "http://h:8265") == NONE_LEFT
    # KubeRay repeats the one that could not be stopped: it ends at once
    assert run.begin() == (0 if stopped else NONE_LEFT)
